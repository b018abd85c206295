"""Answers of every kind of client go on when its connection, its replica or Redis is lost, and end when it cancels."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from functools import partial

import pytest
from websockets.exceptions import ConnectionClosed

from demo.mocks.dify.server import MockDify
from tests.scenarios.stage.chaos_fleet import Fleet, fleet
from tests.scenarios.stage.people import at_once, empty, stored
from tests.support.openai_program import OpenAIProgram, StreamedAnswer, error_of, read
from tests.support.replicas import Replica, dify_settings, settings_for
from tests.support.servers.processes import RedisServer, wait_until
from tests.support.sockets.chat_room import WIDE, ChatSocket
from tests.support.sockets.event_reader import Program
from tests.support.sockets.visitor import visit

pytestmark = [pytest.mark.scenario, pytest.mark.full]

KEY = "not-a-real-key"
QUESTION = "年假怎么申请？"
#: Every way of splitting the bytes, and answers that are replaced, or filtered at once.
REPLACED = ("new-agent-differs", "moderation")
SCRIPTS = ("chat", "agent-chat", "chatflow", "split-utf8", "crlf", "separators", *REPLACED)
program = Program(KEY)
Pair = tuple[Replica, Replica]
Servers = tuple[RedisServer, MockDify, Fleet]


class Chat:
    """The chat socket: resumed from its cursor."""

    def __init__(self, question: str) -> None:
        self.question = question
        #: The text of earlier connections.
        self.kept = ""

    @property
    def text(self) -> str:
        """The text received so far."""
        return self.kept + self._socket.text(self.stream_id)

    @property
    def resets(self) -> int:
        return len(self._socket.of(self.stream_id, "reset"))

    def asks(self, url: str) -> None:
        self._socket = ChatSocket(url, "phone", key=KEY)
        self.stream_id = self._socket.asks(self.question, id="q1")

    def sees_text(self) -> None:
        self._socket.sees_text(self.stream_id, 1)

    def is_cut(self) -> None:
        """Lose the connection, if it is not lost yet."""
        with suppress(OSError):
            self._socket.is_cut()
        self._socket.close_code()

    def resumes(self, url: str) -> None:
        """Go on at a replica."""
        received = self._socket.copy()
        cursor = received.cursor(self.stream_id)
        self.kept += received.text(self.stream_id)
        self._socket = ChatSocket(url, "phone", key=KEY)
        self._socket.says(type="resume", stream_id=self.stream_id, cursor=cursor)

    def sees_end(self, status: str = "completed") -> None:
        """Wait until the answer is whole; fail if it ends in any other way."""
        (whole,) = [frame for frame in self._socket.sees_end(self.stream_id) if frame["type"] == "chat"]
        assert (whole["status"], whole["content"]) == (status, self.text)
        assert self._socket.unknown() == []

    def cancels(self, url: str) -> None:
        """Cancel the answer, at another replica if this kind of client can; check the end that it gets."""
        ChatSocket(url, "laptop", key=KEY).says(type="stop", stream_id=self.stream_id)
        self.sees_end("cancelled")

    def sees_drain(self) -> None:
        """Wait for the orderly end of the connection to a replica that leaves."""
        assert self._socket.close_code() == 1012

    def refusal(self, url: str) -> str:
        """Ask another question, and return the reason for which it is refused."""
        self._socket.says(type="chat", content="还有？", id="q2")
        return str(self._socket.sees(type="error", id="q2")["code"]).lower()


class Realtime:
    """The realtime socket: resumed from its cursor."""

    def __init__(self, question: str) -> None:
        self.question = question
        self.kept = ""
        self._stack = ExitStack()

    @property
    def text(self) -> str:
        text = ""
        for frame in self._visitor.frames:
            text = "" if frame["type"] == "reset" else text + (frame["content"] if frame["type"] == "answer" else "")
        return self.kept + text

    @property
    def resets(self) -> int:
        return sum(frame["type"] == "reset" for frame in self._visitor.frames)

    @property
    def stream_id(self) -> str:
        return next(str(frame["stream_id"]) for frame in self._visitor.frames if frame["type"] == "answer")

    def asks(self, url: str) -> None:
        self._visitor = self._stack.enter_context(visit(url, "realtime", key=KEY))
        self._visitor.says({"type": "asr_chunk", "text": self.question, "is_final": True, "session_id": "s1"})

    def sees_text(self) -> None:
        self._visitor.until({"type": "answer"})

    def is_cut(self) -> None:
        self._visitor.connection.socket.close()

    def resumes(self, url: str) -> None:
        self.kept = self.text
        last = [frame for frame in self._visitor.frames if frame["type"] == "answer"][-1]
        self._visitor = self._stack.enter_context(visit(url, "realtime", key=KEY))
        resumed = {"stream_id": last["stream_id"], "cursor": last["cursor"]}
        self._visitor.says({"type": "resume", **resumed, "session_id": "s1"})

    def sees_end(self) -> None:
        assert "error" not in self._visitor.until({"type": "answer", "final": True})
        self._stack.close()

    def cancels(self, url: str) -> None:
        self._visitor.says({"type": "control", "action": "stop"})
        assert self._visitor.until({"type": "answer", "final": True})["error"] == "CANCELLED"

    def sees_drain(self) -> None:
        assert self._visitor.until_closed() == 1012

    def refusal(self, url: str) -> str:
        self._visitor.says({"type": "asr_chunk", "text": "还有几天？", "is_final": True})
        return str(self._visitor.until({"type": "error"})["code"]).lower()


class Events:
    """POST /api/chat: server-sent events, resumed from the last one's id."""

    def __init__(self, question: str) -> None:
        self.question = question

    @property
    def text(self) -> str:
        return self._reader.text

    @property
    def resets(self) -> int:
        return len(self._reader.named("reset"))

    @property
    def stream_id(self) -> str:
        return self._reader.stream_id

    def asks(self, url: str) -> None:
        self._reader = program.reads(url, self.question, id="q1")

    def sees_text(self) -> None:
        self._reader.sees_text(1)

    def is_cut(self) -> None:
        self._reader.leaves()

    def resumes(self, url: str) -> None:
        self._reader = program.comes_back(url, self._reader)

    def sees_end(self) -> None:
        event = self._reader.sees_end()
        assert (event.name, event.data.get("content")) == ("done", self.text)

    def cancels(self, url: str) -> None:
        status = program.cancels(url, self._reader.stream_id).json()["data"]["status"]
        error = self._reader.sees_end().data["data"]
        assert (status, error["reason"], error["content"]) == ("cancelled", "cancelled", self.text)
        assert program.asks(url, self.question, id="q1").json()["data"]["reason"] == "cancelled"

    def sees_drain(self) -> None:
        assert self._reader.sees_end().name == "delta"

    def refusal(self, url: str) -> str:
        return str(program.asks(url, "还有？", id="q2").json()["data"]["reason"])


class OpenAI:
    """The OpenAI endpoint: a request that is repeated with its key gets the answer from its start."""

    resets = 0

    def __init__(self, question: str) -> None:
        self.question = question

    @property
    def text(self) -> str:
        return self._answer.content

    @property
    def stream_id(self) -> str:
        return str(self._answer.chunks[0]["id"]).removeprefix("chatcmpl-")

    def asks(self, url: str) -> None:
        self._answer = StreamedAnswer()
        self._reply = OpenAIProgram(url, KEY).begins(self.question, headers={"Idempotency-Key": "k1"})
        self._events = self._reply.__enter__()

    def sees_text(self) -> None:
        while not self.text:
            self._answer.chunks += read(iter([next(self._events)])).chunks

    def is_cut(self) -> None:
        self._reply.__exit__(None, None, None)

    def resumes(self, url: str) -> None:
        self.asks(url)

    def sees_end(self) -> None:
        rest = read(self._events)
        self._answer.chunks += rest.chunks
        assert (self._answer.finish, rest.done) == ("stop", True)

    def sees_drain(self) -> None:
        broken = read(self._events)
        assert (broken.error["code"], broken.done) == ("draining", False)

    def refusal(self, url: str) -> str:
        return str(error_of(OpenAIProgram(url, KEY).asks("还有？"))[1])


Kind = type[Chat] | type[Realtime] | type[Events] | type[OpenAI]
every_client = pytest.mark.parametrize("kind", [Chat, Realtime, Events, OpenAI])


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """A Redis that only the replicas use, a mock Dify, and a fleet."""
    with RedisServer() as redis, MockDify(delay=0.02, limit=120.0) as dify:
        changes = {"API_KEYS": KEY, "STREAM_LEASE": "3", "DRAIN_SECONDS": "10", "RATE_LIMIT_USER": "off"}
        env = settings_for(redis.url(), **dify_settings(dify.base_url), **changes, RATE_LIMIT_IP="off")
        with fleet(0, env, tmp_path_factory.mktemp("replicas")) as replicas:
            yield redis, dify, replicas


@pytest.fixture
def dify(servers: Servers) -> Iterator[MockDify]:
    """The mock Dify, with empty records; answers wait after some pieces until the test releases them."""
    dify = servers[1]
    dify.holds_at = 8
    for seen in (dify.requests, dify.stops):
        seen.clear()
    yield dify
    dify.holds_at = None
    wait_until(lambda: dify.open_streams == 0, WIDE)


@pytest.fixture
def redis(servers: Servers, dify: MockDify) -> RedisServer:
    """The Redis, without the earlier test's keys."""
    empty(servers[0])
    return servers[0]


@pytest.fixture
def pair(servers: Servers, redis: RedisServer) -> Iterator[Pair]:
    """Two replicas, whose logs must have no traceback at the end."""
    one, other = servers[2].complete(2)
    yield one, other
    assert "Traceback" not in one.log + other.log


@every_client
@pytest.mark.parametrize("script", SCRIPTS)
def test_answers_come_byte_for_byte(pair: Pair, dify: MockDify, redis: RedisServer, kind: Kind, script: str) -> None:
    """The joined text, the whole, Redis and the provider's answer are equal."""
    if kind is OpenAI and script in REPLACED:
        pytest.skip("an OpenAI stream whose text is replaced ends with an error")
    dify.holds_at, question = None, f"年假怎么申请？👍🏽[[{script}]]"
    client = kind(question)
    client.asks(pair[0].url)
    client.sees_end()

    assert client.text == dify.expected_answer(question)
    assert stored(redis, client.stream_id).text.decode() == client.text


@every_client
@pytest.mark.parametrize("lost", ["connection", "replica", "owner"])
def test_an_answer_goes_on_at_the_other_replica(pair: Pair, dify: MockDify, kind: Kind, lost: str) -> None:
    """Its text has no gap and no repetition, and it is asked for once; `owner`: its client is elsewhere already."""
    one, other = pair
    client = kind(QUESTION)
    client.asks(one.url)
    client.sees_text()
    before = len(client.text)

    if lost == "owner":
        client.resumes(other.url)
    if lost != "connection":
        one.kill()
    if lost != "owner":
        client.is_cut()
    dify.holds_at = None
    if lost != "owner":
        client.resumes(other.url)
    client.sees_end()

    assert (client.text, client.resets) == (dify.expected_answer(QUESTION), 0)
    assert 0 < before < len(client.text)
    assert len(dify.asked(QUESTION)) == 1


@pytest.mark.parametrize("kind", [Chat, Realtime, Events])
def test_a_cancelled_answer_is_stopped_at_the_provider(
    pair: Pair, dify: MockDify, kind: type[Chat] | type[Realtime] | type[Events]
) -> None:
    """The client gets the text so far, and an end that says so."""
    client = kind(QUESTION)
    client.asks(pair[0].url)
    client.sees_text()

    client.cancels(pair[1].url)

    wait_until(lambda: len(dify.stops) == 1, WIDE)
    assert dify.expected_answer(QUESTION).startswith(client.text)


@every_client
def test_an_answer_beyond_the_drain_goes_on_elsewhere(pair: Pair, dify: MockDify, kind: Kind) -> None:
    """At the end of DRAIN_SECONDS the connection ends in order; the client goes on at the other replica."""
    one, other = pair
    client = kind(QUESTION)
    client.asks(one.url)
    client.sees_text()

    one.signal(signal.SIGTERM)
    client.sees_drain()
    dify.holds_at = None
    client.resumes(other.url)
    client.sees_end()

    assert client.text == dify.expected_answer(QUESTION)
    assert len(dify.asked(QUESTION)) == 1
    assert one.process.wait(WIDE) == 0


@every_client
def test_an_answer_outlives_an_outage_of_redis(pair: Pair, dify: MockDify, redis: RedisServer, kind: Kind) -> None:
    """A question during the outage is refused with its reason; the running answer arrives whole."""
    client = kind(QUESTION)
    client.asks(pair[0].url)
    client.sees_text()

    redis.pause()
    try:
        refusal = client.refusal(pair[0].url)
        dify.holds_at = None
    finally:
        redis.resume()
    client.sees_end()

    assert refusal in ("store_unavailable", "service_unavailable")
    assert client.text == dify.expected_answer(QUESTION)
    assert len(dify.asked(QUESTION)) == 1


def test_a_terminated_replica_closes_its_sockets_with_1012(pair: Pair, dify: MockDify) -> None:
    """On SIGTERM idle sockets are closed at once, others when their answer is whole."""
    busy, idle = Chat(QUESTION), ChatSocket(pair[0].url, "idle", key=KEY)
    busy.asks(pair[0].url)
    busy.sees_text()

    pair[0].signal(signal.SIGTERM)

    assert idle.close_code() == 1012
    dify.holds_at = None
    busy.sees_end()
    busy.sees_drain()
    assert busy.text == dify.expected_answer(QUESTION)
    assert pair[0].process.wait(WIDE) == 0


def asks_until_echo(url: str, name: str) -> str:
    """Ask until there is an echo: the client's other socket, if newer, may close this one before that."""
    while True:
        person = ChatSocket(url, name, key=KEY)
        with suppress(ConnectionClosed):
            person.says(type="chat", content=QUESTION, id="q1")
            wait_until(lambda: person.over or any(frame.get("role") == "user" for frame in person.frames), WIDE)  # noqa: B023 - called here
        person.leaves()
        for frame in person.frames:
            if frame.get("role") == "user":
                return str(frame["stream_id"])


#: Each sends a question with a name that is its id, and returns the stream's id.
SENDS: dict[str, Callable[[str, str], str]] = {
    "chat": asks_until_echo,
    "events": lambda url, name: str(program.asks(url, QUESTION, id=name).json()["data"]["stream_id"]),
    "openai": lambda url, name: str(
        OpenAIProgram(url, KEY).asks(QUESTION, headers={"Idempotency-Key": name}).json()["id"]
    ),
}


@pytest.mark.parametrize("kind", SENDS)
def test_a_crowd_sends_each_question_twice(pair: Pair, dify: MockDify, kind: str) -> None:
    """Ten clients send one question each to both replicas at the same moment, and again: each is asked once."""
    dify.holds_at = None
    twice = [partial(SENDS[kind], replica.url, f"phone{number}") for number in range(10) for replica in pair]

    ids, again = at_once(twice), at_once(twice)

    assert ids == again
    assert ids[::2] == ids[1::2]
    assert len(set(ids)) == 10
    wait_until(lambda: dify.open_streams == 0, WIDE)
    assert len(dify.requests) == 10
