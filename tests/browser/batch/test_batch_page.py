"""The batch page in Chromium, with a replica, Redis and a mock Dify: from a file to its answers."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest
import requests
from playwright.sync_api import Browser, Route, expect

from demo.mocks.dify.server import MockDify
from tests.browser.batch.batch_visitor import KEY, QUESTION, REFUSED, SILENT, Enters, asks, confirms, ends, saved, sees
from tests.browser.pages.test_page_accessibility import WORKABLE, tab_to, walk
from tests.browser.stage import PHONE, TIMEOUT, screenshot, tab
from tests.support.replicas import Replica

pytestmark = [pytest.mark.browser, pytest.mark.scenario, pytest.mark.timeout(240)]

SCRIPT = '<img src=x onerror="document.title=1">'


@pytest.mark.main_story
def test_typed_questions_become_a_table_of_answers(enters: Enters, dify: MockDify, tmp_path: Path) -> None:
    """The bar ends at 100, results are paged in the order of the questions, and both files can be saved."""
    questions = [f"{QUESTION}{n}" for n in range(29)] + [SCRIPT]
    with enters() as page:
        asks(page, *questions, "  ", name="常见问题")
        sees(page, "completed")

        expect(page.locator("#task-name")).to_be_focused()
        bar = page.get_by_role("progressbar", name="常见问题")
        expect(bar).to_have_attribute("aria-valuenow", "100")
        expect(bar).to_have_attribute("aria-valuetext", "已处理 30/30")
        expect(page.locator("#counts")).to_have_text("已处理 30/30")
        expect(page.locator("#announcer")).to_have_text("常见问题：已完成")
        rows = page.locator(".line-row")
        expect(rows).to_have_count(25)
        expect(rows.nth(3).locator("td")).to_have_text(["4", questions[3], re.compile("^年假申请分四步"), "已完成"])
        expect(page.locator("#figures")).to_have_text(re.compile(r"[\d,]+ tokens · [\d.]+ USD"))
        screenshot(page, "batch-done")
        page.locator("#later").click()
        expect(page.locator("#place")).to_have_text("第 26–30 个，共 30 个")
        expect(rows).to_have_count(5)
        expect(rows.nth(4).locator("td").nth(1)).to_have_text(SCRIPT)
        assert page.title() == "来宝 · 批量提问"
        table, lines = saved(page, "csv"), saved(page, "jsonl")
        expect(page.locator("#tasks li")).to_contain_text(["常见问题"])
        assert (table.suggested_filename, lines.suggested_filename) == ("常见问题.csv", "常见问题.jsonl")
        with table.path().open(encoding="utf-8-sig", newline="") as file:
            assert [row["text"] for row in csv.DictReader(file)] == questions
        items = [json.loads(line) for line in lines.path().read_text("utf-8").splitlines()]
        assert [item["content"] for item in items] == [dify.expected_answer(question) for question in questions]


def test_a_task_is_paused_found_again_and_cancelled(enters: Enters) -> None:
    """A reload shows the task of the id in the URL; cancelling it cancels all its unanswered questions."""
    with enters() as page:
        asks(page, *[SILENT] * 30, name="慢")
        sees(page, "running")
        page.locator("#pause").click()
        sees(page, "paused")
        assert re.search("#[0-9a-f-]{36}$", page.url)
        assert KEY not in page.url

        page.reload()
        sees(page, "paused")
        page.locator("#resume").click()
        sees(page, "running")
        expect(page.locator("#counts")).to_contain_text("进行中 20")
        ends(page)

        expect(page.locator("#counts")).to_have_text("已处理 0/30 · 取消 30")
        expect(page.locator("#cancel")).to_be_hidden()
        expect(page.locator("#tasks [aria-current=true] .tag")).to_have_text("已取消")


def test_without_keys_a_browser_has_its_own_tasks(chromium: Browser, open_replica: Replica) -> None:
    """Where everybody may ask, another visitor neither sees them in the list nor opens them by their address."""
    with tab(chromium, open_replica.url) as (ann, watch), tab(chromium, open_replica.url) as (bob, _):
        ann.goto(f"{open_replica.url}/batch")
        asks(ann, QUESTION, name="安的任务")
        sees(ann, "completed")
        ann.reload()
        sees(ann, "completed")
        expect(ann.locator("#tasks li")).to_have_count(1)
        bob.goto(f"{open_replica.url}/batch")
        expect(bob.locator("#state")).to_have_attribute("data-state", "open")
        expect(bob.locator("#none")).to_be_visible()
        # A document of its own: the address alone differs in nothing but the fragment.
        bob.goto("about:blank")
        bob.goto(ann.url)
        expect(bob.locator("#refused")).to_have_text("任务不存在")
        expect(bob.locator("#tasks li")).to_have_count(0)
        watch.assert_clean()


def test_an_unknown_task_leads_to_the_form(chromium: Browser, replica: Replica) -> None:
    """The page shows the server's sentence and the form of a new task; the connection is not lost."""
    with tab(chromium, replica.url) as (page, watch):
        page.add_init_script(f"sessionStorage.setItem('wechatlaibao.key', {json.dumps(KEY)})")
        page.goto(f"{replica.url}/batch#11111111-2222-4333-8444-555555555555")
        expect(page.locator("#refused")).to_have_text("任务不存在")
        expect(page.locator("#new")).to_be_visible()
        expect(page.locator("#state")).to_have_attribute("data-state", "open")
        assert [line for line in watch.errors if "404" not in line] == []


def test_a_lost_reply_submits_nothing_twice(chromium: Browser, replica: Replica) -> None:
    """The server created the task, but the page got no reply: submitting again finds the same task."""

    def break_off(route: Route) -> None:
        route.fetch()
        route.abort()

    with tab(chromium, replica.url) as (page, watch):
        page.add_init_script(f"sessionStorage.setItem('wechatlaibao.key', {json.dumps(KEY)})")
        page.goto(f"{replica.url}/batch")
        page.route("**/api/batch/tasks", break_off, times=1)
        page.locator("#questions").fill(QUESTION)
        page.locator("#name").fill("一次")
        page.locator("#start").click()
        expect(page.locator("#not-taken")).to_have_text("没有连上服务，请再试一次；不会重复提交。")
        page.locator("#start").click()
        sees(page, "completed")
        assert [line for line in watch.errors if "net::ERR_FAILED" not in line] == []

    listed = requests.get(f"{replica.url}/api/batch/tasks", headers={"X-API-Key": KEY}, timeout=30).json()["data"]
    assert [task["name"] for task in listed["tasks"]].count("一次") == 1


def test_an_outage_is_shown_and_ends_by_itself(chromium: Browser, replica: Replica) -> None:
    """The badge shows the seconds until the next try; the page connects again without a click."""
    with tab(chromium, replica.url) as (page, watch):
        page.add_init_script(f"sessionStorage.setItem('wechatlaibao.key', {json.dumps(KEY)})")
        page.route("**/api/batch/**", lambda route: route.abort())
        page.goto(f"{replica.url}/batch")
        expect(page.locator("#state")).to_have_text(re.compile(r"连接断开，\d+ 秒后重连"))
        page.unroute_all()
        expect(page.locator("#state")).to_have_attribute("data-state", "open")
        assert [line for line in watch.errors if "net::ERR_FAILED" not in line] == []


def test_a_task_is_deleted_after_a_confirmation(enters: Enters, replica: Replica) -> None:
    """Escape keeps the task; the confirmed deletion removes it from the list and from the server."""
    with enters() as page:
        asks(page, QUESTION, name="旧任务")
        sees(page, "completed")
        task_id = page.url.partition("#")[2]
        page.locator("#purge").click()
        expect(page.locator("#confirm")).to_contain_text("“旧任务”和它的全部回答会永远删除")
        page.keyboard.press("Escape")
        expect(page.locator("#confirm")).to_be_hidden()
        expect(page.locator("#task")).to_be_visible()

        confirms(page, "#purge")

        expect(page.locator("#new-title")).to_be_focused(timeout=TIMEOUT)
        expect(page.locator("#tasks")).not_to_contain_text("旧任务")
        url = f"{replica.url}/api/batch/tasks/{task_id}"
        assert requests.get(url, headers={"X-API-Key": KEY}, timeout=30).status_code == 404


def test_tab_reaches_every_control_of_a_task(enters: Enters) -> None:
    """Questions are asked by keyboard, and every control of the results is reached with a visible focus."""
    with enters(size=PHONE) as page:
        tab_to(page, "#questions")
        page.keyboard.insert_text(f"{QUESTION}\n{REFUSED}\n{SILENT}\nx")
        tab_to(page, "#start")
        page.keyboard.press("Enter")
        expect(page.locator("#counts")).to_have_text(re.compile("已处理 3/4 · 失败 1"), timeout=TIMEOUT)
        for place in (0, 1):
            page.locator(".open").nth(place).press("Enter")
        expect(page.locator(".blocks li").first).to_be_visible(timeout=TIMEOUT)

        stops = walk(page)

        assert [stop["what"] for stop in stops if not stop["shown"] and stop["what"] != "file"] == []
        assert page.locator("[data-reached=control]").count() == page.evaluate(WORKABLE)
        ends(page)
