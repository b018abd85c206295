"""POST /api/chat over real replicas: questions that are sent again, and clients that leave or read slowly."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from channels.http_chat.models import ChatAnswered
from demo.mocks.dify.server import MockDify
from tests.scenarios.stage.long_answers import ANSWER, LongAnswers
from tests.scenarios.stage.people import at_once
from tests.support.replicas import Replica, dify_settings, replicas, settings_for
from tests.support.scrapes import samples, scrape
from tests.support.servers.processes import RedisServer, wait_until
from tests.support.sockets.event_reader import WIDE, Event, EventReader, Program

pytestmark = [pytest.mark.scenario, pytest.mark.full]

KEY = "not-a-real-key"

Pair = tuple[Replica, Replica]
program = Program(KEY)


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    """A Redis that only the replicas use."""
    with RedisServer() as server:
        yield server


@pytest.fixture(scope="module")
def dify() -> Iterator[MockDify]:
    """A mock Dify."""
    with MockDify(delay=0.02, limit=120.0) as dify:
        yield dify


def settings(redis: RedisServer, dify: MockDify) -> dict[str, str]:
    own = dify_settings(dify.base_url, API_KEYS=KEY, RATE_LIMIT_USER="off")
    return settings_for(redis.url(), **own)


@pytest.fixture(scope="module")
def steady(redis: RedisServer, dify: MockDify, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Two replicas that no test kills; their logs must have no traceback."""
    with replicas(2, settings(redis, dify), tmp_path_factory.mktemp("stayers")) as (one, other):
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


def test_a_question_sent_again_finds_its_stream_elsewhere(steady: Pair, dify: MockDify) -> None:
    """The same id finds its stream, from the start or the last event id; a reader that has all of it gets 204."""
    question = "年假怎么申请？ 2"
    dify.holds_at = 8
    before = program.reads(steady[0].url, question, id="q2")
    before.sees_text(1)
    again = program.reads(steady[1].url, question, id="q2")
    before.leaves()

    headers = {"Authorization": f"Bearer {KEY}", "Last-Event-ID": before.last, "Idempotency-Key": "q2"}
    body = {"query": question, "stream": True}
    rest = EventReader(
        requests.post(f"{steady[1].url}/api/chat", json=body, headers=headers, stream=True, timeout=WIDE), before.text
    )

    dify.holds_at = None

    assert again.stream_id == before.stream_id == rest.stream_id
    assert completed(again.sees_end()) == completed(rest.sees_end())
    assert again.text == rest.text == dify.expected_answer(question)
    nothing = program.gets(steady[0].url, again.stream_id, Accept="text/event-stream", **{"Last-Event-ID": again.last})
    assert nothing.status_code == 204
    assert len(dify.asked(question)) == 1


@pytest.mark.parametrize("manner", ["stream", "wait"])
def test_a_disconnected_client_frees_its_slot(steady: Pair, manner: str) -> None:
    """A disconnect frees the slot before the next comment would be sent, also while the answer is silent."""
    # A scrape may be a second old: earlier requests must be gone.
    wait_until(lambda: waiting(steady[0]) == 0, WIDE)
    body = json.dumps({"query": "年假？ [[silent]]", "stream": manner == "stream", "id": f"gone {manner}"}).encode()
    head = f"POST /api/chat HTTP/1.1\r\nHost: x\r\nX-API-Key: {KEY}\r\nContent-Type: application/json\r\n"
    with socket.create_connection(("127.0.0.1", steady[0].port), WIDE) as client:
        client.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        wait_until(lambda: waiting(steady[0]) == 1, WIDE)

    # Much less than the time after which a comment would be sent.
    wait_until(lambda: waiting(steady[0]) == 0, 12.0)


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
