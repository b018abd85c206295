"""The chat page's conversations in Chromium: they outlive the tab, and several tabs share them."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from demo.mocks.dify.server import MockDify, expected_answer
from tests.browser.chat.chat_visitor import FAKE_SPEECH, Visitor, replica_for, shown_words, slow_dify, visitor
from tests.browser.stage import PHONE, TIMEOUT, screenshot, tab
from tests.support.replicas import Replica
from tests.support.servers.processes import RedisServer

__all__ = ["slow_dify", "visitor"]

pytestmark = [pytest.mark.browser, pytest.mark.scenario, pytest.mark.timeout(240)]

#: Refuse the database, as browsers do where a person allows no storage.
REFUSED = "Object.defineProperty(globalThis, 'indexedDB', { get() { throw new DOMException('', 'SecurityError'); } });"
#: Abort every transaction that writes, as a full storage does.
FULL = """const put = IDBObjectStore.prototype.put;
IDBObjectStore.prototype.put = function (record) {
  const request = put.call(this, record);
  queueMicrotask(() => this.transaction.abort());
  return request;
};"""


def another_tab(visitor: Visitor) -> Visitor:
    """Open the page in another tab of the same browser, without a conversation."""
    page = visitor.page.context.new_page()
    visitor.watch.follow(page)
    return Visitor(page, visitor.watch).opens().is_connected()


def chats(page: Page) -> Locator:
    return page.locator("#chats-list li")


def opens(visitor: Visitor, title: str) -> None:
    chats(visitor.page).locator(".chat-open", has_text=title).click()
    expect(visitor.page.locator("#chats-list li:has([aria-current])")).to_contain_text(title, timeout=TIMEOUT)
    visitor.is_connected()


def begins_anew(visitor: Visitor) -> None:
    visitor.page.get_by_role("button", name="新对话").click()
    expect(visitor.turns).to_have_count(0, timeout=TIMEOUT)
    visitor.is_connected()


def actions(page: Page, title: str, name: str) -> Locator:
    """Return a button of a conversation's actions, which are shown."""
    item = chats(page).filter(has_text=title)
    item.get_by_role("button", name="操作").click()
    return item.get_by_role("button", name=name)


@pytest.mark.main_story
def test_a_conversation_outlives_its_tab(visitor: Visitor, slow_dify: MockDify) -> None:
    """Opened in another tab it has its turns, and Dify's history goes on."""
    before = visitor.sees_end(visitor.asks("营业时间？留下"))
    visitor.page.close()

    later = another_tab(visitor)
    expect(later.turns).to_have_count(0)
    opens(later, "营业时间？留下")
    assert later.sees_end(later.turns.first) == before
    later.sees_end(later.asks("周末呢？留下"))

    [asked] = slow_dify.asked("周末呢？留下")
    runs = slow_dify.runs.turns(asked.body["conversation_id"])
    assert [run.query for run in runs] == ["营业时间？留下", "周末呢？留下"]


def test_conversations_are_found_renamed_exported_and_deleted(visitor: Visitor) -> None:
    """The search also looks into answers; what is deleted is gone after a reload."""
    page = visitor.page
    visitor.sees_end(visitor.asks("报销需要哪些材料"))
    begins_anew(visitor)
    visitor.sees_end(visitor.asks("营业时间"))
    expect(chats(page)).to_have_count(2)

    page.locator("#question").press("Control+k")
    expect(page.get_by_role("searchbox")).to_be_focused()
    page.get_by_role("searchbox").fill("发票")
    expect(chats(page)).to_have_count(1)
    expect(chats(page)).to_contain_text("报销需要哪些材料")
    actions(page, "报销", "重命名").click()
    page.locator(".chat-name").fill("费用")
    page.locator(".chat-name").press("Enter")
    expect(chats(page).locator(".chat-title")).to_have_text("费用")

    with page.expect_download() as download:
        actions(page, "费用", "导出").click()
    text = Path(download.value.path()).read_text("utf-8")
    assert download.value.suggested_filename == "费用.md"
    assert text.startswith("# 费用\n")
    assert "> 报销需要哪些材料\n" in text
    assert expected_answer("报销需要哪些材料") in text
    assert "- 员工手册 · handbook.md" in text

    chats(page).get_by_role("button", name="删除").click()
    expect(page.locator("#confirm")).to_contain_text("“费用”会从这个浏览器里永远删除")
    screenshot(page, "chat-delete")
    page.keyboard.press("Escape")
    expect(chats(page)).to_have_count(1)
    chats(page).get_by_role("button", name="删除").click()
    page.locator("#confirm-yes").click()
    expect(chats(page)).to_have_count(0)
    expect(page.locator("#chats-none:visible")).to_have_text("没有找到。")
    visitor.comes_back()
    expect(chats(page).locator(".chat-title")).to_have_text(["营业时间"])


def test_a_running_answer_resumes_when_its_conversation_is_opened(
    chromium: Browser, redis_server: RedisServer, slow_dify: MockDify, tmp_path: Path
) -> None:
    """Also when the replica was killed while another conversation was shown; the question is not asked twice here."""
    with (
        replica_for(redis_server, slow_dify, tmp_path) as replica,
        tab(chromium, replica.url) as (page, watch),
    ):
        visitor = Visitor(page, watch).opens().is_connected()
        question = "[[slow]] 年假怎么申请？后台"
        expect(visitor.asks(question).locator(".blocks")).to_contain_text("年假申请")
        begins_anew(visitor)
        expect(chats(page).filter(has_text="后台")).to_contain_text("回答中")

        replica.kill()
        replica.restart()
        visitor.is_connected()
        visitor.sees_end(visitor.asks("营业时间？前台"))
        opens(visitor, "后台")

        assert shown_words(visitor.sees_end(visitor.turns)) == shown_words(expected_answer(question))
        expect(chats(page).filter(has_text="后台").locator(".tag")).to_have_count(0)
        watch.assert_clean(outages=True)


def test_an_answer_that_ends_elsewhere_is_new_in_the_list(visitor: Visitor) -> None:
    """The list says that it is being written, then that it is new, until it is opened."""
    page = visitor.page
    expect(visitor.asks("[[slow]] 年假怎么申请？不看").locator(".blocks")).to_contain_text("年假申请")
    begins_anew(visitor)
    item = chats(page).filter(has_text="不看")
    expect(item.locator(".tag")).to_have_text("回答中")

    expect(item.locator(".tag")).to_have_text("新回答", timeout=TIMEOUT)
    screenshot(page, "chat-unread")
    visitor.comes_back()
    expect(item.locator(".tag")).to_have_text("新回答")
    opens(visitor, "不看")
    visitor.sees_end(visitor.turns)
    expect(item.locator(".tag")).to_have_count(0)


def test_a_duplicated_tab_goes_on_and_the_first_one_stops(visitor: Visitor) -> None:
    """The first tab stops its dots and says so; its button brings the conversation back, as it is by then."""
    page = visitor.page
    turn = visitor.asks("[[slow]] 年假怎么申请？两个窗口")
    expect(turn.locator(".blocks")).to_contain_text("年假申请")
    with page.context.expect_page() as opened:
        page.evaluate("open(location.href)")
    other = Visitor(opened.value, visitor.watch).is_connected()

    expect(page.locator("#banner")).to_contain_text("这个对话已在别的窗口打开", timeout=TIMEOUT)
    expect(turn.locator(".typing")).to_be_hidden()
    whole = other.sees_end(other.turns.first)
    assert shown_words(whole) == shown_words(expected_answer("年假怎么申请？两个窗口"))
    other.sees_end(other.asks("营业时间"))
    page.get_by_role("button", name="在这里继续").click()

    visitor.is_connected()
    expect(visitor.turns).to_have_count(2)
    assert visitor.sees_end(visitor.turns.first) == whole
    expect(other.page.locator("#banner")).to_be_visible(timeout=TIMEOUT)


def test_a_conversation_deleted_in_another_tab_is_closed(visitor: Visitor) -> None:
    """The tab that shows it says so and begins a new one; the list is empty in both."""
    visitor.sees_end(visitor.asks("营业时间"))
    other = another_tab(visitor)

    actions(other.page, "营业时间", "删除").click()
    other.page.locator("#confirm-yes").click()

    expect(visitor.page.locator("#notice")).to_contain_text("已在别的窗口删除", timeout=TIMEOUT)
    expect(visitor.turns).to_have_count(0)
    visitor.is_connected()
    for page in (visitor.page, other.page):
        expect(page.locator("#chats-none:visible")).to_have_text("还没有对话。")


@pytest.fixture
def limited(chromium: Browser, open_replica: Replica, slow_dify: MockDify, script: str) -> Iterator[Visitor]:
    """A visitor whose browser does not store conversations."""
    with tab(chromium, open_replica.url, scripts=(FAKE_SPEECH,)) as (page, watch):
        page.add_init_script(script)
        yield Visitor(page, watch).opens().is_connected()
        watch.assert_clean()


@pytest.mark.parametrize(
    ("script", "words"), [(REFUSED, "浏览器不允许保存对话"), (FULL, "浏览器的存储空间已满")], ids=["refused", "full"]
)
def test_without_storage_conversations_last_until_the_page_is_closed(limited: Visitor, words: str) -> None:
    """The page says so, answers, and shows earlier conversations until it is reloaded."""
    limited.sees_end(limited.asks("营业时间"))
    expect(limited.page.locator("#notice")).to_contain_text(words)
    begins_anew(limited)
    limited.sees_end(limited.asks("报销需要哪些材料"))
    opens(limited, "营业时间")
    expect(limited.turns.locator(".mine .words")).to_have_text("营业时间")

    limited.comes_back()

    expect(limited.page.locator("#chats-none:visible")).to_have_text("还没有对话。")


def test_a_frozen_server_is_noticed_while_an_answer_is_expected(
    chromium: Browser, redis_server: RedisServer, slow_dify: MockDify, tmp_path: Path
) -> None:
    """The page leaves the state "open" although the connection is established, and the answer comes in the end."""
    with (
        replica_for(redis_server, slow_dify, tmp_path) as replica,
        tab(chromium, replica.url) as (page, watch),
    ):
        visitor = Visitor(page, watch).opens().is_connected()
        turn = visitor.asks("[[slow]] 年假怎么申请？冻结")
        expect(turn.locator(".blocks")).to_contain_text("年假申请")

        os.killpg(replica.process.pid, signal.SIGSTOP)
        try:
            expect(visitor.state).not_to_have_attribute("data-state", "open", timeout=TIMEOUT)
        finally:
            os.killpg(replica.process.pid, signal.SIGCONT)

        visitor.is_connected()
        assert shown_words(visitor.sees_end(turn)) == shown_words(expected_answer("年假怎么申请？冻结"))
        watch.assert_clean(outages=True)


def test_the_list_is_a_drawer_on_a_phone(visitor: Visitor) -> None:
    """It is opened by a button, reachable by keyboard alone, and closed by Escape or a choice."""
    page = visitor.page
    page.set_viewport_size({"width": PHONE[0], "height": PHONE[1]})
    visitor.sees_end(visitor.asks("营业时间"))
    expect(page.locator("#chats")).to_be_hidden()

    page.get_by_role("button", name="打开对话列表").press("Enter")
    expect(page.locator("#chats-close")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.locator("#chats-open")).to_be_focused()
    expect(page.locator("#chats")).to_be_hidden()

    page.keyboard.press("Control+k")
    expect(page.get_by_role("searchbox")).to_be_focused()
    page.locator("#chats").get_by_role("button", name="新对话").click()
    expect(page.locator("#chats")).to_be_hidden()
    expect(visitor.turns).to_have_count(0)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE[0]


def test_a_conversation_has_an_address_and_keeps_its_draft(visitor: Visitor) -> None:
    """Back and forward lead between conversations; a reload, or a look at another one, costs no typed words."""
    page, field = visitor.page, visitor.page.locator("#question")
    visitor.sees_end(visitor.asks("营业时间？第一个"))
    first = page.url
    field.fill("第一个的草稿")
    begins_anew(visitor)
    expect(field).to_have_value("")
    visitor.sees_end(visitor.asks("营业时间？第二个"))
    assert page.url != first
    field.fill("第二个的草稿")

    visitor.comes_back()
    expect(field).to_have_value("第二个的草稿")
    page.go_back()
    expect(visitor.turns.locator(".mine .words")).to_have_text("营业时间？第一个")
    expect(field).to_have_value("第一个的草稿")
    assert page.url == first
    # The browser warns of a socket that is closed before it is open.
    visitor.is_connected()
    page.go_forward()
    expect(visitor.turns.locator(".mine .words")).to_have_text("营业时间？第二个")
    visitor.is_connected()

    other = another_tab(visitor)
    other.page.goto(first)
    expect(other.turns.locator(".mine .words")).to_have_text("营业时间？第一个")
    other.is_connected()
    other.page.goto(f"{other.watch.home}/chat#{'0' * 32}")
    expect(other.turns).to_have_count(0)
    other.is_connected()
    assert not other.page.url.endswith("0" * 32)


def test_arrow_up_edits_the_last_question(visitor: Visitor) -> None:
    """In an empty field; with words in it the cursor moves, as ever."""
    visitor.sees_end(visitor.asks("营业时间？改一改"))
    field = visitor.page.locator("#question")
    field.fill("别的")
    field.press("ArrowUp")
    expect(visitor.page.locator("form.edit")).to_have_count(0)
    field.fill("")
    field.press("ArrowUp")

    expect(visitor.page.locator("form.edit textarea")).to_be_focused()
    expect(visitor.page.locator("form.edit textarea")).to_have_value("营业时间？改一改")
