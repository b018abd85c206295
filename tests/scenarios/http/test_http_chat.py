"""POST /api/chat over real replicas: answers continue after the loss of readers and of the replica producing them."""

from __future__ import annotations

import json
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
import requests

from channels.http_chat.models import ChatAnswered
from demo.mocks.dify.server import MockDify
from tests.scenarios.stage.long_answers import ANSWER, LongAnswers
from tests.scenarios.stage.people import at_once, stored
from tests.support.replicas import Replica, dify_settings, replicas, settings_for
from tests.support.scrapes import samples, scrape
from tests.support.servers.processes import RedisServer, wait_until
from tests.support.sockets.event_reader import WIDE, Event, Program, Reader

pytestmark = [pytest.mark.scenario, pytest.mark.full]

#: Every way of splitting the bytes, and answers that are replaced, filtered, or sent at once.
SCRIPTS = ("chat", "agent-chat", "new-agent-differs", "chatflow", "split-utf8", "separators", "think", "moderation")
KEY = "not-a-real-key"
SLOW = "年假怎么申请？ [[slow]]"
#: Characters after which an answer counts as in progress.
SOME = 20

Pair = tuple[Replica, Replica]
program = Program(KEY)


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    """A Redis that only the replicas use."""
    with RedisServer() as server:
        yield server


@pytest.fixture(scope="module")
def dify() -> Iterator[MockDify]:
    """A mock Dify whose slow answers take some seconds."""
    with MockDify(delay=0.02, slow=0.1) as dify:
        yield dify


def settings(redis: RedisServer, dify: MockDify) -> dict[str, str]:
    own = dify_settings(dify.base_url, API_KEYS=KEY, STREAM_LEASE="2", DRAIN_SECONDS="2", RATE_LIMIT_USER="off")
    return settings_for(redis.url(), **own)


@pytest.fixture(scope="module")
def steady(redis: RedisServer, dify: MockDify, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Two replicas that no test kills; their logs must have no traceback."""
    with replicas(2, settings(redis, dify), tmp_path_factory.mktemp("stayers")) as (one, other):
        yield one, other
        assert "Traceback" not in one.log + other.log


@pytest.fixture
def pair(redis: RedisServer, dify: MockDify, tmp_path: Path) -> Iterator[Pair]:
    """Two replicas for one test."""
    with replicas(2, settings(redis, dify), tmp_path) as (one, other):
        yield one, other
        assert "Traceback" not in one.log + other.log


def completed(event: Event) -> ChatAnswered:
    assert (event.name, event.id) == ("done", "end"), event
    return ChatAnswered.model_validate(event.data)


def whole(reply: requests.Response) -> ChatAnswered:
    assert reply.status_code == 200, reply.text
    return ChatAnswered.model_validate(reply.json()["data"])


def waiting(replica: Replica) -> float:
    return samples(scrape(replica.url))["wechatlaibao_http_waits",]


# Without failures


@pytest.mark.parametrize("script", SCRIPTS)
def test_answers_come_byte_for_byte(steady: Pair, dify: MockDify, redis: RedisServer, script: str) -> None:
    """As events and as JSON elsewhere: the joined deltas, both wholes, Redis and the provider's answer are equal."""
    question = f"年假怎么申请？👍🏽 [[{script}]]"
    asked = len(dify.asked(question))

    reader = program.reads(steady[0].url, question, id=script)
    there = whole(program.asks(steady[1].url, question, id=script))
    here = completed(reader.sees_end())

    answer = dify.expected_answer(question)
    assert reader.text == here.content == there.content == answer
    assert stored(redis, reader.stream_id).text.decode() == answer
    assert here == there
    assert (here.metadata.provider, here.usage.total_tokens > 0) == ("dify", True)
    assert len(dify.asked(question)) == asked + 1


def test_a_reader_resumes_on_the_other_replica(steady: Pair, dify: MockDify) -> None:
    """The answer continues without its reader, which resumes on the other replica without a gap or a repetition."""
    question = f"{SLOW} 1"
    before = program.reads(steady[0].url, question)
    before.sees_text(SOME)
    before.leaves()

    after = program.comes_back(steady[1].url, before)
    end = completed(after.sees_end())

    assert 0 < len(before.text) < len(end.content)
    assert after.text == end.content == dify.expected_answer(question)
    assert after.named("reset") == []
    assert len(dify.asked(question)) == 1


def test_a_question_sent_again_finds_its_stream_elsewhere(steady: Pair, dify: MockDify) -> None:
    """The same id finds its stream, from the start or the last event id; a reader that has all of it gets 204."""
    question = f"{SLOW} 2"
    before = program.reads(steady[0].url, question, id="q2")
    before.sees_text(SOME)
    again = program.reads(steady[1].url, question, id="q2")
    before.leaves()

    headers = {"Authorization": f"Bearer {KEY}", "Last-Event-ID": before.last, "Idempotency-Key": "q2"}
    body = {"query": question, "stream": True}
    rest = Reader(
        requests.post(f"{steady[1].url}/api/chat", json=body, headers=headers, stream=True, timeout=WIDE), before.text
    )

    assert again.stream_id == before.stream_id == rest.stream_id
    assert completed(again.sees_end()) == completed(rest.sees_end())
    assert again.text == rest.text == dify.expected_answer(question)
    nothing = program.gets(steady[0].url, again.stream_id, Accept="text/event-stream", **{"Last-Event-ID": again.last})
    assert nothing.status_code == 204
    assert len(dify.asked(question)) == 1


@pytest.mark.parametrize("stream", [False, True])
def test_another_question_under_a_used_id_is_refused_elsewhere(steady: Pair, dify: MockDify, stream: bool) -> None:
    """Another question under a used id gets 409 and is not asked; the first question keeps its answer."""
    question, id = f"年假怎么申请？ {stream}", f"conflict {stream}"
    first = whole(program.asks(steady[0].url, question, id=id))

    refused = program.asks(steady[1].url, "病假怎么申请？ conflict", id=id, stream=stream)

    assert (refused.status_code, refused.json()["code"]) == (409, 20000)
    assert refused.json()["data"] == {"reason": "id_conflict"}
    assert dify.asked("病假怎么申请？ conflict") == []
    assert whole(program.asks(steady[1].url, question, id=id)) == first


def test_a_crowd_sends_each_question_twice(steady: Pair, dify: MockDify) -> None:
    """Ten programs send one question each to both replicas at the same moment: each is asked once."""
    question = "年假怎么申请？ crowd"

    answers = at_once(
        partial(program.asks, replica.url, question, id=f"crowd{number}") for number in range(10) for replica in steady
    )

    ids = [whole(answer).stream_id for answer in answers]
    assert ids[::2] == ids[1::2]
    assert len(set(ids)) == 10
    assert len(dify.asked(question)) == 10


def test_cancelling_reaches_the_provider(steady: Pair, dify: MockDify) -> None:
    """A DELETE on the other replica stops the provider's run; both kinds of readers get the text so far."""
    question, stops = f"{SLOW} 3", len(dify.stops)
    reader = program.reads(steady[0].url, question, id="q3")
    reader.sees_text(SOME)

    reply = program.cancels(steady[1].url, reader.stream_id)
    end = reader.sees_end()
    blocking = program.asks(steady[1].url, question, id="q3")

    assert reply.json()["data"] == {"stream_id": reader.stream_id, "status": "cancelled"}
    assert (end.name, end.data["data"]["reason"], end.data["data"]["content"]) == ("error", "cancelled", reader.text)
    assert (blocking.status_code, blocking.json()) == (409, end.data)
    assert len(reader.text) < len(dify.expected_answer(question))
    wait_until(lambda: len(dify.stops) == stops + 1, WIDE)
    assert program.cancels(steady[0].url, reader.stream_id).json()["data"]["status"] == "cancelled"


@pytest.mark.parametrize("manner", ["stream", "wait"])
def test_a_disconnected_client_frees_its_slot(steady: Pair, manner: str) -> None:
    """A disconnect frees the slot before the next comment would be sent, also while the answer is silent."""
    before = waiting(steady[0])
    body = json.dumps({"query": "年假？ [[silent]]", "stream": manner == "stream", "id": f"gone {manner}"}).encode()
    head = f"POST /api/chat HTTP/1.1\r\nHost: x\r\nX-API-Key: {KEY}\r\nContent-Type: application/json\r\n"
    with socket.create_connection(("127.0.0.1", steady[0].port), WIDE) as client:
        client.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        wait_until(lambda: waiting(steady[0]) == before + 1, WIDE)

    # Much less than the time after which a comment would be sent.
    wait_until(lambda: waiting(steady[0]) == before, 12.0)


def test_an_answer_is_read_with_its_own_key_only(steady: Pair) -> None:
    """A request with another key, or without one, gets 401."""
    stream_id = whole(program.asks(steady[0].url, "营业时间")).stream_id
    stranger = Program("another-key")

    assert stranger.gets(steady[0].url, stream_id).status_code == 401
    assert requests.get(f"{steady[0].url}/api/chat/{stream_id}", timeout=WIDE).status_code == 401
    assert whole(program.gets(steady[1].url, stream_id)).stream_id == stream_id


def test_an_unknown_stream_is_404(steady: Pair) -> None:
    """The 404 comes after the time an owner may need to restore a stream that Redis lost."""
    reply = program.gets(steady[0].url, "0" * 32, Accept="text/event-stream")

    assert (reply.status_code, reply.json()["data"]["reason"]) == (404, "stream_unknown")


# With failures


def test_readers_of_a_killed_replica_resume_on_the_other(pair: Pair, dify: MockDify) -> None:
    """Readers resume on the other replica, where waiting requests finish; the question is asked once."""
    question = f"{SLOW} killed"
    one, other = pair
    before = program.reads(one.url, question, id="k1")
    there = threading.Thread(target=lambda: answers.append(program.asks(other.url, question, id="k1")))
    answers: list[requests.Response] = []
    there.start()
    here = threading.Thread(target=lambda: broken(program, one.url, question), daemon=True)
    here.start()
    before.sees_text(SOME)

    one.kill()
    wait_until(lambda: before.over, WIDE)
    after = program.comes_back(other.url, before)
    end = completed(after.sees_end())
    there.join(WIDE)

    assert before.named("done") == []
    assert 0 < len(before.text) < len(end.content)
    assert after.text == end.content == dify.expected_answer(question)
    assert whole(answers[0]) == end
    here.join(WIDE)
    assert whole(program.asks(other.url, question, id="k1")) == end
    assert len(dify.asked(question)) == 1


def broken(program: Program, url: str, question: str) -> None:
    """Send a request whose connection must break."""
    with suppress(requests.ConnectionError):
        program.asks(url, question, id="k1")
        raise AssertionError("the replica lives")


def test_readers_of_a_terminated_replica_resume_on_the_other(pair: Pair, dify: MockDify) -> None:
    """At the end of the drain time the stream's response ends in order; the reader resumes on the other replica."""
    question = f"{SLOW} drained"
    dify.slow = 0.25
    one, other = pair
    before = program.reads(one.url, question, id="d1")
    answers: list[requests.Response] = []
    blocking = threading.Thread(target=lambda: answers.append(program.asks(one.url, question, id="d1")))
    blocking.start()
    before.sees_text(2)

    one.signal(signal.SIGTERM)
    wait_until(lambda: not one.ready, WIDE)
    refused = program.asks(one.url, "还在吗？", id="d2")
    last = before.sees_end()
    blocking.join(WIDE)
    dify.slow = 0.1
    after = program.comes_back(other.url, before)
    end = completed(after.sees_end())

    assert last.name == "delta"
    assert after.text == end.content == dify.expected_answer(question)
    assert (refused.status_code, refused.json()["data"]["reason"]) == (503, "draining")
    assert answers[0].status_code == 503
    assert answers[0].json()["data"] == {"reason": "draining", "stream_id": before.stream_id}
    assert len(dify.asked(question)) == 1
    assert one.process.wait(WIDE) == 0
    assert completed(program.reads(other.url, "还在吗？", id="d2").sees_end()).content


def test_an_answer_outlives_an_outage_of_redis(pair: Pair, dify: MockDify, redis: RedisServer) -> None:
    """Questions during an outage get 503; the running answer arrives whole on both replicas, as events and as JSON."""
    question = f"{SLOW} away"
    writer = program.reads(pair[0].url, question, id="r1")
    reader = program.reads(pair[1].url, question, id="r1")
    reader.sees_text(SOME)

    redis.pause()
    try:
        refused = program.asks(pair[0].url, "还有？", id="r2")
        later = threading.Thread(target=lambda: late.append(program.comes_back(pair[1].url, reader)))
        late: list[Reader] = []
        later.start()
    finally:
        redis.resume()
    later.join(WIDE)

    assert (refused.status_code, refused.json()["code"]) == (503, 40000)
    assert refused.json()["data"]["reason"] == "store_unavailable"
    for person in (writer, reader, late[0]):
        assert completed(person.sees_end()).content == dify.expected_answer(question)
    assert writer.text == reader.text == dify.expected_answer(question)
    assert whole(program.asks(pair[1].url, "还有？", id="r2")).content
    assert len(dify.asked(question)) == 1


def test_slow_readers_get_the_whole_answer(redis_url: str, tmp_path: Path) -> None:
    """With small receive buffers and late: unsent text waits in Redis, and other requests are served meanwhile."""
    provider = f"{LongAnswers.__module__}:{LongAnswers.__name__}"
    env = settings_for(redis_url, RAG_PROVIDER=provider, API_KEYS=KEY, WORKERS="1")
    with replicas(1, env, tmp_path) as (replica,):
        slow = [SlowReader(replica, number) for number in range(5)]
        assert whole(program.asks(replica.url, "meanwhile")).content == ANSWER
        assert waiting(replica) == 5
        texts = at_once(reader.reads for reader in slow)
        assert texts == [ANSWER] * 5
        wait_until(lambda: waiting(replica) == 0, WIDE)
        assert "Traceback" not in replica.log


class SlowReader:
    """A client that asks and does not read before `reads`."""

    def __init__(self, replica: Replica, number: int) -> None:
        self._sock = socket.socket()
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        self._sock.settimeout(WIDE)
        self._sock.connect(("127.0.0.1", replica.port))
        body = json.dumps({"query": f"long {number}", "stream": True}).encode()
        head = f"POST /api/chat HTTP/1.0\r\nX-API-Key: {KEY}\r\nContent-Type: application/json\r\n"
        self._sock.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)

    def reads(self) -> str:
        """Read to the end, and return the answer's text."""
        with self._sock, self._sock.makefile("rb") as stream:
            body = stream.read().partition(b"\r\n\r\n")[2].decode()
        lines = [line for line in body.split("\n") if line.startswith('data: {"content"')]
        return "".join(json.loads(line.removeprefix("data: "))["content"] for line in lines)
