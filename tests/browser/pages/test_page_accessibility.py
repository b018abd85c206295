"""The pages in Chromium: silence at the microphone, the keyboard, another language, and a phone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from demo.mocks.dify.server import MockDify
from tests.browser.chat.test_chat_frames import FakeServer, fake_server, pages_url
from tests.browser.stage import PHONE, TIMEOUT, tab
from tests.support.replicas import Replica

__all__ = ["pages_url"]

pytestmark = [pytest.mark.browser, pytest.mark.scenario, pytest.mark.timeout(240)]

FAKE_SPEECH = Path(__file__).parents[1] / "fake_speech.js"

#: More Tab stops than any page has: reaching it means that the focus is trapped.
MOST_STOPS = 60


@dataclass(frozen=True)
class Place:
    """A page, and the CSS selectors of its parts."""

    path: str
    field: str
    send: str
    stop: str
    running: str
    finished: str
    stopped: str

    def __str__(self) -> str:
        return self.path.strip("/")


CHAT = Place(
    path="/chat",
    field="#question",
    send="#send",
    stop="#stop",
    running=".turn[data-state=growing]",
    finished=".turn[data-state=completed]",
    stopped=".turn[data-state=cancelled]",
)
REALTIME = Place(
    path="/realtime",
    field="#line",
    send="#composer button[type=submit]",
    stop="#stop",
    running=".turn[data-state=growing]",
    finished=".turn[data-state=finished]",
    stopped=".turn[data-state=stopped]",
)

both_pages = pytest.mark.parametrize("place", [CHAT, REALTIME], ids=str)


@pytest.fixture(scope="module")
def replica(open_replica: Replica, open_dify: MockDify) -> Replica:
    """The open replica; its slow answers last until they are stopped."""
    open_dify.delay, open_dify.slow = 0.01, 2.0
    return open_replica


def enters(page: Page, home: str, place: Place) -> None:
    """Open the page and wait until it is connected."""
    page.goto(home + place.path)
    expect(page.locator(".badge[data-state=open]")).to_be_visible(timeout=TIMEOUT)


@pytest.fixture
def page(chromium: Browser, replica: Replica, place: Place) -> Iterator[Page]:
    """The connected page; it must have no errors and no requests to other hosts."""
    with tab(chromium, replica.url, scripts=(FAKE_SPEECH,)) as (page, watch):
        enters(page, replica.url, place)
        yield page
        watch.assert_clean()


# The microphone


@pytest.fixture
def listening(chromium: Browser, pages_url: str) -> Iterator[FakeServer]:
    """A chat page whose recogniser is running and whose clock is stopped, with a fake server."""
    with fake_server(chromium, pages_url, FAKE_SPEECH) as server:
        server.page.locator("#mic").click()
        yield server


def hear(server: FakeServer, words: str, *, final: bool = True) -> None:
    assert server.page.evaluate("([words, final]) => fakeSpeech.hear(words, final)", [words, final])


def questions(server: FakeServer) -> list[str]:
    """Return the questions that the server received, once they are as many as the page shows."""
    server.receives(server.page.locator(".turn").count())
    return [frame["content"] for frame in server.received[-1] if frame["type"] == "chat"]


def test_speech_is_sent_after_three_seconds_of_silence(listening: FakeServer) -> None:
    """The words are not sent after 2.9 s, but after 3.1 s, and once only."""
    hear(listening, "营业", final=False)
    hear(listening, "营业时间")

    listening.passes(2.9)
    assert questions(listening) == []
    listening.passes(0.2)
    assert questions(listening) == ["营业时间"]
    listening.passes(10)
    assert questions(listening) == ["营业时间"]


@pytest.mark.parametrize("final", [True, False], ids=["final", "interim"])
def test_the_silence_begins_with_the_last_word(listening: FakeServer, final: bool) -> None:
    """Words within the silence belong to the same question, which is sent 3 s after the last of them."""
    hear(listening, "请问")
    listening.passes(2.9)
    hear(listening, "营业时间", final=final)

    listening.passes(2.9)
    assert questions(listening) == []
    listening.passes(0.2)
    assert questions(listening) == ["请问营业时间"]


def test_a_late_result_of_the_recogniser_repeats_no_words(listening: FakeServer) -> None:
    """Interim words are sent after the silence; that they are final comes too late."""
    hear(listening, "年假怎么申请，")
    hear(listening, "要几天", final=False)
    listening.page.evaluate("() => { window.former = fakeSpeech.running; }")
    listening.passes(3.1)
    assert questions(listening) == ["年假怎么申请，要几天"]

    listening.page.evaluate("former.put('要几天', true)")
    # The page's next recogniser starts when the former one has ended, which takes moments of the page's clock.
    listening.passes(1)
    hear(listening, "营业时间")
    listening.passes(3.1)

    assert questions(listening) == ["年假怎么申请，要几天", "营业时间"]


# The keyboard

CONTROLS = "button, input, select, textarea, summary, a[href]"
#: Counts the controls that the keyboard must reach: all that are visible and enabled.
WORKABLE = f"""() => [...document.querySelectorAll("{CONTROLS}")]
  .filter((one) => one.checkVisibility() && !one.disabled).length"""
#: Marks the focused element and tells whether its focus is visible; null if it was marked before.
STEP = f"""() => {{
  const at = document.activeElement;
  // The browser marks the parts of a date itself.
  if (at === window.reached) return {{ what: at.id, shown: true }};
  if (at.dataset.reached) return null;
  window.reached = at;
  if (at !== document.body) at.dataset.reached = at.matches("{CONTROLS}") ? "control" : "place";
  // The box around the chat's question shows the focus of its field.
  const ring = at.matches(".box textarea") ? at.closest(".box") : at;
  const {{ outlineStyle, outlineWidth, boxShadow }} = getComputedStyle(ring);
  const shown = (outlineStyle !== "none" && parseFloat(outlineWidth) > 0) || boxShadow !== "none";
  return {{ what: at.id || at.textContent.trim() || at.tagName, shown: shown || at === document.body }};
}}"""


def walk(page: Page) -> list[dict[str, Any]]:
    """Press Tab until the focus comes round; return the stops. Each element is marked with `data-reached`."""
    stops: list[dict[str, Any]] = []
    while len(stops) < MOST_STOPS:
        page.keyboard.press("Tab")
        stop = page.evaluate(STEP)
        if stop is None:
            return stops
        stops.append(stop)
    raise AssertionError(f"Tab comes to no end: {stops}")


def tab_to(page: Page, css: str) -> None:
    """Press Tab until the selected element has the focus; one that a script is still making is waited for."""
    expect(page.locator(css)).to_be_visible(timeout=TIMEOUT)
    for _ in range(MOST_STOPS):
        if page.locator(f"{css}:focus").count():
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"Tab does not come to {css}")


def asks_slowly(page: Page, place: Place) -> None:
    """Ask, by keyboard only, a question with a slow answer."""
    tab_to(page, place.field)
    page.keyboard.type("年假怎么申请？[[slow]]")
    page.keyboard.press("Enter")
    expect(page.locator(place.running)).to_be_visible(timeout=TIMEOUT)


@both_pages
def test_tab_reaches_every_control_with_a_visible_focus(page: Page, place: Place) -> None:
    """While an answer runs, Tab reaches all controls of the page, its stop button included, with visible focus."""
    asks_slowly(page, place)

    stops = walk(page)

    assert [stop["what"] for stop in stops if not stop["shown"]] == []
    for css in (place.field, place.send, place.stop):
        expect(page.locator(css)).to_have_attribute("data-reached", "control")
    expect(page.locator(place.running)).to_be_visible()
    assert page.locator("[data-reached=control]").count() == page.evaluate(WORKABLE)


@both_pages
def test_a_question_is_asked_and_stopped_by_keyboard(page: Page, place: Place) -> None:
    """Enter in the field sends; both Enter and Space press the stop button."""
    for count, key in enumerate(("Enter", "Space"), 1):
        asks_slowly(page, place)
        assert page.locator(place.field).input_value() == ""

        tab_to(page, place.stop)
        page.keyboard.press(key)

        expect(page.locator(place.stopped)).to_have_count(count, timeout=TIMEOUT)


# Languages and sizes


@both_pages
def test_every_label_follows_the_language(page: Page, place: Place) -> None:
    """Labels and accessible names of the page, its settings and its turns are in English after a click."""
    page.locator(place.field).fill("What are the opening hours?")
    page.keyboard.press("Enter")
    expect(page.locator(place.finished)).to_be_visible(timeout=TIMEOUT)

    page.get_by_role("button", name="English").click()

    expect(page.locator("html")).to_have_attribute("lang", "en")
    words = page.locator("button, summary, label > span, .turn .note").all_text_contents()
    words += page.evaluate("[...document.querySelectorAll('[aria-label]')].map((one) => one.ariaLabel)")
    words += [page.locator(place.field).get_attribute("placeholder") or "中文"]
    assert [text for text in words if re.search(r"[\u4e00-\u9fff]", text)] == ["中文"]


@both_pages
def test_the_end_of_an_answer_is_visible_on_a_phone(page: Page, place: Place) -> None:
    """It is above the field, and the button that sends is visible."""
    page.set_viewport_size({"width": PHONE[0], "height": PHONE[1]})
    page.locator(place.field).fill("报销需要哪些材料？")
    page.keyboard.press("Enter")

    expect(page.locator(place.finished)).to_be_visible(timeout=TIMEOUT)
    end = page.locator(f"{place.finished} :is(.actions, .text)").locator("visible=true").last
    expect(end).to_be_in_viewport()
    expect(page.locator(place.send)).to_be_in_viewport()
