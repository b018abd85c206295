"""A visitor of the realtime page, with a replica and a mock Dify, for the tests of that page."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Protocol

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from channels.web.pages.pages import HTML
from demo.mocks.dify.server import MockDify
from tests.browser.stage import TIMEOUT, tab
from tests.support.replicas import Replica, dify_settings, settings_for
from tests.support.servers.processes import RedisServer, wait_until

#: The fixtures that test modules of the page import.
__all__ = ["SPEECH", "enter", "mock_dify", "own_env", "replica", "speaker", "writer"]

#: Fake recognition and synthesis for a browser without microphone; the file's first lines describe `fakeSpeech`.
FAKE_SPEECH = Path(__file__).parents[1] / "fake_speech.js"
#: The scripts of `speech/`; those of the page are a module, whose functions a test cannot call.
SPEECH = "".join(
    (HTML / "speech" / f"{name}.js").read_text() for name in ("listening", "plain_text", "reading", "speech")
)
NO_RECOGNISER = "window.SpeechRecognition = window.webkitSpeechRecognition = undefined"
SIZE = (1200, 800)


@pytest.fixture(scope="module")
def mock_dify(open_dify: MockDify) -> MockDify:
    """A Dify whose answers take two to three seconds."""
    open_dify.delay, open_dify.slow = 0.08, 0.5
    return open_dify


@pytest.fixture(scope="module")
def own_env(redis_server: RedisServer, mock_dify: MockDify) -> dict[str, str]:
    """The environment of a test's own replica: it does not share streams with `replica`."""
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
    """The shared replica, for tests that do not stop it."""
    return open_replica


class Visitor:
    """A person at the page."""

    def __init__(self, page: Page) -> None:
        self.page = page

    def sees(self, css: str) -> Locator:
        return self.page.locator(css)

    def presses(self, name: str) -> None:
        self.page.get_by_role("button", name=name, exact=True).click()

    def types(self, text: str) -> None:
        self.sees("#line").fill(text)
        self.page.keyboard.press("Enter")

    def evaluates(self, script: str) -> Any:
        """Evaluate a JavaScript expression in the page."""
        return self.page.evaluate(f"() => {script}")

    def says(self, words: str, *, final: bool = True) -> None:
        """Give words to the recogniser as soon as it is running."""
        script = "([words, final]) => fakeSpeech.hear(words, final)"
        wait_until(lambda: self.page.evaluate(script, [words, final]), timeout=TIMEOUT / 1000)

    def waits_for(self, script: str) -> None:
        """Poll a JavaScript expression until it is true; the page's policy forbids to wait inside the page."""
        wait_until(lambda: self.evaluates(script), timeout=TIMEOUT / 1000)

    def listens_to_the_end(self) -> list[str]:
        """End every utterance until the voice has nothing left to say; return the utterances' texts."""
        self.waits_for("fakeSpeech.saying !== null && (fakeSpeech.endOfPiece(), true)")
        self.waits_for("fakeSpeech.saying ? (fakeSpeech.endOfPiece(), false) : fakeSpeech.running !== null")
        return [piece["text"] for piece in self.evaluates("fakeSpeech.spoken")]

    @property
    def connected(self) -> Locator:
        return self.sees("#state[data-state=open]")

    @property
    def turns(self) -> Locator:
        return self.sees(".turn")

    @property
    def counters(self) -> tuple[str | None, str | None]:
        """The page's counters of questions and answers."""
        return self.sees("#questions").text_content(), self.sees("#answers").text_content()

    @contextmanager
    def settings(self) -> Iterator[None]:
        """Open the page's settings, and close them at the end."""
        self.presses("设置与详情")
        yield
        self.page.keyboard.press("Escape")

    def has_answers_read_aloud(self) -> None:
        with self.settings():
            self.sees("#aloud").check()

    def stands_at(self, stage: str) -> None:
        expect(self.sees("#stages [aria-current=step]")).to_have_attribute("data-stage", stage, timeout=TIMEOUT)

    def sees_answer(self, number: int, state: str = "finished") -> str:
        """Wait until a turn has a state; return the text of its answer as the page keeps it, byte for byte."""
        expect(self.turns.nth(number)).to_have_attribute("data-state", state, timeout=TIMEOUT)
        wait_until(lambda: self.kept(number).get("state") == state, timeout=TIMEOUT / 1000)
        return str(self.kept(number)["text"])

    def kept(self, number: int) -> dict[str, Any]:
        """Return a turn as the page keeps it for a reload; empty before it does."""
        ids = json.loads(self.stored("turns") or "[]")
        turn = self.stored(f"turn.{ids[number]}") if len(ids) > number else None
        return dict(json.loads(turn or "{}"))

    def stored(self, name: str) -> str | None:
        found = self.page.evaluate("name => sessionStorage.getItem(`wechatlaibao.realtime.${name}`)", name)
        return found if isinstance(found, str) else None

    def sees_it_grow(self, number: int = 0) -> None:
        expect(self.turns.nth(number).locator(".text")).to_have_text(re.compile(r"\S{8}"), timeout=TIMEOUT)


class Enter(Protocol):
    def __call__(self, home: str, *, speech: bool = False, outages: bool = False) -> Visitor: ...


@pytest.fixture
def enter(chromium: Browser) -> Iterator[Enter]:
    """Return a function that opens a server's page as a visitor, with fake speech or none.

    At the end the page must have had no errors and no requests to other hosts.
    """
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
    """A connected visitor whose browser has no speech recognition."""
    visitor = enter(replica.url)
    expect(visitor.connected).to_be_visible()
    return visitor


@pytest.fixture
def speaker(enter: Enter, replica: Replica) -> Visitor:
    """A connected visitor whose browser recognises speech and reads aloud; the recogniser is running."""
    visitor = enter(replica.url, speech=True)
    expect(visitor.connected).to_be_visible()
    visitor.presses("开始说话")
    return visitor
