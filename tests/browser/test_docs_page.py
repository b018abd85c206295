"""/docs in a real Chromium: it shows every REST address, tries one, and its policy has nothing to object to."""

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
    """A replica whose REST addresses want a key."""
    with (
        EmbeddedRedis() as redis,
        AppServer(redis.url, WEBSOCKET_AUTH="key", API_KEYS=KEY, ADMIN_TOKEN=KEY, RATE_LIMIT_IP="off") as app_server,
    ):
        yield app_server.url


@pytest.fixture
def visit(chromium: Browser, home: str) -> Iterator[tuple[Page, Watch]]:
    with tab(chromium, home) as (page, watch):
        page.goto(f"{home}/docs")
        expect(page.locator(".opblock").first).to_be_visible(timeout=TIMEOUT)
        yield page, watch


@pytest.mark.main_story
def test_every_rest_address_is_shown_and_nothing_is_fetched_from_elsewhere(visit: tuple[Page, Watch]) -> None:
    """Two lists on one page, from this host alone, without a word of complaint in the console."""
    page, watch = visit

    blocks = page.locator(".opblock-summary-path").all_text_contents()
    shown = {path.replace("\u200b", "") for path in blocks}
    listed = page.locator("main > table code").all_text_contents()

    assert {"/", "/healthz", "/api/ws/connections", "/api/ws/disconnect/{client_id}", "/api/chat"} <= shown
    assert {path.replace("{", "<").replace("}", ">") for path in shown} <= set(listed)
    screenshot(page, "docs")
    watch.assert_clean()


def test_an_address_can_be_tried_with_a_key(visit: tuple[Page, Watch]) -> None:
    """What is typed into the form goes to this host as a header, and the answer is shown as it came."""
    page, watch = visit

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
