"""The chat page on paper, and texts that are written from right to left."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from tests.browser.chat.test_chat_frames import DONE, FakeServer, asked, pages_url, server, whole
from tests.browser.stage import screenshot

__all__ = ["pages_url", "server"]

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240)]

LINES = "".join(f"<p>{number}</p>" for number in range(60))
#: Where the first letter of a paragraph is, and where the paragraph begins and ends.
PLACES = """(paragraph) => {
  const letter = document.createRange();
  letter.setStart(paragraph.firstChild, 0);
  letter.setEnd(paragraph.firstChild, 1);
  const [own, whole] = [letter.getBoundingClientRect(), paragraph.getBoundingClientRect()];
  return [own.left - whole.left, whole.right - own.right];
}"""


def shown(page: Page, selector: str, style: str) -> str:
    return str(page.locator(selector).evaluate(f"(one) => getComputedStyle(one).{style}"))


def test_a_whole_conversation_is_printed_dark_on_white(server: FakeServer) -> None:
    """Nothing is cut off at the height of the window, controls stay off the paper; ink is dark in every theme."""
    page = server.page
    turn, _ = asked(server)
    server.says(whole("长", html=LINES), DONE)
    expect(turn).to_have_attribute("data-state", "completed")
    page.emulate_media(color_scheme="dark")
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    light = shown(page, "body", "color")

    page.emulate_media(color_scheme="dark", media="print")

    screenshot(page, "chat-paper")
    clipped = page.locator("#scroll").evaluate("(one) => one.scrollHeight - one.clientHeight")
    paper = page.evaluate("document.documentElement.scrollHeight")
    assert clipped <= 0
    assert paper > turn.evaluate("(one) => one.scrollHeight") > 800
    assert shown(page, "body", "color") == "rgb(29, 35, 48)" != light
    for selector in (".top", "#composer", "#chats", ".turn > .actions button"):
        expect(page.locator(selector).first).to_be_hidden()


def test_a_paragraph_has_the_direction_of_its_first_letter(server: FakeServer) -> None:
    """Arabic begins at the right, and its lists have their signs there; the Chinese paragraph begins at the left."""
    turn, _ = asked(server)
    server.says(whole("x", html="<p>مرحبا بالعالم</p><p>你好</p><ul><li>قائمة</li></ul>"), DONE)
    expect(turn).to_have_attribute("data-state", "completed")

    (_, arabic_right), (chinese_left, _) = (turn.locator(".blocks p").nth(place).evaluate(PLACES) for place in (0, 1))

    assert arabic_right < 2
    assert chinese_left < 2
    assert turn.locator(".blocks ul").evaluate("(list) => getComputedStyle(list).direction") == "rtl"
