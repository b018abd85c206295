"""The realtime endpoint of real replicas: whole sessions, answers that outlive their socket, cancelled runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from demo.mocks.dify.server import MockDify
from tests.support.replicas import Replica, dify_settings, replicas, settings_for
from tests.support.servers.processes import RedisServer, wait_until
from tests.support.sockets.realtime_desk import html_of, stages
from tests.support.sockets.visitor import TIMEOUT, Visitor, visit
from utils.markdown.blocks import render_markdown

pytestmark = [pytest.mark.scenario, pytest.mark.full]

#: A question whose answer takes several seconds.
SLOW = "年假怎么申请？[[slow]]"

Speaks = Callable[[int], AbstractContextManager[Visitor]]


@pytest.fixture(scope="module")
def dify() -> Iterator[MockDify]:
    """A mock Dify whose slow answers take seconds."""
    with MockDify(delay=0.05, slow=0.1) as dify:
        yield dify


@pytest.fixture(scope="module")
def env(redis_server: RedisServer, dify: MockDify) -> dict[str, str]:
    """The settings of a replica without authentication."""
    own = {"WEBSOCKET_AUTH": "none", "RATE_LIMIT_USER": "off", "RATE_LIMIT_IP": "off", "STREAM_LEASE": "3"}
    return settings_for(redis_server.url(), **dify_settings(dify.base_url, **own))


@pytest.fixture(scope="module")
def both_replicas(env: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Replica]]:
    """Two replicas of one deployment."""
    with replicas(2, env, tmp_path_factory.mktemp("realtime")) as both:
        yield both


@pytest.fixture
def speaks(both_replicas: list[Replica]) -> Speaks:
    """A function that connects to the realtime endpoint of replica `number`."""
    return lambda number: visit(both_replicas[number].url, "realtime")


def say(visitor: Visitor, text: str, **members: Any) -> None:
    visitor.says({"type": "asr_chunk", "text": text, "is_final": True, **members})


def control(visitor: Visitor, action: str, **members: Any) -> None:
    visitor.says({"type": "control", "action": action, **members})


def until_idle(visitor: Visitor) -> list[dict[str, Any]]:
    """Read until the stage is idle; return the frames read."""
    since = len(visitor.frames)
    visitor.until({"stage": "idle"})
    return visitor.frames[since:]


def text_of(frames: list[dict[str, Any]]) -> str:
    """Return the answer's text in the frames; fail if the pieces' numbers have a gap."""
    answers = [frame for frame in frames if frame["type"] == "answer"]
    numbers = [frame["stream_index"] for frame in answers]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    assert [frame["final"] for frame in answers] == [False] * (len(answers) - 1) + [True]
    return "".join(frame["content"] for frame in answers)


def asked_of(dify: MockDify, text: str) -> list[dict[str, Any]]:
    return [dict(request.body) for request in dify.requests if text in request.body["query"]]


def test_a_whole_session(speaks: Speaks, dify: MockDify) -> None:
    """A session from greeting to close contains every client message, and each is answered as documented."""
    question = "报销要多久？"
    with speaks(0) as visitor:
        say(visitor, "我昨天出差回来。", session_id="whole", timestamp=7)
        visitor.says({"type": "asr_chunk", "text": "报销"})
        say(visitor, question)
        answered = until_idle(visitor)
        visitor.says({"type": "keepalive"})
        control(visitor, "pause")
        say(visitor, "病假呢？")
        control(visitor, "resume")
        control(visitor, "instant_query")
        instant = until_idle(visitor)
        control(visitor, "stop")
        visitor.until({"stage": "idle"})
        control(visitor, "stop", close=True)
        code = visitor.until_closed()

    words = [word for word in stages(answered) if word.islower()]
    assert words[:8] == ["ack", "listening", "ack", "waiting_for_question", "ack", "ack", "analyzing", "querying_rag"]
    assert answered[2]["timestamp"] == 7
    assert {frame["session_id"] for frame in answered[2:]} == {"whole"}
    assert text_of(answered) == dify.expected_answer("我昨天出差回来。" + question)
    assert stages(instant)[:8] == ["ack", "ack", "paused", "ack", "paused", "ack", "listening", "ack"]
    assert stages(instant)[8:10] == ["instant_query", "querying_rag"]
    assert (instant[8]["question"], text_of(instant)) == (question, dify.expected_answer(question))
    assert (stages(visitor.frames)[-1], code) == ("closed", 1000)
    assert asked_of(dify, "病假呢") == []


def test_a_pause_in_mid_answer_is_acknowledged_at_once(speaks: Speaks, dify: MockDify) -> None:
    """A pause in mid-answer is acknowledged between the answer's pieces; the answer continues to its end."""
    with speaks(0) as visitor:
        say(visitor, SLOW)
        visitor.until({"type": "answer"})
        control(visitor, "pause")
        visitor.until({"stage": "paused"})
        rest = until_idle(visitor)
        visitor.until({"stage": "paused"})

    assert [frame["final"] for frame in rest if frame["type"] == "answer"][:1] == [False]
    assert text_of(visitor.frames) == dify.expected_answer(SLOW)


def test_a_question_spoken_during_an_answer_is_answered_next(speaks: Speaks, dify: MockDify) -> None:
    """A question during an answer is queued and answered next, in the same conversation."""
    with speaks(0) as visitor:
        say(visitor, SLOW, session_id="next")
        visitor.until({"type": "answer"})
        say(visitor, "报销流程是什么？")
        first = until_idle(visitor)
        second = until_idle(visitor)

    assert "queued" in stages(first)
    assert stages(second)[:2] == ["analyzing", "querying_rag"]
    assert text_of(second) == dify.expected_answer("报销流程是什么？")
    asked = [request.body for request in dify.requests if request.body["user"] == "ws-user-next"]
    assert [body["query"] for body in asked] == [SLOW, "报销流程是什么？"]
    assert asked[1]["conversation_id"]


def test_an_answer_as_html_outlives_its_replica(
    speaks: Speaks, env: dict[str, str], dify: MockDify, tmp_path: Path
) -> None:
    """After its owner is killed, another replica sends every block once more and to the end, with one provider call."""
    question = "丧假有几天？[[slow]]"
    with replicas(1, env, tmp_path) as (owner,), visit(owner.url, "realtime") as visitor:
        say(visitor, question, session_id="html", render="html")
        visitor.until({"type": "answer"})
        last = visitor.until({"type": "answer"})
        assert html_of(visitor.frames)
        owner.kill()

    with speaks(1) as visitor:
        resumed = {"stream_id": last["stream_id"], "cursor": last["cursor"], "render": "html"}
        visitor.says({"type": "resume", **resumed, "session_id": "html"})
        after = until_idle(visitor)

    assert [frame["cursor"] for frame in after if frame["type"] == "reset"][:1] == [0]
    assert text_of(after) == dify.expected_answer(question)
    assert html_of(after) == render_markdown(dify.expected_answer(question))
    assert len(asked_of(dify, "丧假")) == 1


def test_a_waiting_question_outlives_its_socket(speaks: Speaks, dify: MockDify) -> None:
    """A queued question has a stream id before its turn: a client that reconnects gets the whole answer with it."""
    with speaks(0) as visitor:
        say(visitor, SLOW, session_id="waits")
        visitor.until({"type": "answer"})
        say(visitor, "产假有几天？")
        queued = visitor.until({"type": "queued"})
        visitor.connection.socket.close()

    with speaks(1) as visitor:
        visitor.says({"type": "resume", "stream_id": queued["stream_id"], "session_id": "waits"})
        frames = until_idle(visitor)

    assert text_of(frames) == dify.expected_answer("产假有几天？")
    assert len(asked_of(dify, "产假")) == 1


def test_a_session_keeps_its_conversation_across_sockets(speaks: Speaks, dify: MockDify) -> None:
    """A session keeps its conversation on another socket and replica; another session starts its own."""
    with speaks(0) as visitor:
        say(visitor, "甲有几天？", session_id="one")
        until_idle(visitor)
        say(visitor, "乙有几天？")
        until_idle(visitor)
        say(visitor, "丙有几天？", session_id="two")
        until_idle(visitor)
    with speaks(1) as visitor:
        say(visitor, "丁有几天？", session_id="one")
        until_idle(visitor)

    bodies = [asked_of(dify, f"{name}有几天")[0] for name in "甲乙丙丁"]
    known = [body.get("conversation_id", "") for body in bodies]
    assert (known[0], known[2]) == ("", "")
    assert known[1] == known[3] != ""
    assert [body["user"] for body in bodies] == ["ws-user-one", "ws-user-one", "ws-user-two", "ws-user-one"]


@pytest.mark.parametrize("way", ["instant_query", "switch", "leave"])
def test_giving_up_an_answer_stops_the_run(speaks: Speaks, dify: MockDify, way: str) -> None:
    """Each way to give up an answer stops the provider's run; except after leaving, the socket reports it."""
    session = f"given-up-by-{way}"
    user = f"ws-user-{session}"
    with speaks(0) as visitor:
        say(visitor, SLOW, session_id=session)
        visitor.until({"type": "answer"})
        if way == "leave":
            visitor.connection.close(1000)
        elif way == "switch":
            visitor.says({"type": "keepalive", "session_id": f"{session}-2"})
            visitor.until({"stage": "listening"})
        else:
            control(visitor, way)
            visitor.until({"stage": "instant_query"})
        wait_until(lambda: user in [who for _, who in dify.stops], TIMEOUT)

    words = stages(visitor.frames)
    assert ("interrupting" in words, "final CANCELLED" in words) == (way != "leave",) * 2


def test_a_page_that_navigates_away_does_not_stop_the_answer(speaks: Speaks, dify: MockDify) -> None:
    """Its close code is 1001; as after a broken connection the answer can be resumed."""
    with speaks(0) as visitor:
        say(visitor, SLOW, session_id="comes-back")
        first = visitor.until({"type": "answer"})
        visitor.connection.close(1001)

    with speaks(0) as visitor:
        visitor.says({"type": "resume", "stream_id": first["stream_id"]})
        frames = until_idle(visitor)

    assert text_of(frames) == dify.expected_answer(SLOW)
    assert "ws-user-comes-back" not in [who for _, who in dify.stops]


def test_a_failure_of_the_provider_ends_in_idle(speaks: Speaks) -> None:
    """An error has a code and no text of the provider; the next question is answered."""
    with speaks(0) as visitor:
        say(visitor, "几天？[[error-after-text]]")
        failed = until_idle(visitor)
        say(visitor, "几天？")
        answered = until_idle(visitor)

    error = next(frame for frame in failed if frame["type"] == "error")
    assert (error["code"], stages(failed)[-2:]) == ("RAG_ERROR", [f"final {error['detail']}", "idle"])
    assert "http" not in error["message"]
    assert stages(answered)[-2:] == ["final", "idle"]
