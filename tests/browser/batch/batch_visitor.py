"""What a visitor of the batch page does and sees."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager

from playwright.sync_api import Browser, Download, Page, expect

from tests.browser.stage import LAPTOP, TIMEOUT, tab
from tests.support.replicas import Replica

KEY = "sk-page-key-not-real"
#: Bytes of the largest submission that the replica takes.
LARGEST = 200_000
QUESTION = "年假怎么申请？"
#: A question that Dify never answers; its task is cancelled.
SILENT = "[[silent]] 年假"
#: A question that Dify refuses, so that it fails.
REFUSED = "[[400-invalid_param]] 一"

Enters = Callable[..., AbstractContextManager[Page]]


@contextmanager
def open_page(
    chromium: Browser,
    replica: Replica,
    *,
    size: tuple[int, int] = LAPTOP,
    dark: bool = False,
    refusals: Collection[int] = (),
) -> Iterator[Page]:
    """Open the page in a tab that has the key; it must have no errors and no requests to other hosts.

    `refusals` are the HTTP statuses that the browser may report as errors.
    """
    with tab(chromium, replica.url, size=size, dark=dark) as (page, watch):
        page.add_init_script(f"sessionStorage.setItem('wechatlaibao.key', {json.dumps(KEY)})")
        page.goto(f"{replica.url}/batch")
        expect(page.locator("#state")).to_have_attribute("data-state", "open", timeout=TIMEOUT)
        yield page
        watch.errors = [line for line in watch.errors if not any(f"status of {status}" in line for status in refusals)]
        watch.assert_clean()


def asks(page: Page, *questions: str, name: str = "") -> None:
    """Type questions and submit them."""
    page.locator("#questions").fill("\n".join(questions))
    page.locator("#name").fill(name)
    submits(page)


def submits(page: Page) -> None:
    """Press the button of the form, and wait for the task."""
    page.locator("#start").click()
    expect(page.locator("#task")).to_be_visible(timeout=TIMEOUT)


def sees(page: Page, status: str) -> None:
    """Wait until the task has a status; "partly" is a completed one with failed questions."""
    expect(page.locator("#task")).to_have_attribute("data-status", status, timeout=TIMEOUT)


def confirms(page: Page, button: str) -> None:
    """Press a button and confirm it in the dialog."""
    page.locator(button).click()
    expect(page.locator("#confirm")).to_be_visible()
    page.locator("#confirm-yes").click()


def ends(page: Page) -> None:
    """Cancel the task."""
    confirms(page, "#cancel")
    sees(page, "cancelled")


def saved(page: Page, format: str) -> Download:
    """Download the results that the table shows."""
    with page.expect_download() as download:
        page.locator(f"[data-format={format}]").click()
    return download.value
