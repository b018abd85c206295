"""Redis is away while a message arrives on the long connection: one bubble, which says so at once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from config.texts import ZH
from demo.mocks.dify.server import MockDify
from demo.wecom.long_connection.server import LongConnectionServer
from services.errors import StoreUnavailable
from services.wecom.long_connection.open_answers_store import OpenAnswersStore
from tests.support.long_connection.bots import BOT_ID, websocket_settings
from tests.support.replicas import AppServer, dify_settings
from tests.support.servers.processes import RedisServer, wait_until

pytestmark = [pytest.mark.full, pytest.mark.timeout(120)]


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
def bot(server: RedisServer, wecom: LongConnectionServer, dify: MockDify) -> Iterator[AppServer]:
    """A subscribed replica whose Redis a test may pause."""
    changes = {**websocket_settings(wecom), **dify_settings(dify.base_url), "DRAIN_SECONDS": "0"}
    with AppServer(server.url(), **changes) as app:
        wecom.wait_until(lambda: wecom.subscribed(BOT_ID) > 0)
        yield app


@pytest.mark.parametrize("lost", [False, True], ids=["before the question", "before the reply to the note"])
def test_a_message_during_an_outage_gets_one_bubble(
    lost: bool, bot: AppServer, server: RedisServer, wecom: LongConnectionServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says so at once, although Redis has noted that an answer is open."""
    alice, add = wecom.user("zhangsan"), OpenAnswersStore.add

    def adds_and_pauses(*args: Any) -> bool:
        done = add(*args)
        server.pause()
        if lost:
            raise StoreUnavailable
        return done

    monkeypatch.setattr(OpenAnswersStore, "add", adds_and_pauses)
    try:
        bubble = alice.says("年假怎么申请")
        first = alice.sees_finish(bubble)
    finally:
        server.resume()
    monkeypatch.undo()
    assert first == ZH["store_unavailable"]

    later = alice.says("病假怎么申请")
    assert "病假" in alice.sees_finish(later, 60.0)
    with server.client() as client:
        wait_until(lambda: not client.keys("{dify_long_connection:*}:open"), 60.0)
    assert (alice.chat.bubbles, alice.chat.messages) == ([bubble, later], [])
    assert (len(bubble.frames), wecom.broken) == (1, [])
