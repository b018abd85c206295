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
