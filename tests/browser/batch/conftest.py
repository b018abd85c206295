"""A replica that requires a key and answers batches, and the batch page in a tab that has the key."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest
from playwright.sync_api import Browser

from demo.mocks.dify.server import MockDify
from tests.browser.batch.batch_visitor import KEY, LARGEST, Enters, open_page
from tests.support.replicas import Replica, dify_settings, replicas, settings_for
from tests.support.servers.processes import RedisServer


@pytest.fixture(scope="package")
def dify() -> Iterator[MockDify]:
    with MockDify() as dify:
        yield dify


@pytest.fixture(scope="package")
def replica(redis_server: RedisServer, dify: MockDify, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replica]:
    """A replica that requires a key, with slots enough for the tests' unanswered questions."""
    folder = tmp_path_factory.mktemp("batch-page")
    settings = {"DATABASE_PATH": str(folder / "laibao.db"), "BATCH_MAX_CONCURRENT": "20", "APP_NAME": "来宝"}
    limits = {"WEBSOCKET_AUTH": "key", "API_KEYS": KEY, "RATE_LIMIT_USER": "off", "RATE_LIMIT_IP": "off"}
    limits["BATCH_MAX_BYTES"] = str(LARGEST)
    answers = dify_settings(dify.base_url, MEDIA_HOSTS="127.0.0.1")
    env = settings_for(redis_server.url(5), **answers, **settings, **limits)
    with replicas(1, env, folder) as (replica,):
        yield replica


@pytest.fixture
def enters(chromium: Browser, replica: Replica) -> Enters:
    return partial(open_page, chromium, replica)
