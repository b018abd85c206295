"""Shared by the tests of all pages: one Chromium, one application, and the choice of tests for `make test`."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from demo.mocks.dify.server import MockDify
from tests.browser.stage import FLAGS, TIMEOUT
from tests.support.replicas import VIEWER_TOKEN, Replica, dify_settings, replicas, settings_for
from tests.support.servers.processes import RedisServer, require_binary

HERE = Path(__file__).parent


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "main_story: what a page is for; of the browser's tests `make test` runs these")
    config.addinivalue_line("markers", "over: whether the demo's bot has callbacks, a socket, or either")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every browser test but those marked `main_story` as `full`."""
    for item in items:
        if item.path.is_relative_to(HERE) and item.get_closest_marker("main_story") is None:
            item.add_marker(pytest.mark.full)


# Scope "package", not "session": no other test of this process can use asyncio while Playwright runs.
@pytest.fixture(scope="package")
def chromium() -> Iterator[Browser]:
    """One Chromium for all modules; the variable CHROMIUM names another binary than the system's.

    Debian's build without windows does the same for half the CPU time.
    """
    binary = os.environ.get("CHROMIUM") or shutil.which("chromium-headless-shell") or require_binary("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=binary, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def bare_page(chromium: Browser) -> Iterator[Page]:
    """An empty tab that ignores the pages' content security policy, so that tests can add scripts."""
    with chromium.new_context(bypass_csp=True) as context:
        page = context.new_page()
        page.set_default_timeout(TIMEOUT)
        yield page


@pytest.fixture(scope="package")
def open_dify() -> Iterator[MockDify]:
    """The mock Dify of `open_replica`; each module sets how fast it answers."""
    with MockDify() as dify:
        yield dify


@pytest.fixture(scope="package")
def open_replica(
    redis_server: RedisServer, open_dify: MockDify, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Replica]:
    """One application with batches, without authentication and limits, for tests that do not stop it."""
    folder = tmp_path_factory.mktemp("pages")
    settings = {"WEBSOCKET_AUTH": "none", "RATE_LIMIT_USER": "off", "RATE_LIMIT_IP": "off"}
    settings |= {"APP_NAME": "来宝", "STREAM_LEASE": "2", "DATABASE_PATH": str(folder / "laibao.db")}
    settings |= {"ADMIN_TOKENS": f"ann:viewer:{VIEWER_TOKEN}", "QUESTION_LOG": "full"}
    env = settings_for(redis_server.url(3), **dify_settings(open_dify.base_url), **settings)
    with replicas(1, env, folder) as (replica,):
        yield replica
