"""A visitor of the realtime page, before real gunicorn and a mock Dify, for the tests of that page."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from demo.mocks.dify.server import MockDify
from tests.browser.stage import TIMEOUT, tab
from tests.support.replicas import Replica, dify_settings, settings_for
from tests.support.servers.processes import RedisServer, wait_until

#: The fixtures a test module of the page imports.
__all__ = ["enter", "mock_dify", "own_env", "replica", "speaker", "writer"]

#: Recognition and synthesis for a browser that has no microphone; see its first lines for what `theatre` can do.
FAKE_SPEECH = Path(__file__).parent / "fake_speech.js"
NO_RECOGNISER = "window.SpeechRecognition = window.webkitSpeechRecognition = undefined"
SIZE = (1200, 800)


@pytest.fixture(scope="module")
def mock_dify(open_dify: MockDify) -> MockDify:
    """A Dify whose answers take two or three seconds."""
    open_dify.delay, open_dify.slow = 0.08, 0.5
    return open_dify


@pytest.fixture(scope="module")
def own_env(redis_server: RedisServer, mock_dify: MockDify) -> dict[str, str]:
    """The environment of a replica of the test's own: it shares no streams with the one that is left whole."""
    return settings_for(
        redis_server.url(2),
        **dify_settings(mock_dify.base_url),
        WEBSOCKET_AUTH="none",
        RATE_LIMIT_USER="off",
        RATE_LIMIT_IP="off",
        STREAM_LEASE="2",
    )


@pytest.fixture(scope="module")
def replica(open_replica: Replica, mock_dify: MockDify) -> Replica:
    """The product, for the tests that leave it whole."""
    return open_replica


class Visitor:
    """Somebody at the page."""

    def __init__(self, page: Page) -> None:
        self.page = page

    def sees(self, css: str) -> Locator:
        return self.page.locator(css)

    def presses(self, name: str) -> None:
        self.page.get_by_role("button", name=name, exact=True).click()

    def types(self, text: str) -> None:
        self.sees("#line").fill(text)
        self.page.keyboard.press("Enter")

    def hears(self, script: str) -> Any:
        """Ask the fake of recognition and voice something."""
        return self.page.evaluate(f"() => {script}")

    def says(self, words: str, *, final: bool = True) -> None:
        """Say something as soon as the recogniser listens."""
        script = "([words, final]) => theatre.hear(words, final)"
        wait_until(lambda: self.page.evaluate(script, [words, final]), timeout=TIMEOUT / 1000)

    def waits_for(self, script: str) -> None:
        """Wait until something is so of recognition or voice; the page's policy forbids waiting within it."""
        wait_until(lambda: self.hears(script), timeout=TIMEOUT / 1000)

    def listens_to_the_end(self) -> list[str]:
        """Let the voice say all it has to say; return the pieces."""
        self.waits_for("theatre.saying !== null && (theatre.endOfPiece(), true)")
        self.waits_for("theatre.saying ? (theatre.endOfPiece(), false) : theatre.running !== null")
        return [piece["text"] for piece in self.hears("theatre.spoken")]

    @property
    def connected(self) -> Locator:
        return self.sees("#badge[data-state=open]")

    @property
    def turns(self) -> Locator:
        return self.sees(".turn")

    @property
    def counters(self) -> tuple[str, str]:
        """How many questions and answers the page has counted."""
        return self.sees("#questions").inner_text(), self.sees("#answers").inner_text()

    def stands_at(self, stage: str) -> None:
        expect(self.sees("#stages [aria-current=step]")).to_have_attribute("data-stage", stage, timeout=TIMEOUT)

    def sees_answer(self, number: int, state: str = "finished") -> str:
        """Wait until the answer of a turn has come to a state; return its text, byte for byte."""
        expect(self.turns.nth(number).locator(".theirs")).to_have_attribute("data-state", state, timeout=TIMEOUT)
        return self.turns.nth(number).locator(".theirs .text").text_content() or ""

    def sees_it_grow(self, number: int = 0) -> None:
        expect(self.turns.nth(number).locator(".theirs .text")).to_have_text(re.compile(r"\S{8}"), timeout=TIMEOUT)


class Enter(Protocol):
    def __call__(self, home: str, *, speech: bool = False, outages: bool = False) -> Visitor: ...


@pytest.fixture
def enter(chromium: Browser) -> Iterator[Enter]:
    """Opens the page of a server for a visitor, with a recogniser and a voice or without; it must stay clean."""
    with ExitStack() as tabs:

        def enter(home: str, *, speech: bool = False, outages: bool = False) -> Visitor:
            page, watch = tabs.enter_context(tab(chromium, home, size=SIZE, scripts=(FAKE_SPEECH,) if speech else ()))
            tabs.callback(watch.assert_clean, outages=outages)
            if not speech:
                page.add_init_script(NO_RECOGNISER)
            page.goto(f"{home}/realtime")
            return Visitor(page)

        yield enter


@pytest.fixture
def writer(enter: Enter, replica: Replica) -> Visitor:
    """Somebody whose browser has no recogniser, connected."""
    visitor = enter(replica.url)
    expect(visitor.connected).to_be_visible()
    return visitor


@pytest.fixture
def speaker(enter: Enter, replica: Replica) -> Visitor:
    """Somebody whose browser recognises speech and reads aloud, connected and listening."""
    visitor = enter(replica.url, speech=True)
    expect(visitor.connected).to_be_visible()
    visitor.presses("开始说话")
    return visitor
