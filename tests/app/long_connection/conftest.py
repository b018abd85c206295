"""A replica that is subscribed at the simulator, and a person who talks to its bot."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.mocks.dify.server import MockDify
from demo.wecom.long_connection.server import LongConnectionServer
from demo.wecom.long_connection.user import LongConnectionUser
from demo.wecom.media_store import MediaStore
from tests.support.long_connection.bots import BOT_ID, bot_server, websocket_settings
from tests.support.replicas import AppServer, dify_settings


@pytest.fixture
def wecom() -> Iterator[LongConnectionServer]:
    with bot_server() as wecom:
        yield wecom


@pytest.fixture
def bot(wecom: LongConnectionServer, redis_url: str, dify: MockDify, tmp_path: Path) -> Iterator[AppServer]:
    """A subscribed replica that asks the mock Dify."""
    changes = {
        **dify_settings(dify.base_url),
        "DRAIN_SECONDS": "0",
        "MEDIA_HOSTS": "127.0.0.1",
        "DATABASE_PATH": str(tmp_path / "laibao.db"),
        "BATCH_ENABLED": "false",
        "WECHAT_BOT_NAME": "Help Bot",
        "WECHAT_SUGGESTIONS": "true",
    }
    with AppServer(redis_url, **websocket_settings(wecom), **changes) as app:
        wecom.wait_until(lambda: wecom.subscribed(BOT_ID) > 0)
        yield app


@pytest.fixture
def store() -> Iterator[MediaStore]:
    with MediaStore() as store:
        yield store
    assert store.broken == []


@pytest.fixture
def alice(wecom: LongConnectionServer, bot: AppServer, store: MediaStore) -> LongConnectionUser:
    return wecom.user("zhangsan", store=store)
