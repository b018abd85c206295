"""Chat over real replicas: answers continue after the loss of their socket or of the replica that produces them."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial

import pytest
from websockets.exceptions import ConnectionClosed

from config.texts import ZH
from demo.mocks.dify.server import MockDify
from tests.scenarios.stage.chaos_fleet import Fleet, fleet
from tests.scenarios.stage.people import at_once, stored
from tests.support.replicas import Replica, dify_settings, settings_for
from tests.support.servers.processes import RedisServer, wait_until
from tests.support.sockets.chat_room import WIDE, ChatSocket, Frame

pytestmark = [pytest.mark.scenario, pytest.mark.full]

#: Every way of splitting the bytes, and answers that are replaced, filtered, or sent at once.
SCRIPTS = ("chat", "agent-chat", "new-agent-differs", "chatflow", "split-utf8", "crlf", "separators", "moderation")
KEY = "not-a-real-key"
#: Characters after which an answer counts as in progress.
SOME = 20


@pytest.fixture(scope="module")
def company(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RedisServer, MockDify, Fleet]]:
    """A Redis that only the replicas use, a mock Dify whose answers take seconds, and a fleet."""
    with RedisServer() as redis, MockDify() as dify:
        changes = {"API_KEYS": KEY, "STREAM_LEASE": "2", "DRAIN_SECONDS": "30"}
        env = settings_for(redis.url(), **dify_settings(dify.base_url), **changes)
        with fleet(0, env, tmp_path_factory.mktemp("replicas")) as replicas:
            yield redis, dify, replicas


@pytest.fixture
def dify(company: tuple[RedisServer, MockDify, Fleet]) -> MockDify:
    """The mock Dify, with empty records."""
    dify = company[1]
    wait_until(lambda: dify.open_streams == 0, 30)
    dify.delay, dify.slow = 0.1, 0.15
    for seen in (dify.requests, dify.look_ups, dify.stops, dify.calls):
        seen.clear()
    return dify


@pytest.fixture
def redis(company: tuple[RedisServer, MockDify, Fleet], dify: MockDify) -> RedisServer:
    """The Redis, empty: when the mock Dify is idle, nothing writes any more."""
    with company[0].client() as client:
        client.flushall()
    return company[0]


@pytest.fixture
def pair(company: tuple[RedisServer, MockDify, Fleet], redis: RedisServer) -> Iterator[tuple[Replica, Replica]]:
    """Two replicas, whose logs must have no traceback at the end."""
    one, other = company[2].complete(2)
    yield one, other
    assert "Traceback" not in one.log + other.log


@contextmanager
def client(replica: Replica, client_id: str = "phone") -> Iterator[ChatSocket]:
    """Open a socket; at the end check that its frames match the schema."""
    person = ChatSocket(replica.url, client_id, key=KEY)
    try:
        yield person
    finally:
        person.leaves()
    assert person.unknown() == []


def whole(frames: list[Frame]) -> Frame:
    """Return the only frame with the whole answer."""
    (frame,) = [frame for frame in frames if frame["type"] == "chat"]
    return frame


def resumes(person: ChatSocket, before: ChatSocket, stream_id: str) -> None:
    person.says(type="resume", stream_id=stream_id, cursor=before.cursor(stream_id))


def test_answers_come_byte_for_byte_and_in_order(
    pair: tuple[Replica, Replica], dify: MockDify, redis: RedisServer
) -> None:
    """Eight questions in a row: the joined deltas, the whole, Redis and the provider's answer are equal."""
    dify.delay = 0.03
    questions = [f"年假怎么申请？👍🏽 [[{script}]]" for script in SCRIPTS]
    with client(pair[0]) as person:
        ids = [person.asks(question, id=f"q{n}") for n, question in enumerate(questions)]
        person.sees_end(ids[-1])

        for question, stream_id in zip(questions, ids, strict=True):
            answer = dify.expected_answer(question)
            assert person.text(stream_id) == whole(person.of(stream_id))["content"] == answer
            assert stored(redis, stream_id).text.decode() == answer
        shown = [frame["stream_id"] for frame in person.frames if frame["type"] in ("typing", "chat_delta")]
        assert list(dict.fromkeys(shown)) == ids
        assert shown == sorted(shown, key=ids.index)


def test_a_socket_cut_in_mid_answer_is_resumed_elsewhere(pair: tuple[Replica, Replica], dify: MockDify) -> None:
    """Resumed from its cursor on the other replica, an answer has no gap and no repetition, and is asked for once."""
    question = "年假怎么申请？"
    with client(pair[0]) as before:
        stream_id = before.asks(question, id="q1")
        before.sees_text(stream_id, SOME)
        before.is_cut()

    with client(pair[1]) as after:
        resumes(after, before, stream_id)
        end = whole(after.sees_end(stream_id))

    assert len(before.text(stream_id)) < len(end["content"])
    assert before.text(stream_id) + after.text(stream_id) == end["content"] == dify.expected_answer(question)
    assert after.of(stream_id, "reset") == []
    assert len(dify.requests) == 1


def test_a_socket_elsewhere_gets_the_rest_after_the_owner_is_killed(
    pair: tuple[Replica, Replica], dify: MockDify
) -> None:
    """A socket on the other replica gets the rest of the answer after a takeover."""
    question = "年假怎么申请？"
    one, other = pair
    with client(other, "laptop") as person, client(one) as asker:
        stream_id = asker.asks(question)
        person.says(type="resume", stream_id=stream_id)
        person.sees_text(stream_id, SOME)

        one.kill()
        end = whole(person.sees_end(stream_id))

    assert person.text(stream_id) == end["content"] == dify.expected_answer(question)
    assert end["status"] == "completed"
    assert len(dify.asked(question)) == 1


def test_a_client_of_a_killed_replica_resumes_on_the_other(pair: tuple[Replica, Replica], dify: MockDify) -> None:
    """The client of the killed replica, which also produced the answer, resumes it on the other one."""
    question = "年假怎么申请？"
    one, other = pair
    with client(one) as before:
        stream_id = before.asks(question, id="q1")
        before.sees_text(stream_id, SOME)
        one.kill()

    with client(other) as after:
        resumes(after, before, stream_id)
        end = whole(after.sees_end(stream_id))

    assert before.text(stream_id) + after.text(stream_id) == end["content"] == dify.expected_answer(question)
    assert len(dify.asked(question)) == 1


def test_a_message_sent_again_finds_its_stream_elsewhere(pair: tuple[Replica, Replica], dify: MockDify) -> None:
    """A message id that is sent again, during and after its answer, finds the same stream and its whole answer."""
    question = "年假怎么申请？"
    with client(pair[0]) as before:
        first = before.asks(question, id="q1")
        before.sees_text(first, SOME)
    with client(pair[1]) as after:
        again = after.asks(question, id="q1")
        end = whole(after.sees_end(again))
        after.frames.clear()
        last = after.asks(question, id="q1")
        repeated = whole(after.sees_end(last))

    assert first == again == last
    assert end["content"] == repeated["content"] == after.text(last) == dify.expected_answer(question)
    assert len(dify.requests) == 1


def test_a_crowd_sends_each_question_twice(pair: tuple[Replica, Replica], dify: MockDify) -> None:
    """Ten clients send one message to both replicas at the same moment: each is asked once."""
    question = "年假怎么申请？"

    ids = at_once(
        partial(asks_until_echo, replica, f"phone{number}", question) for number in range(10) for replica in pair
    )

    assert ids[::2] == ids[1::2]
    assert len(set(ids)) == 10
    with client(pair[0]) as person:
        for stream_id in ids[::2]:
            person.says(type="resume", stream_id=stream_id)
            assert whole(person.sees_end(stream_id))["status"] == "completed"
    assert len(dify.requests) == 10


def asks_until_echo(replica: Replica, client_id: str, question: str) -> str:
    """Ask until there is an echo: the client's other socket, if newer, may close this one before that."""
    while True:
        with client(replica, client_id) as person, suppress(ConnectionClosed):
            person.says(type="chat", content=question, id="q1")
            wait_until(lambda: person.over or any(frame.get("role") == "user" for frame in person.frames), WIDE)
        for frame in person.frames:
            if frame.get("role") == "user":
                return str(frame["stream_id"])


def test_stop_reaches_the_provider(pair: tuple[Replica, Replica], dify: MockDify) -> None:
    """A stop on the replica that does not produce the answer stops the provider's run, and the answer ends as it is."""
    one, other = pair
    with client(one) as asker, client(other, "laptop") as person:
        stream_id = asker.asks("年假怎么申请？ [[slow]]")
        asker.sees_text(stream_id, SOME)

        person.says(type="stop", stream_id=stream_id)
        end = whole(asker.sees_end(stream_id))

        assert (end["status"], end["content"]) == ("cancelled", asker.text(stream_id))
        assert len(end["content"]) < len(dify.expected_answer("年假怎么申请？ [[slow]]"))
        wait_until(lambda: len(dify.stops) == 1, WIDE)


def test_a_client_that_connects_elsewhere_closes_its_older_socket(pair: tuple[Replica, Replica]) -> None:
    """A client id's older socket is closed with 4409, never the newer one; other clients of the key stay connected."""
    one, other = pair
    with client(one, "laptop") as neighbour, client(one) as older, client(other) as newer:
        assert older.close_code() == 4409

        for person in (newer, neighbour):
            person.says(type="ping", timestamp=7)
            person.sees(type="pong", timestamp=7)


def test_a_terminated_replica_closes_its_sockets_with_1012(pair: tuple[Replica, Replica], dify: MockDify) -> None:
    """On SIGTERM idle sockets are closed with 1012 at once, others when their answer is whole."""
    question = "年假怎么申请？ [[slow]]"
    one, other = pair
    with client(one) as busy, client(one, "idle") as idle:
        stream_id = busy.asks(question)
        busy.sees_text(stream_id, SOME)

        one.signal(signal.SIGTERM)

        assert idle.close_code() == 1012
        assert busy.of(stream_id, "chat") == []
        assert busy.close_code() == 1012
        assert whole(busy.of(stream_id))["content"] == busy.text(stream_id) == dify.expected_answer(question)
        assert busy.frames[-1]["type"] == "typing"
    assert one.process.wait(WIDE) == 0
    with client(other) as person:
        assert person.asks("还在吗？")


def test_a_failed_answer_has_a_code_and_a_sentence(pair: tuple[Replica, Replica]) -> None:
    """A failed answer has an error code and its sentence, without the cause; the next question is answered."""
    with client(pair[0]) as person:
        stream_id = person.asks("年假？ [[error-event]]", id="q1")
        error = person.sees(type="error")
        person.sees_end(stream_id)
        end = person.sees_end(person.asks("营业时间？"))

    assert (error["content"], error["id"]) == (ZH[error["code"].lower()], "q1")
    assert whole(end)["status"] == "completed"


def test_an_answer_outlives_an_outage_of_redis(
    pair: tuple[Replica, Replica], dify: MockDify, redis: RedisServer
) -> None:
    """Questions during an outage get SERVICE_UNAVAILABLE; the running answer arrives whole on both replicas."""
    question = "年假怎么申请？ [[slow]]"
    with client(pair[0]) as writer, client(pair[1], "laptop") as reader:
        stream_id = writer.asks(question)
        reader.says(type="resume", stream_id=stream_id)
        reader.sees_text(stream_id, SOME)

        redis.pause()
        for person, id in ((writer, "q2"), (reader, "q3"), (writer, "q4")):
            person.says(type="chat", content="还有？", id=id)
            assert person.sees(type="error", id=id)["code"] == "SERVICE_UNAVAILABLE"
        redis.resume()

        for person in (writer, reader):
            end = whole(person.sees_end(stream_id))
            assert end["content"] == person.text(stream_id) == dify.expected_answer(question)
        # Whether the question was stored or not, sending it again gets an answer.
        assert writer.sees_end(writer.asks("还有？", id="q2"))
