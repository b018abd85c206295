"""What of a conversation is in view on the chat page while it grows, and its pictures, enlarged."""

from __future__ import annotations

import re
import threading

import pytest
from playwright.sync_api import Page, Route, expect

from tests.browser.chat.test_chat_frames import DONE, FakeServer, asked, delta, pages_url, server, whole
from tests.browser.stage import screenshot
from tests.support.pictures import png
from tests.support.servers.processes import wait_until

__all__ = ["pages_url", "server"]

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240)]

LINES = "".join(f"<p>{number}</p>" for number in range(60))
PICTURE = '<p><img src="/files/a.png" alt="屋顶"></p>'
FOREIGN = '<p><a class="picture" href="https://a.example/b.png"><img src="/files/b.png" alt="后院"></a></p>'
#: Pixels between the end of the conversation and what is in view.
LEFT = "({ scrollHeight, scrollTop, clientHeight }) => scrollHeight - scrollTop - clientHeight"

#: Scroll up with the first text, right after the page has scrolled to its end: observers are called in their order.
SCROLLS_UP = """() => {
  const box = document.getElementById("scroll");
  const observer = new ResizeObserver(() => {
    if (box.scrollTop < 100) return;
    box.scrollTop = 100;
    observer.disconnect();
  });
  observer.observe(document.getElementById("turns"));
}"""


def left(page: Page) -> int:
    return int(page.locator("#scroll").evaluate(LEFT))


def is_at_end(page: Page) -> None:
    wait_until(lambda: left(page) < 2, timeout=30.0)


def fulfils(route: Route) -> None:
    route.fulfill(body=png(400, 300), content_type="image/png")


def test_pictures_that_load_later_are_followed(server: FakeServer) -> None:
    """The end of the answer stays in view, also when its picture gets its size after the text."""
    held: list[Route] = []
    shown = threading.Event()
    server.page.route("**/files/**", lambda route: fulfils(route) if shown.is_set() else held.append(route))
    turn, _ = asked(server)
    server.says(delta("长", LINES, cursor=1), delta("图", PICTURE, cursor=2, block=1))
    server.says(whole("长图", html=LINES + PICTURE), DONE)
    expect(turn).to_have_attribute("data-state", "completed")
    is_at_end(server.page)
    before = turn.evaluate("(one) => one.scrollHeight")

    server.until(lambda: held)
    # The last frame's picture may be asked for anew, and later than this.
    shown.set()
    for route in held:
        fulfils(route)
    wait_until(lambda: turn.evaluate("(one) => one.scrollHeight") > before + 200, timeout=30.0)

    is_at_end(server.page)
    expect(server.page.locator("#latest")).to_be_hidden()


def test_a_reader_who_scrolls_up_stays_there(server: FakeServer) -> None:
    """A button leads back to the end; from then on it is followed again."""
    turn, _ = asked(server)
    server.says(delta("长", LINES, cursor=1))
    is_at_end(server.page)
    server.page.locator("#scroll").evaluate("(box) => (box.scrollTop = 100)")
    latest = server.page.locator("#latest")
    expect(latest).to_be_visible()

    server.says(delta("长", LINES, cursor=2, block=1))
    expect(turn.locator(".blocks p")).to_have_count(120)
    screenshot(server.page, "chat-latest")
    assert server.page.locator("#scroll").evaluate("(box) => box.scrollTop") == 100
    latest.click()
    is_at_end(server.page)
    expect(latest).to_be_hidden()
    server.says(delta("长", LINES, cursor=3, block=2))
    expect(turn.locator(".blocks p")).to_have_count(180)
    is_at_end(server.page)


def test_a_reader_who_scrolls_up_at_once_stays_there(server: FakeServer) -> None:
    """Also in the frame in which the page itself scrolls to the end: one event stands for both ways."""
    page = server.page
    turn, _ = asked(server)
    page.evaluate(SCROLLS_UP)
    server.says(delta("长", LINES, cursor=1))
    expect(page.locator("#latest")).to_be_visible()

    server.says(delta("长", LINES, cursor=2, block=1))
    expect(turn.locator(".blocks p")).to_have_count(120)

    # Sizes are observed once a frame, after the events of scrolls.
    page.evaluate("new Promise((done) => new ResizeObserver(() => done(0)).observe(document.body))")
    assert page.locator("#scroll").evaluate("(box) => box.scrollTop") == 100


def test_a_picture_is_enlarged_before_it_has_loaded(server: FakeServer) -> None:
    """A dialog that was opened sooner has the picture's size once it is there."""
    held: list[Route] = []
    server.page.route("**/files/**", lambda route: held.append(route))
    turn, _ = asked(server)
    server.says(delta("图", PICTURE, cursor=1))
    server.until(lambda: held)
    turn.get_by_role("button", name="屋顶").press("Enter")
    expect(server.page.locator(".picture-dialog")).to_be_visible()

    server.page.route("**/files/**", fulfils)
    for route in held:
        fulfils(route)

    expect(server.page.locator(".picture-dialog img")).to_have_css("width", "800px")


def test_a_picture_is_enlarged(server: FakeServer) -> None:
    """By click or keyboard, twice as large; Escape closes it and stops no answer. Another host's keeps its link."""
    server.page.route("**/files/**", fulfils)
    turn, _ = asked(server)
    server.says(delta("图", PICTURE, cursor=1), delta("图", FOREIGN, cursor=2, block=1))
    dialog, shown = server.page.locator(".picture-dialog"), server.page.locator(".picture-dialog img")

    turn.get_by_role("button", name="屋顶").press("Enter")
    expect(shown).to_have_attribute("alt", "屋顶")
    expect(shown).to_have_css("width", "800px")
    screenshot(server.page, "chat-picture")
    server.page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    # A picture that loads during the press would move from under the pointer.
    expect(turn.get_by_role("img", name="后院")).to_have_js_property("naturalWidth", 400)
    turn.get_by_role("img", name="后院").click()
    expect(shown).to_have_attribute("src", re.compile("/files/b.png$"))
    expect(dialog.get_by_role("link", name="打开原图")).to_have_attribute("href", "https://a.example/b.png")
    dialog.get_by_role("button", name="关闭").click()

    expect(dialog).to_be_hidden()
    expect(turn).to_have_attribute("data-state", "growing")
    assert [frame["type"] for frame in server.received[-1]] == ["chat"]
