"""Files of chat sockets and OpenAI clients over two replicas whose owner is killed: each is uploaded and asked once."""

from __future__ import annotations

import json
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import redis
import requests

from demo.mocks.dify.features.uploads import MockUpload
from demo.mocks.dify.server import MockDify
from tests.support.openai_program import OpenAIProgram, data_url, pictured
from tests.support.pictures import png
from tests.support.replicas import Replica, dify_settings, replicas, settings_for
from tests.support.servers.processes import wait_until
from tests.support.sockets.chat_room import ChatSocket
from tests.support.uploads import uploaded

pytestmark = [pytest.mark.scenario, pytest.mark.full]

KEY = "obviously-fake-api-key"
BEFORE, ASKED = "先回答我", "图里是什么？ [[chatflow]]"
SENT = pictured(ASKED, data_url(png(2)), data_url(png(3)))
TALK = {"X-Conversation-Id": "desk-7"}
HEADERS = {**TALK, "Idempotency-Key": "k1"}
#: Seconds that a busy machine may take.
WIDE = 60.0


class Client(ABC):
    """Asks a question, and one about two pictures after it in the same conversation."""

    @abstractmethod
    def prepares(self, one: Replica, other: Replica) -> None:
        """Send the pictures, where that is a request of its own: one to each replica."""

    @abstractmethod
    def asks_before(self, replica: Replica) -> None:
        """Ask the question before, and wait until it is accepted."""

    @abstractmethod
    def asks(self, replica: Replica) -> None:
        """Ask about the pictures; the replica may be killed meanwhile."""

    @abstractmethod
    def answered(self, replica: Replica) -> str:
        """Ask about the pictures again, as a client does that has lost its connection; return the answer."""


class Page(Client):
    """The chat socket: files are uploaded before the question."""

    def prepares(self, one: Replica, other: Replica) -> None:
        self._files = [uploaded(one.url, png(2)), uploaded(other.url, png(3))]

    def asks_before(self, replica: Replica) -> None:
        ChatSocket(replica.url, "c1").asks(BEFORE, id="q1", conversation=True)

    def asks(self, replica: Replica) -> None:
        socket = ChatSocket(replica.url, "c1")
        socket.says(type="chat", content=ASKED, id="q2", files=self._files, conversation=True)

    def answered(self, replica: Replica) -> str:
        socket = ChatSocket(replica.url, "c1")
        stream_id = socket.asks(ASKED, id="q2", files=self._files, conversation=True)
        socket.sees_end(stream_id)
        socket.leaves()
        return socket.text(stream_id)


class Program(Client):
    """An OpenAI client: pictures are parts of the question."""

    def prepares(self, one: Replica, other: Replica) -> None:
        """Nothing is sent before the question."""

    def asks_before(self, replica: Replica) -> None:
        # The stream and its lines stay referenced: closed, either would cancel the question.
        self._before = OpenAIProgram(replica.url, KEY).begins(BEFORE, headers=TALK)
        self._lines = self._before.__enter__()
        next(self._lines)

    def asks(self, replica: Replica) -> None:
        def asks() -> None:
            with suppress(requests.RequestException):
                OpenAIProgram(replica.url, KEY).streams(SENT, headers=HEADERS)

        threading.Thread(target=asks, daemon=True).start()

    def answered(self, replica: Replica) -> str:
        joined = OpenAIProgram(replica.url, KEY).streams(SENT, headers=HEADERS)
        assert joined.done
        return joined.content


@pytest.fixture(params=[Page, Program])
def client(request: pytest.FixtureRequest) -> Client:
    made: Client = request.param()
    return made


@pytest.fixture
def dify() -> Iterator[MockDify]:
    with MockDify(limit=120.0, after_disconnect="runs on") as dify:
        yield dify


@pytest.fixture
def pair(redis_url: str, dify: MockDify, tmp_path: Path) -> Iterator[tuple[Replica, Replica]]:
    # The lease of the question before is what holds the other back: on a busy machine a short one lapses meanwhile.
    own = dify_settings(dify.base_url, API_KEYS=KEY, STREAM_LEASE="8", RATE_LIMIT_USER="off", WEBSOCKET_AUTH="none")
    with replicas(2, settings_for(redis_url, **own), tmp_path) as (one, other):
        yield one, other


def uploads_stored(stored: redis.Redis) -> int:
    """Return the number of uploads that are stored with the question about the pictures."""
    questions = [json.loads(stored.hget(key, "question") or "{}") for key in stored.scan_iter("dify_stream:*")]
    return max((len(question["files"]) for question in questions), default=0)


def test_an_owner_killed_between_intake_and_answer(
    client: Client, pair: tuple[Replica, Replica], dify: MockDify, stored: redis.Redis
) -> None:
    """The question waits for the one before it; the other replica asks it with the stored uploads."""
    one, other = pair
    dify.holds_at = 5
    client.prepares(one, other)
    client.asks_before(other)
    wait_until(lambda: dify.open_streams == 1, WIDE)
    client.asks(one)
    wait_until(lambda: uploads_stored(stored) == 2, WIDE)
    assert not dify.asked(ASKED)
    one.kill()
    dify.holds_at = None

    assert client.answered(other).endswith(dify.expected_answer(ASKED))
    assert [upload.content for upload in dify.uploads] == [png(2), png(3)]
    assert len(dify.asked(ASKED)) == 1
    # Uploaded files may be asked about again.
    if isinstance(client, Program):
        wait_until(lambda: not list(stored.scan_iter("dify_media:*")), WIDE)


def test_an_owner_killed_during_the_intake(client: Client, pair: tuple[Replica, Replica], dify: MockDify) -> None:
    """A picture that was not uploaded yet is taken from Redis, and so is one whose upload no replica knows."""
    one, other = pair
    client.prepares(one, other)
    contents: list[bytes] = []

    def kill_at_the_second(upload: MockUpload) -> None:
        contents.append(upload.content)
        if len(contents) == 2:
            one.kill()

    dify.before_upload_reply = kill_at_the_second
    client.asks(one)
    wait_until(lambda: len(contents) == 2, WIDE)

    assert client.answered(other).endswith(dify.expected_answer(ASKED))
    assert contents == [png(2), png(3), png(3)]
    assert len(dify.asked(ASKED)) == 1
