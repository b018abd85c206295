"""A person at the chat page, with a replica, Redis and a mock Dify."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from demo.mocks.dify.server import MockDify
from tests.browser.stage import TIMEOUT, Watch, tab
from tests.support.replicas import Replica, dify_settings, settings_for
from tests.support.servers.processes import RedisServer

FAKE_SPEECH = Path(__file__).parents[1] / "fake_speech.js"


class LastingReplica(Replica):
    """A replica that can be restarted on its port."""

    def restart(self) -> None:
        self.kill()
        self.process = self._launch()
        self.wait_ready()


@contextmanager
def replica_for(redis: RedisServer, dify: MockDify, folder: Path, **changes: str) -> Iterator[LastingReplica]:
    settings = {"WEBSOCKET_AUTH": "none", "APP_NAME": "来宝", "STREAM_LEASE": "2", **changes}
    replica = LastingReplica(settings_for(redis.url(7), **dify_settings(dify.base_url), **settings), folder)
    try:
        replica.wait_ready()
        yield replica
    finally:
        replica.kill()


@pytest.fixture(scope="module")
def slow_dify(open_dify: MockDify) -> MockDify:
    """A Dify that is slow enough to see answers grow."""
    open_dify.delay, open_dify.slow = 0.02, 0.3
    return open_dify


class Visitor:
    """A person at the page."""

    def __init__(self, page: Page, watch: Watch) -> None:
        self.page = page
        self.watch = watch
        self.turns = page.locator(".turn")
        self.state = page.locator("#state")

    def opens(self, path: str = "/chat") -> Visitor:
        self.page.goto(self.watch.home + path)
        return self

    def is_connected(self) -> Visitor:
        expect(self.state).to_have_attribute("data-state", "open", timeout=TIMEOUT)
        return self

    def comes_back(self) -> Visitor:
        """Reload the page."""
        self.page.reload()
        return self.is_connected()

    def asks(self, text: str) -> Locator:
        """Type a question, press Enter, and return its turn."""
        before = self.turns.count()
        self.page.locator("#question").fill(text)
        self.page.locator("#question").press("Enter")
        return self.turns.nth(before)

    def sees_end(self, turn: Locator, state: str = "completed") -> str:
        """Wait for the end of an answer and return its text, without the bars above its code."""
        expect(turn).to_have_attribute("data-state", state, timeout=TIMEOUT)
        text = turn.locator(".blocks").inner_text()
        for bar in turn.locator(".blocks .code-bar").all_inner_texts():
            text = text.replace(bar, "", 1)
        return text


@pytest.fixture
def visitor(chromium: Browser, open_replica: Replica, slow_dify: MockDify) -> Iterator[Visitor]:
    """A connected visitor; the page must have no errors and no requests to other hosts."""
    with tab(chromium, open_replica.url, scripts=(FAKE_SPEECH,)) as (page, watch):
        yield Visitor(page, watch).opens().is_connected()
        watch.assert_clean()


def shown_words(markdown: str) -> str:
    """Return an answer's letters and digits, which rendering keeps in order."""
    return "".join(re.findall(r"[^\W_]", re.sub(r"(?m)^ *\d+\. ", "", markdown)))
