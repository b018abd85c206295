"""/docs in Chromium: it lists every REST address, sends requests, and breaks no rule of its own policy."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from demo.embedded_redis import EmbeddedRedis
from tests.browser.stage import TIMEOUT, Watch, screenshot, tab
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
    """Both lists of addresses come from this host, with no message in the console."""
    page, watch = docs_page

    blocks = page.locator(".opblock-summary-path").all_text_contents()
    shown = {path.replace("\u200b", "") for path in blocks}
    listed = page.locator("main > table code").all_text_contents()

    assert {"/", "/healthz", "/api/ws/connections", "/api/ws/disconnect/{client_id}", "/api/chat"} <= shown
    assert {path.replace("{", "<").replace("}", ">") for path in shown} <= set(listed)
    screenshot(page, "docs")
    watch.assert_clean()


def test_an_address_can_be_tried_with_a_key(docs_page: tuple[Page, Watch]) -> None:
    """The key goes to this host as a header and is not stored; the page shows the reply."""
    page, watch = docs_page

    page.get_by_role("button", name="Authorize").first.click()
    box = page.locator(".auth-container", has_text="administrator")
    box.get_by_role("textbox").fill(KEY)
    box.get_by_role("button", name="Apply credentials").click()
    page.get_by_role("button", name="Close").first.click()
    block = page.locator(".opblock", has_text="/api/ws/connections")
    block.locator(".opblock-summary-control").click()
    block.get_by_role("button", name="Try it out").click()
    block.get_by_role("button", name="Execute").click()

    answer = block.locator(".live-responses-table .response")
    expect(answer).to_contain_text("200", timeout=TIMEOUT)
    expect(answer).to_contain_text('"connections": []')
    screenshot(page, "docs-tried")
    watch.assert_clean()
    assert page.evaluate("JSON.stringify(Object.values(localStorage)) + document.cookie") == "[]"
