"""What can be done with finished turns of the chat page: copy, rate, read aloud, regenerate, edit and ask again."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from channels.asking import MAX_CONTENT
from demo.mocks.dify.server import MockDify, expected_answer
from tests.browser.chat.chat_visitor import Visitor, slow_dify, visitor
from tests.browser.stage import TIMEOUT
from tests.support.servers.processes import wait_until

__all__ = ["slow_dify", "visitor"]

pytestmark = [pytest.mark.browser, pytest.mark.scenario, pytest.mark.timeout(240)]


#: The ratings that the browser has stored.
RATINGS = """
() => new Promise((done) => {
  const request = indexedDB.open("wechatlaibao.chat", 1);
  request.onsuccess = () => {
    const turns = request.result.transaction("turns").objectStore("turns").getAll();
    turns.onsuccess = () => {
      request.result.close();
      done(turns.result.map(({ rating }) => rating));
    };
  };
})
"""


def test_thumbs_reach_dify_and_are_withdrawn(visitor: Visitor, slow_dify: MockDify) -> None:
    """The last press counts, pressing again withdraws, and the rating is shown after a reload."""
    turn = visitor.asks("营业时间？评价")
    visitor.sees_end(turn)
    good, bad = (turn.get_by_role("button", name=name, exact=True) for name in ("有帮助", "没有帮助"))
    known = len(slow_dify.ratings)

    def last(rating: str | None) -> None:
        wait_until(lambda: [one[1] for one in slow_dify.ratings[known:]][-1:] == [rating], timeout=60.0)

    good.click()
    last("like")
    bad.click()
    last("dislike")
    expect(good).to_have_attribute("aria-pressed", "false")
    # The store answers in order: a reload does not stop what was written before.
    assert visitor.page.evaluate(RATINGS) == ["dislike"]
    visitor.comes_back()
    expect(bad).to_have_attribute("aria-pressed", "true")
    bad.click()
    last(None)
    expect(bad).to_have_attribute("aria-pressed", "false")


def test_an_answer_is_copied_as_markdown(visitor: Visitor) -> None:
    """The clipboard has the answer's text, and screen readers hear of it."""
    visitor.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    turn = visitor.asks("报销需要哪些材料")
    visitor.sees_end(turn)

    expect(visitor.page.locator("#announcer")).to_contain_text("回答")
    turn.get_by_role("button", name="复制", exact=True).click()

    expect(visitor.page.locator("#announcer")).to_have_text("已复制")
    assert visitor.page.evaluate("navigator.clipboard.readText()") == expected_answer("报销需要哪些材料")


def test_one_answer_is_read_aloud_until_it_is_pressed_again(visitor: Visitor) -> None:
    """Also where answers are not read by themselves; the button is pressed while it is read."""
    turn = visitor.asks("营业时间")
    visitor.sees_end(turn)
    read = turn.get_by_role("button", name="朗读", exact=True)
    assert visitor.page.evaluate("fakeSpeech.spoken") == []

    read.click()
    spoken = wait_until(lambda: visitor.page.evaluate("fakeSpeech.spoken"), timeout=30.0)
    assert [one["text"] for one in spoken] == ["周一至周五 9:00-18:00"]
    expect(read).to_have_attribute("aria-pressed", "true")
    read.click()
    expect(read).to_have_attribute("aria-pressed", "false")


def test_the_last_answer_is_regenerated(visitor: Visitor, slow_dify: MockDify) -> None:
    """The question is asked anew in its place; only the last turn can."""
    first = visitor.asks("营业时间？第一")
    visitor.sees_end(first)
    second = visitor.asks("营业时间？第二")
    visitor.sees_end(second)
    expect(first.get_by_role("button", name="重新生成")).to_be_hidden()

    second.get_by_role("button", name="重新生成").click()

    wait_until(lambda: visitor.page.evaluate("0") or len(slow_dify.asked("营业时间？第二")) == 2, timeout=60.0)
    expect(visitor.turns).to_have_count(2)
    visitor.sees_end(visitor.turns.last)
    assert len(slow_dify.asked("营业时间？第一")) == 1


def test_a_question_is_edited_and_asked_again(visitor: Visitor, slow_dify: MockDify) -> None:
    """What follows it leaves the page, which says so before; a running answer is stopped; a reload shows the same."""
    first = visitor.asks("营业时间？原来")
    visitor.sees_end(first)
    running = visitor.asks("[[slow]] 年假怎么申请？原来")
    expect(running.locator(".blocks")).to_contain_text("年假申请")
    stops = len(slow_dify.stops)

    first.hover()
    first.get_by_role("button", name="编辑问题").click()
    expect(first.locator("form.edit")).to_contain_text("后面的 1 个问答会从页面上移除")
    first.get_by_role("textbox", name="编辑问题").fill("营业时间？改过")
    first.get_by_role("button", name="重新提问").click()

    expect(visitor.turns).to_have_count(1)
    expect(visitor.turns.locator(".mine .words")).to_have_text("营业时间？改过")
    visitor.sees_end(visitor.turns)
    wait_until(lambda: len(slow_dify.stops) > stops, timeout=60.0)
    visitor.comes_back()
    expect(visitor.turns.locator(".mine .words")).to_have_text(["营业时间？改过"])


def test_escape_leaves_a_question_as_it_was(visitor: Visitor) -> None:
    """The focus returns to the button, and nothing is asked."""
    turn = visitor.asks("营业时间")
    visitor.sees_end(turn)
    turn.hover()
    turn.get_by_role("button", name="编辑问题").click()
    turn.get_by_role("textbox").fill("别的")

    visitor.page.keyboard.press("Escape")

    expect(turn.get_by_role("button", name="编辑问题")).to_be_focused()
    expect(turn.locator(".mine .words")).to_have_text("营业时间")
    expect(visitor.turns).to_have_count(1)


def test_a_question_that_is_too_long_is_refused_in_words(visitor: Visitor) -> None:
    """It stays in the field whole, with a count; at the server's limit it is asked."""
    page = visitor.page
    field = page.locator("#question")
    field.fill("😀" * (MAX_CONTENT + 1))
    expect(page.locator("#count")).to_have_text("10,001 / 10,000")
    field.press("Enter")

    expect(page.locator("#refusal")).to_have_text("最多 10,000 个字，现在有 10,001 个。请缩短后再发送。")
    expect(visitor.turns).to_have_count(0)
    assert len(field.input_value()) == MAX_CONTENT + 1

    field.fill("😀" * MAX_CONTENT)
    expect(page.locator("#refusal")).to_be_hidden()
    field.press("Enter")
    expect(visitor.turns).to_have_attribute("data-state", "completed", timeout=TIMEOUT)
