"""/docs in Chromium: it lists every REST address, sends requests, and breaks no rule of its own policy."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from demo.embedded_redis import EmbeddedRedis
from tests.browser.stage import PHONE, TIMEOUT, Watch, screenshot, tab
from tests.support.replicas import AppServer

pytestmark = [pytest.mark.browser, pytest.mark.scenario, pytest.mark.timeout(240)]

KEY = "obviously-fake-api-key"


@pytest.fixture(scope="module")
def home() -> Iterator[str]:
    """A replica whose REST addresses require a key."""
    with (
        EmbeddedRedis() as redis,
        AppServer(redis.url, WEBSOCKET_AUTH="key", API_KEYS=KEY, ADMIN_TOKEN=KEY, RATE_LIMIT_IP="off") as app_server,
    ):
        yield app_server.url


@pytest.fixture
def docs_page(chromium: Browser, home: str) -> Iterator[tuple[Page, Watch]]:
    with tab(chromium, home) as (page, watch):
        page.goto(f"{home}/docs")
        expect(page.locator(".opblock").first).to_be_visible(timeout=TIMEOUT)
        yield page, watch


@pytest.mark.main_story
def test_every_rest_address_is_shown_without_foreign_requests(docs_page: tuple[Page, Watch]) -> None:
    """Both lists of addresses come from this host, each address in one of them, with no message in the console."""
    page, watch = docs_page

    blocks = page.locator(".opblock-summary-path").all_text_contents()
    shown = {path.replace("\u200b", "") for path in blocks}
    listed = page.locator("main table").first.locator("code").all_text_contents()

    assert {"/", "/healthz", "/api/ws/connections", "/api/ws/disconnect/{client_id}", "/api/chat"} <= shown
    assert {"/wechat/callback", "/ws/chat", "/chat"} <= set(listed)
    assert not {path.replace("{", "<").replace("}", ">") for path in shown} & set(listed)
    screenshot(page, "docs")
    watch.assert_clean()


def test_an_address_can_be_tried_with_a_key(docs_page: tuple[Page, Watch]) -> None:
    """The key goes to this host as a header and is not stored; the page shows the reply."""
    page, watch = docs_page

    page.get_by_role("button", name="授权").first.click()
    box = page.locator(".auth-container", has_text="administrator")
    box.get_by_role("textbox").fill(KEY)
    box.get_by_role("button", name="Apply credentials").click()
    page.get_by_role("button", name="关闭").first.click()
    block = page.locator(".opblock", has_text="/api/ws/connections")
    block.locator(".opblock-summary-control").click()
    block.get_by_role("button", name="试用").click()
    block.get_by_role("button", name="发送").click()

    answer = block.locator(".live-responses-table .response")
    expect(answer).to_contain_text("200", timeout=TIMEOUT)
    expect(answer).to_contain_text('"connections": []')
    screenshot(page, "docs-tried")
    watch.assert_clean()
    assert page.evaluate("JSON.stringify(Object.values(localStorage)) + document.cookie") == "[]"


def test_the_first_example_runs_unchanged(docs_page: tuple[Page, Watch]) -> None:
    """The first operation is a question; tried as the page shows it, it is answered."""
    page, watch = docs_page
    page.evaluate("(key) => preferences.keep(key)", KEY)
    block = page.locator(".opblock").first
    block.locator(".opblock-summary-control").click()
    block.get_by_role("button", name="试用").click()
    block.get_by_role("button", name="发送").click()

    answer = block.locator(".live-responses-table .response")
    expect(answer).to_contain_text("200", timeout=TIMEOUT)
    expect(answer).to_contain_text('"status": "completed"')
    screenshot(page, "docs-first-example")
    watch.assert_clean()


def test_requests_are_tried_with_the_key_of_the_pages(docs_page: tuple[Page, Watch]) -> None:
    """A key that is entered in the header's dialog is sent, and is not any more when it is forgotten."""
    page, watch = docs_page
    block = page.locator(".opblock").filter(has=page.locator("[data-path='/api/batch/status']"))
    block.locator(".opblock-summary-control").click()
    block.get_by_role("button", name="试用").click()

    page.locator("#key-open").click()
    page.locator("#key-input").fill(KEY)
    page.locator("#key-input").press("Enter")
    with page.expect_request("**/api/batch/status") as asked:
        block.get_by_role("button", name="发送").click()
    assert asked.value.headers["x-api-key"] == KEY
    page.locator("#key-open").click()
    page.locator("#key-forget").click()
    with page.expect_request("**/api/batch/status") as asked:
        block.get_by_role("button", name="发送").click()

    assert "x-api-key" not in asked.value.headers
    # The console reports the 401 and a service without batches; nothing else is wrong.
    assert [line for line in watch.errors if "401" not in line and "503" not in line] == []
    assert watch.foreign == []


def test_the_words_of_swagger_ui_follow_the_language(docs_page: tuple[Page, Watch]) -> None:
    """What it writes, also later, is in the page's language; what the document says stays as it is."""
    page, watch = docs_page
    block = page.locator("#operations-operations-get_healthz")
    block.locator(".opblock-summary-control").click()
    summary = block.locator(".opblock-summary-description")
    said = summary.text_content() or ""

    for tried, cancel, parameters in (("试用", "取消", "参数"), ("Try it out", "Cancel", "Parameters")):
        expect(block.locator(".opblock-title").first).to_have_text(parameters)
        block.get_by_role("button", name=tried).click()
        block.get_by_role("button", name=cancel).click()
        page.locator("#language").click()
    expect(block.get_by_role("button", name="试用")).to_be_visible()
    expect(summary).to_have_text(said)
    watch.assert_clean()


def test_an_operation_is_no_wider_than_a_phone(docs_page: tuple[Page, Watch]) -> None:
    """Its tables scroll inside their card, the page does not."""
    page, watch = docs_page
    page.set_viewport_size({"width": PHONE[0], "height": PHONE[1]})
    page.locator("[data-path='/api/chat']").locator("xpath=../..").first.click()
    expect(page.locator(".responses-table")).to_be_visible(timeout=TIMEOUT)

    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    watch.assert_clean()
