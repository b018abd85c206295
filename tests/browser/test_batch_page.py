"""The batch page in Chromium, with a replica, Redis and a mock Dify: from a file to its answers."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path

import pytest
import requests
from playwright.sync_api import Browser, Download, Page, Route, expect

from demo.mocks.dify.server import MockDify
from tests.browser.stage import LAPTOP, PHONE, TIMEOUT, screenshot, tab
from tests.browser.test_page_accessibility import WORKABLE, colours, names, tab_to, unreadable, walk
from tests.support.replicas import Replica, dify_settings, replicas, settings_for
from tests.support.servers.processes import RedisServer
from tests.unit.questions.test_question_files import workbook

pytestmark = [pytest.mark.browser, pytest.mark.scenario, pytest.mark.timeout(240)]

KEY = "sk-page-key-not-real"
QUESTION = "年假怎么申请？"
#: A question that Dify never answers; its task is cancelled.
SILENT = "[[silent]] 年假"
SCRIPT = '<img src=x onerror="document.title=1">'

Enters = Callable[..., AbstractContextManager[Page]]


@pytest.fixture(scope="module")
def dify() -> Iterator[MockDify]:
    with MockDify() as dify:
        yield dify


@pytest.fixture(scope="module")
def replica(redis_server: RedisServer, dify: MockDify, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replica]:
    """A replica that requires a key, with slots enough for the tests' unanswered questions."""
    folder = tmp_path_factory.mktemp("batch-page")
    settings = {"DATABASE_PATH": str(folder / "laibao.db"), "BATCH_MAX_CONCURRENT": "20", "APP_NAME": "来宝"}
    limits = {"WEBSOCKET_AUTH": "key", "API_KEYS": KEY, "RATE_LIMIT_USER": "off", "RATE_LIMIT_IP": "off"}
    env = settings_for(redis_server.url(5), **dify_settings(dify.base_url), **settings, **limits)
    with replicas(1, env, folder) as (replica,):
        yield replica


@contextmanager
def open_page(
    chromium: Browser, replica: Replica, *, size: tuple[int, int] = LAPTOP, dark: bool = False, path: str = "/batch"
) -> Iterator[Page]:
    """Open the page in a tab that has the key; it must have no errors and no requests to other hosts."""
    with tab(chromium, replica.url, size=size, dark=dark) as (page, watch):
        page.add_init_script(f"sessionStorage.setItem('wechatlaibao.key', {json.dumps(KEY)})")
        page.goto(replica.url + path)
        expect(page.locator("#state")).to_have_attribute("data-state", "open", timeout=TIMEOUT)
        yield page
        watch.assert_clean()


@pytest.fixture
def enters(chromium: Browser, replica: Replica) -> Enters:
    return partial(open_page, chromium, replica)


def asks(page: Page, *questions: str, name: str = "") -> None:
    """Type questions and submit them."""
    page.locator("#questions").fill("\n".join(questions))
    page.locator("#name").fill(name)
    page.locator("#start").click()
    expect(page.locator("#task")).to_be_visible(timeout=TIMEOUT)


def sees(page: Page, status: str) -> None:
    """Wait until the task has a status."""
    expect(page.locator("#task")).to_have_attribute("data-status", status, timeout=TIMEOUT)


def ends(page: Page) -> None:
    """Cancel the task and confirm it."""
    page.once("dialog", lambda dialog: dialog.accept())
    page.locator("#cancel").click()
    sees(page, "cancelled")


def saved(page: Page, button: str) -> Download:
    with page.expect_download() as download:
        page.locator(button).click()
    return download.value


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
        rows = page.locator("#rows tr")
        expect(rows).to_have_count(25)
        expect(rows.nth(3).locator("td")).to_have_text(["4", questions[3], "已完成", re.compile("年假申请")])
        screenshot(page, "batch-done")
        page.locator("#later").click()
        expect(page.locator("#place")).to_have_text("第 26–30 个，共 30 个")
        expect(rows).to_have_count(5)
        expect(rows.nth(4).locator("td").nth(1)).to_have_text(SCRIPT)
        table, lines = saved(page, "#csv"), saved(page, "#jsonl")
        expect(page.locator("#tasks li")).to_contain_text(["常见问题"])
        assert (table.suggested_filename, lines.suggested_filename) == ("常见问题.csv", "常见问题.jsonl")
        with table.path().open(encoding="utf-8-sig", newline="") as file:
            assert [row["text"] for row in csv.DictReader(file)] == questions
        items = [json.loads(line) for line in lines.path().read_text("utf-8").splitlines()]
        assert [item["content"] for item in items] == [dify.expected_answer(question) for question in questions]


@pytest.mark.parametrize("way", ["chosen", "dropped"])
def test_a_file_becomes_a_task(enters: Enters, way: str, tmp_path: Path) -> None:
    """A chosen workbook or a dropped text file gives its name to the task; a chosen file can be removed again."""
    with enters() as page:
        if way == "chosen":
            file = tmp_path / "问题.xlsx"
            file.write_bytes(workbook([["id", "问题"], [1, QUESTION], [2, "营业时间"]]))
            page.locator("#file").set_input_files(file)
            page.locator("#forget").click()
            expect(page.locator("#start")).to_be_disabled()
            page.locator("#file").set_input_files(file)
        else:
            moved = page.evaluate_handle(
                """(text) => {
                  const moved = new DataTransfer();
                  moved.items.add(new File([text], "问题.txt"));
                  return moved;
                }""",
                f"{QUESTION}\n营业时间",
            )
            page.dispatch_event("#drop", "drop", {"dataTransfer": moved})
        expect(page.locator("#chosen")).to_contain_text("问题")

        page.locator("#start").click()

        sees(page, "completed")
        expect(page.locator("#task-name")).to_have_text("问题")
        expect(page.locator("#rows td:nth-child(2)")).to_have_text([QUESTION, "营业时间"])


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
        expect(page.locator("#tasks [aria-current=true] + .tag")).to_have_text("已取消")


def test_a_failed_question_shows_the_reason(enters: Enters) -> None:
    """The row has the server's sentence; for a task without any answer it is beside the bar too."""
    with enters() as page:
        asks(page, "[[400-invalid_param]] 一")
        sees(page, "failed")

        expect(page.locator("#rows td:nth-child(4)")).to_contain_text("问答服务没有接受这个问题")
        expect(page.locator("#task-error")).to_contain_text("问答服务没有接受这个问题")
        expect(page.locator("#counts")).to_have_text("已处理 1/1 · 失败 1")


def test_a_key_is_asked_for_and_checked(chromium: Browser, replica: Replica) -> None:
    """A wrong key shows an error; the right one is stored in the tab's sessionStorage only."""
    with tab(chromium, replica.url) as (page, watch):
        page.goto(f"{replica.url}/batch")
        for key, wrong in (("wrong", True), (KEY, False)):
            expect(page.locator("#key")).to_be_visible()
            expect(page.locator("#key-input")).to_be_focused()
            page.locator("#key-input").fill(key)
            page.keyboard.press("Enter")
            if wrong:
                expect(page.locator("#key-wrong")).to_have_text("密钥无效或已过期，请检查后重试。")
        expect(page.locator("#state")).to_have_attribute("data-state", "open")
        expect(page.locator("#key")).to_be_hidden()
        assert page.evaluate("Object.values(sessionStorage)") == [KEY]
        assert page.evaluate("Object.values(localStorage)") == []
        # The console reports each 401; there is no other error.
        assert [line for line in watch.errors + watch.warnings if "401" not in line] == []
        assert watch.foreign == []


def test_errors_of_the_server_are_shown(chromium: Browser, replica: Replica, tmp_path: Path) -> None:
    """An unknown task and a file without questions show the server's sentence; a .pdf is not sent at all."""
    file = tmp_path / "leer.csv"
    file.write_text("question\n\n", "utf-8")
    with tab(chromium, replica.url) as (page, watch):
        page.add_init_script(f"sessionStorage.setItem('wechatlaibao.key', {json.dumps(KEY)})")
        page.goto(f"{replica.url}/batch#11111111-2222-4333-8444-555555555555")
        expect(page.locator("#refused")).to_have_text("任务不存在")
        expect(page.locator("#state")).to_have_attribute("data-state", "open")
        page.locator("#file").set_input_files(file)
        page.locator("#start").click()
        expect(page.locator("#refused")).to_contain_text("There is no text in it.")
        page.locator("#file").set_input_files(tmp_path / "leer.csv")
        (tmp_path / "a.pdf").write_bytes(b"%PDF")
        page.locator("#file").set_input_files(tmp_path / "a.pdf")
        expect(page.locator("#refused")).to_have_text("只能使用 .txt、.csv、.tsv 或 .xlsx 文件。")
        assert [line for line in watch.errors if "404" not in line and "422" not in line] == []


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
        expect(page.locator("#refused")).to_have_text("没有连上服务，请再试一次；不会重复提交。")
        page.locator("#start").click()
        sees(page, "completed")
        assert [line for line in watch.errors if "net::ERR_FAILED" not in line] == []

    listed = requests.get(f"{replica.url}/api/batch/tasks", headers={"X-API-Key": KEY}, timeout=30).json()["data"]
    assert [task["name"] for task in listed["tasks"]].count("一次") == 1


def test_an_outage_is_shown_and_ends_by_itself(chromium: Browser, replica: Replica) -> None:
    """The badge shows the seconds until the next try; the page connects again without a click."""
    with tab(chromium, replica.url) as (page, watch):
        page.add_init_script(f"sessionStorage.setItem('wechatlaibao.key', {json.dumps(KEY)})")
        page.route("**/api/batch/**", lambda route: route.abort(), times=2)
        page.goto(f"{replica.url}/batch")
        expect(page.locator("#state")).to_have_attribute("data-state", "waiting")
        expect(page.locator("#state")).to_have_text(re.compile("连不上服务，[12] 秒后重试"))
        expect(page.locator("#state")).to_have_attribute("data-state", "open")
        assert [line for line in watch.errors if "net::ERR_FAILED" not in line] == []


@pytest.mark.parametrize(("size", "dark"), [(LAPTOP, True), (PHONE, False)], ids=["dark", "phone"])
def test_the_page_is_accessible(enters: Enters, size: tuple[int, int], dark: bool) -> None:
    """All text has enough contrast, Tab reaches every control visibly, each has a name, and nothing overflows."""
    with enters(size=size, dark=dark) as page:
        page.get_by_role("button", name="English").click()
        tab_to(page, "#questions")
        page.keyboard.insert_text(f"{QUESTION}\n[[400-invalid_param]] two\n{SILENT}" + "\nx" * 30)
        assert unreadable(colours(page, "body, body *")) == []
        tab_to(page, "#start")
        page.keyboard.press("Enter")
        expect(page.locator("#counts")).to_have_text(
            re.compile(r"32 of 33 done · 1 failed · 1 running"), timeout=TIMEOUT
        )
        screenshot(page, f"batch-{'dark' if dark else 'phone'}")

        controls = names(page)
        stops = walk(page)

        assert unreadable(colours(page, "body, body *")) == []
        assert unreadable(colours(page, "#questions", "::placeholder")) == []
        assert [name for _, name in controls if not name.strip()] == []
        assert [stop["what"] for stop in stops if not stop["shown"] and stop["what"] != "file"] == []
        assert page.locator("[data-reached=control]").count() == page.evaluate(WORKABLE)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        expect(page.get_by_role("progressbar")).to_have_attribute("aria-valuetext", "32 of 33 done")
        ends(page)
