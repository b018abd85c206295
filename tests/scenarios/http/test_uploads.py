"""Files of the chat socket over two replicas whose owner is killed: each is uploaded once, and asked about once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from demo.mocks.dify.features.uploads import MockUpload
from demo.mocks.dify.server import MockDify
from tests.scenarios.http.test_openai_pictures import WIDE, uploads_stored
from tests.support.pictures import png
from tests.support.replicas import Replica, dify_settings, replicas, settings_for
from tests.support.servers.processes import wait_until
from tests.support.sockets.chat_room import ChatSocket
from tests.support.uploads import uploaded

pytestmark = pytest.mark.scenario

ASKED = "图里是什么？ [[chatflow]]"


@pytest.fixture
def dify() -> Iterator[MockDify]:
    with MockDify(slow=1.0, after_disconnect="runs on") as dify:
        yield dify


@pytest.fixture
def pair(redis_url: str, dify: MockDify, tmp_path: Path) -> Iterator[tuple[Replica, Replica]]:
    own = dify_settings(dify.base_url, STREAM_LEASE="2", RATE_LIMIT_USER="off", WEBSOCKET_AUTH="none")
    with replicas(2, settings_for(redis_url, **own), tmp_path) as (one, other):
        yield one, other


def answered(replica: Replica, files: list[str], *, before: str = "") -> str:
    """Ask again on this replica, as a page does that has lost its connection; return the answer.

    The answer `before` it is stopped: it would take long.
    """
    socket = ChatSocket(replica.url, "c1")
    if before:
        socket.says(type="stop", stream_id=before)
    stream_id = socket.asks(ASKED, id="q2", files=files, conversation=True)
    socket.sees_end(stream_id)
    socket.leaves()
    return socket.text(stream_id)


@pytest.mark.full
def test_an_owner_killed_between_intake_and_answer(
    pair: tuple[Replica, Replica], dify: MockDify, stored: redis.Redis
) -> None:
    """The question waits for the one before it; the other replica asks it with the stored uploads."""
    one, other = pair
    files = [uploaded(one.url, png(2)), uploaded(other.url, png(3))]
    socket = ChatSocket(one.url, "c1")
    first = socket.asks("先回答我 [[slow]]", id="q1", conversation=True)
    socket.says(type="chat", content=ASKED, id="q2", files=files, conversation=True)
    wait_until(lambda: uploads_stored(stored) == 2, WIDE)
    assert not dify.asked(ASKED)
    one.kill()

    assert answered(other, files, before=first).endswith(dify.expected_answer(ASKED))
    assert [upload.content for upload in dify.uploads] == [png(2), png(3)]
    assert len(dify.asked(ASKED)) == 1


@pytest.mark.full
def test_an_owner_killed_during_the_intake(pair: tuple[Replica, Replica], dify: MockDify) -> None:
    """Only the file whose upload no replica knows is uploaded again."""
    one, other = pair
    files = [uploaded(one.url, png(2)), uploaded(one.url, png(3))]
    contents: list[bytes] = []

    def kill_at_the_second(upload: MockUpload) -> None:
        contents.append(upload.content)
        if len(contents) == 2:
            one.kill()

    dify.before_upload_reply = kill_at_the_second
    ChatSocket(one.url, "c1").says(type="chat", content=ASKED, id="q2", files=files, conversation=True)
    wait_until(lambda: len(contents) == 2, WIDE)

    assert answered(other, files).endswith(dify.expected_answer(ASKED))
    assert contents == [png(2), png(3), png(3)]
    assert len(dify.asked(ASKED)) == 1
