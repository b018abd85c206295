"""Results on the batch page: a task that failed in part, its failed questions asked again, and rows that open."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Route, expect

from config.texts import ZH
from demo.mocks.dify.server import MockDify
from tests.browser.batch.batch_visitor import QUESTION, REFUSED, Enters, asks, saved, sees
from tests.browser.stage import PHONE, TIMEOUT, screenshot
from tests.support.pictures import png
from tests.support.servers.processes import wait_until
from tests.support.servers.raw_server import RawServer
from tests.unit.http.test_fetcher import ok

pytestmark = [pytest.mark.browser, pytest.mark.scenario, pytest.mark.timeout(240)]

FAILURE = ZH["provider_rejected"]
WIDTHS = "() => [...document.querySelectorAll('#bar > div')].map((one) => one.style.width)"


@pytest.fixture
def refusing(dify: MockDify) -> Iterator[MockDify]:
    """A Dify that refuses questions without a marker."""
    dify.default = "400-invalid_param"
    yield dify
    dify.default = "normal"


def test_a_partly_failed_task_looks_so_and_is_asked_again(enters: Enters, refusing: MockDify) -> None:
    """Badge, bar and counts show both parts; filter and download have the failed ones, which a click asks again."""
    with enters() as page:
        asks(page, "[[normal]] 年假", "报销", "[[normal]] 营业时间", "年假", name="一半")
        sees(page, "partly")
        expect(page.locator("#task-status")).to_have_text("部分失败")
        expect(page.locator("#tasks [aria-current=true] .tag")).to_have_text("部分失败")
        expect(page.locator("#counts")).to_have_text("已处理 4/4 · 失败 2")
        assert page.evaluate(WIDTHS) == ["50%", "50%", "0%"]
        screenshot(page, "batch-partly")

        page.get_by_role("button", name="失败 2", exact=True).click()
        expect(page.locator(".line-row .asked .clip")).to_have_text(["报销", "年假"])
        expect(page.get_by_text(FAILURE)).to_have_count(2)
        lines = saved(page, "jsonl").path().read_text("utf-8").splitlines()
        assert [json.loads(line)["index"] for line in lines] == [1, 3]
        refusing.default = "normal"
        page.locator("#retry").click()

        sees(page, "completed")
        expect(page.locator("#counts")).to_have_text("已处理 4/4")
        expect(page.locator(".line-row .tag")).to_have_text(["已完成"] * 4)
        expect(page.locator("#retry")).to_be_hidden()


def test_a_failure_is_told_once_in_the_pages_language(enters: Enters) -> None:
    """The row has the reason and no other place has; in English it is the page's own sentence for the code."""
    with enters() as page:
        asks(page, REFUSED)
        sees(page, "failed")
        page.locator(".open").click()
        expect(page.locator(".result")).to_be_visible()
        expect(page.get_by_text(FAILURE)).to_have_count(1)

        page.get_by_role("button", name="English").click()

        expect(page.locator(".line-row .answer")).to_have_text(re.compile("^The answering service did not accept"))
        expect(page.get_by_text(FAILURE)).to_have_count(0)
        expect(page.locator("#retry")).to_have_text("Ask the failed one again")


def test_a_row_opens_to_the_whole_answer(enters: Enters) -> None:
    """It has the answer as the server renders it, the sources, and the figures; markup of an answer runs nothing.

    The gateway shows the picture of another host; a page that asked the host itself would not be clean.
    """
    with enters() as page, RawServer(ok(png())) as host:
        markup = '<img src=x onerror="document.title=1"><script>document.title=2</script>'
        asks(page, QUESTION, f"[[echo]] **fett** ![房子]({host.url}/a.png) {markup}")
        sees(page, "completed")
        expect(page.locator(".result")).to_have_count(0)
        page.locator(".open").nth(0).click()
        page.locator(".line-row").nth(1).click()

        first, second = page.locator(".result").nth(0), page.locator(".result").nth(1)
        expect(first.locator(".blocks ol > li")).to_have_count(4, timeout=TIMEOUT)
        expect(first.locator(".sources li")).to_have_count(1)
        expect(first.locator(".facts")).to_contain_text("tokens")
        expect(second.locator(".blocks strong")).to_have_text("fett", timeout=TIMEOUT)
        picture = second.locator(".picture img")
        expect(picture).to_have_js_property("naturalWidth", 2, timeout=TIMEOUT)
        expect(picture).to_have_attribute("src", re.compile("^/files/u"))
        assert page.locator("[onerror], .result script").count() == 0
        assert page.title() == "来宝 · 批量提问"
        screenshot(page, "batch-row")
        page.locator(".open").nth(0).click()
        expect(first).to_be_hidden()


def test_a_poll_does_not_stop_the_turn_of_a_page(enters: Enters) -> None:
    """The results come although the page polls while they are on their way."""
    held: list[Route] = []
    with enters() as page:
        asks(page, *[f"营业时间 {n}" for n in range(30)])
        sees(page, "completed")
        page.route("**/results?page=2&*", lambda route: held.append(route), times=1)
        page.locator("#later").click()
        wait_until(lambda: page.evaluate("0") or held, timeout=TIMEOUT / 1000)

        page.evaluate("dispatchEvent(new Event('online'))")
        held[0].continue_()

        expect(page.locator("#place")).to_have_text("第 26–30 个，共 30 个")


def test_pages_are_turned_by_keyboard(enters: Enters) -> None:
    """Arrows move between rows and turn pages, Enter opens a row; the field of the page and its size work too."""
    with enters(size=PHONE) as page:
        asks(page, *[f"营业时间 {n}" for n in range(60)])
        sees(page, "completed")
        page.locator(".open").first.focus()
        for key in ("ArrowDown", "Enter"):
            page.keyboard.press(key)
        expect(page.locator(".open").nth(1)).to_be_focused()
        expect(page.locator(".open").nth(1)).to_have_attribute("aria-expanded", "true")

        page.keyboard.press("ArrowRight")
        expect(page.locator("#place")).to_have_text("第 26–50 个，共 60 个")
        expect(page.locator(".open").first).to_be_focused()
        expect(page.locator(".open").nth(1)).to_have_attribute("aria-expanded", "false")
        page.locator("#page").fill("3")
        page.keyboard.press("Enter")
        expect(page.locator("#place")).to_have_text("第 51–60 个，共 60 个")
        expect(page.locator("#later")).to_be_disabled()
        page.locator("#size").select_option("100")
        expect(page.locator("#place")).to_have_text("第 1–60 个，共 60 个")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
