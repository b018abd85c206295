"""The pages in Chromium: silence at the microphone, contrast of colours, and use by keyboard and screen reader."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from demo.mocks.dify.server import MockDify
from tests.browser.chat.test_chat_frames import FakeServer, pages_url
from tests.browser.stage import TIMEOUT, tab
from tests.support.replicas import Replica

__all__ = ["pages_url"]

pytestmark = [pytest.mark.browser, pytest.mark.scenario, pytest.mark.timeout(240)]

FAKE_SPEECH = Path(__file__).parents[1] / "fake_speech.js"

#: The contrast ratio that WCAG 2 requires for text (level AA).
READABLE = 4.5
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
    with tab(chromium, pages_url, scripts=(FAKE_SPEECH,)) as (page, watch):
        server = FakeServer(page)
        page.clock.install()
        page.route_web_socket(re.compile("/ws/chat/"), server.takes)
        page.goto(pages_url + "/chat")
        server.is_open(1)
        page.clock.pause_at(page.evaluate("Date.now() / 1000") + 1)
        page.locator("#mic").click()
        yield server
        watch.assert_clean()


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


# Colours

#: Paints an element's backgrounds one over the other, then its text; returns both resulting colours as sRGB.
COLOURS = """([css, pseudo]) => {
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const paint = (colour, alpha = 1) => {
    Object.assign(canvas, { fillStyle: colour, globalAlpha: alpha });
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const colours = (one, pseudo) => {
    const line = [];
    for (let at = one; at; at = at.parentElement) line.unshift(getComputedStyle(at));
    let ground = paint("white");
    for (const style of line) ground = paint(style.backgroundColor);
    const style = getComputedStyle(one, pseudo);
    const alpha = line.reduce((product, each) => product * each.opacity, pseudo ? Number(style.opacity) : 1);
    return { what: one.id || one.className || one.textContent.trim(), ground, text: paint(style.color, alpha) };
  };
  const speaks = (one) => [...one.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.data.trim());
  const shown = (one) => one.checkVisibility() && !one.closest(":disabled, .unseen, option");
  const all = [...document.querySelectorAll(css)];
  return all.filter((one) => pseudo || one === document.body || (shown(one) && speaks(one)))
    .map((one) => colours(one, pseudo));
}"""

Colour = list[float]


def luminance(colour: Colour) -> float:
    """Return the relative luminance of an sRGB colour of 0 to 255 by WCAG 2: 0 is black, 1 is white."""
    parts = [part / 255 for part in colour]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: Colour, other: Colour) -> float:
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def colours(page: Page, css: str, pseudo: str | None = None) -> list[dict[str, Any]]:
    """Return text and background colours of the selected elements that have text of their own."""
    found: list[dict[str, Any]] = page.evaluate(COLOURS, [css, pseudo])
    assert found
    return found


def unreadable(found: list[dict[str, Any]]) -> list[tuple[str, float]]:
    """Return the elements with too little contrast, and their ratio."""
    ratios = [(one["what"], round(contrast(one["text"], one["ground"]), 2)) for one in found]
    return [(what, ratio) for what, ratio in ratios if ratio < READABLE]


@both_pages
@pytest.mark.parametrize("theme", ["dark", "light"])
def test_a_page_follows_the_preferred_colour_scheme(
    chromium: Browser,
    replica: Replica,
    place: Place,
    theme: str,
) -> None:
    """It is dark or light as the browser prefers, and all text has enough contrast, the field's placeholder too."""
    with tab(chromium, replica.url, dark=theme == "dark", scripts=(FAKE_SPEECH,)) as (page, watch):
        enters(page, replica.url, place)
        # The placeholder of an empty field is its only visible label.
        assert page.locator(place.field).get_attribute("placeholder")
        assert unreadable(colours(page, place.field, "::placeholder")) == []
        page.locator(place.field).fill("年假怎么申请？")
        page.keyboard.press("Enter")
        expect(page.locator(place.finished)).to_be_visible(timeout=TIMEOUT)

        (body,) = colours(page, "body")
        ground, text = luminance(body["ground"]), luminance(body["text"])
        assert (ground < 0.05 and text > 0.5) if theme == "dark" else (ground > 0.8 and text < 0.1)
        assert unreadable(colours(page, "body, body *")) == []
        watch.assert_clean()


# The keyboard

CONTROLS = "button, input, select, textarea, summary, a[href]"
#: Counts the controls that the keyboard must reach: all that are visible and enabled.
WORKABLE = f"""() => [...document.querySelectorAll("{CONTROLS}")]
  .filter((one) => one.checkVisibility() && !one.disabled).length"""
#: Marks the focused element and tells whether its focus is visible; null if it was marked before.
STEP = f"""() => {{
  const at = document.activeElement;
  if (at.dataset.reached) return null;
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
    """Press Tab until the selected element has the focus."""
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


@both_pages
def test_the_send_button_works_by_keyboard(page: Page, place: Place) -> None:
    """Tab reaches it from the field, and Enter on it sends the question once."""
    tab_to(page, place.field)
    page.keyboard.type("营业时间是什么？")

    tab_to(page, place.send)
    page.keyboard.press("Enter")

    expect(page.locator(place.finished)).to_have_count(1, timeout=TIMEOUT)
    expect(page.locator(".mine")).to_contain_text(["营业时间是什么？"])


#: The roles of controls, as Chromium reports them to a screen reader.
WORKED = {"button", "textbox", "checkbox", "combobox", "slider", "link", "DisclosureTriangle", "spinbutton", "radio"}
WORKED |= {"searchbox", "switch"}


def names(page: Page) -> list[tuple[str, str]]:
    """Return role and name of each control, as Chromium reports them to a screen reader."""
    nodes = page.context.new_cdp_session(page).send("Accessibility.getFullAXTree")["nodes"]
    controls = [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in nodes if not node["ignored"]]
    return [(role, name) for role, name in controls if role in WORKED]


@both_pages
def test_every_control_has_an_accessible_name(page: Page, place: Place) -> None:
    """The controls of a running answer and of the settings have names too."""
    asks_slowly(page, place)
    for details in page.locator("details").all():
        details.evaluate("(one) => (one.open = true)")
    for popover in page.locator("[popover]").all():
        popover.evaluate("(one) => one.showPopover()")

    controls = names(page)

    assert len(controls) == page.locator(CONTROLS).locator("visible=true").count()
    assert [(role, name) for role, name in controls if not name.strip()] == []
    assert page.locator("[title=undefined], [aria-label=undefined]").count() == 0
    assert {"textbox", "button", "checkbox", "slider"} <= {role for role, _ in controls}
