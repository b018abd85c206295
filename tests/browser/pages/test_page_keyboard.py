"""A person without a mouse goes through all pages: every step is a key."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.pages.test_page_accessibility import STEP, WORKABLE, tab_to, walk
from tests.browser.stage import PHONE, TIMEOUT, tab
from tests.support.replicas import ADMIN_TOKEN, Replica

pytestmark = [pytest.mark.browser, pytest.mark.scenario, pytest.mark.timeout(240)]

QUESTION = "营业时间是什么？"


@pytest.fixture
def page(chromium: Browser, open_replica: Replica) -> Iterator[Page]:
    """The start page; neither it nor a later one may have errors or ask another host."""
    with tab(chromium, open_replica.url) as (page, watch):
        page.goto(open_replica.url + "/")
        yield page
        watch.assert_clean()


def goes_to(page: Page, place: str, css: str) -> None:
    """Choose a link with Tab and Enter, and wait until its page is connected and marked in the header."""
    tab_to(page, css)
    page.keyboard.press("Enter")
    expect(page.locator("nav [aria-current=page]")).to_have_attribute("href", place)
    expect(page.locator("#state")).to_have_attribute("data-state", "open", timeout=TIMEOUT)


def types(page: Page, css: str, text: str) -> None:
    tab_to(page, css)
    page.keyboard.insert_text(text)


def test_a_person_without_a_mouse_uses_all_pages(page: Page) -> None:
    """From the start page to an answer in the chat, a spoken question's answer, and the results of a batch."""
    goes_to(page, "chat", "main a[href=chat]")
    types(page, "#question", QUESTION)
    page.keyboard.press("Enter")
    expect(page.locator(".turn")).to_have_attribute("data-state", "completed", timeout=TIMEOUT)

    goes_to(page, "realtime", "nav a[href=realtime]")
    types(page, "#line", QUESTION)
    page.keyboard.press("Enter")
    expect(page.locator(".turn")).to_have_attribute("data-state", "finished", timeout=TIMEOUT)

    goes_to(page, "batch", "nav a[href=batch]")
    types(page, "#questions", f"{QUESTION}\n{QUESTION}")
    tab_to(page, "#start")
    page.keyboard.press("Enter")
    expect(page.locator("#task")).to_have_attribute("data-status", re.compile("completed"), timeout=TIMEOUT)
    expect(page.locator("#task-name")).to_be_focused()


def test_the_choices_are_made_by_keyboard(page: Page) -> None:
    """Enter and Space press the switches; Tab stays in the key dialog, Escape closes it, the focus is where it was."""
    tab_to(page, "#theme")
    for _ in range(2):
        page.keyboard.press("Space")
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    tab_to(page, "#language")
    page.keyboard.press("Enter")
    expect(page.locator("html")).to_have_attribute("lang", "en")

    page.reload()
    tab_to(page, "#key-open")
    page.keyboard.press("Enter")
    expect(page.locator("#key-input")).to_be_focused()
    page.keyboard.insert_text("a key")
    for _ in range(8):
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.matches('body, #key *')")
    page.keyboard.press("Escape")

    expect(page.locator("#key")).to_be_hidden()
    expect(page.locator("#key-open")).to_be_focused()
    assert page.evaluate("preferences.key") == ""


def test_a_person_without_a_mouse_tries_an_operation(page: Page) -> None:
    """On the page for developers: the operation is opened, tried and sent, each time with a visible focus."""
    tab_to(page, "main a[href=docs]")
    page.keyboard.press("Enter")
    operation = "#operations-chat-get_api_chat_opening"
    expect(page.locator(operation)).to_be_visible(timeout=TIMEOUT)

    for control in (".opblock-summary-control", ".try-out__btn", ".execute"):
        tab_to(page, f"{operation} {control}")
        assert page.evaluate(STEP)["shown"], control
        page.keyboard.press("Enter")

    expect(page.locator(f"{operation} .live-responses-table .response")).to_contain_text("200", timeout=TIMEOUT)


def test_an_administrator_without_a_mouse_goes_through_all_views(page: Page, open_replica: Replica) -> None:
    """In each view Tab reaches every control with a visible focus; rules are tried, saved and taken back by keys."""
    page.goto(open_replica.url + "/admin")
    types(page, "#token", ADMIN_TOKEN)
    page.keyboard.press("Enter")
    expect(page.locator("#state")).to_have_attribute("data-state", "open", timeout=TIMEOUT)
    for view in page.locator("#views a").evaluate_all("links => links.map((link) => link.dataset.view)"):
        tab_to(page, f"#views [data-view={view}]")
        page.keyboard.press("Enter")
        expect(page.locator(f"#{view}")).to_be_visible(timeout=TIMEOUT)
        page.evaluate("document.querySelectorAll('[data-reached]').forEach((one) => delete one.dataset.reached)")
        stops = walk(page)
        assert [stop["what"] for stop in stops if not stop["shown"]] == [], view
        assert len(page.locator("[data-reached=control]").all()) >= page.evaluate(WORKABLE), view

    tab_to(page, "#views [data-view=rules]")
    page.keyboard.press("Enter")
    tab_to(page, "#check-form [name=kind]")
    page.keyboard.press("End")
    for text in ("mask 薪酬", ""):
        tab_to(page, "#check-form [name=text]")
        page.keyboard.press("ControlOrMeta+A")
        page.keyboard.press("Delete")
        page.keyboard.insert_text(text)
        tab_to(page, "#check-form [type=submit]")
        page.keyboard.press("Enter")
        expect(page.locator("#rules-save")).to_be_enabled(timeout=TIMEOUT)
        tab_to(page, "#rules-save")
        page.keyboard.press("Enter")
        expect(page.locator("#rules-save")).to_be_disabled(timeout=TIMEOUT)


@pytest.mark.parametrize("size", [(1280, 800), PHONE], ids=["laptop", "phone"])
def test_tab_reaches_everything_on_the_start_page(
    chromium: Browser, open_replica: Replica, size: tuple[int, int]
) -> None:
    """All links and switches are reached with a visible focus, and nothing is wider than the screen."""
    with tab(chromium, open_replica.url, size=size) as (page, watch):
        page.goto(open_replica.url + "/")

        stops = walk(page)

        assert [stop["what"] for stop in stops if not stop["shown"]] == []
        assert page.locator("[data-reached=control]").count() == page.evaluate(WORKABLE) > 8
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        watch.assert_clean()
