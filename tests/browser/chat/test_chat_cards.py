"""Buttons in an answer of the chat page: the choices of a form, and the cards that an app writes."""

from __future__ import annotations

import json

import pytest
from playwright.sync_api import expect

from config.texts import ZH
from demo.mocks.dify.features.asking_back import rest
from demo.mocks.dify.server import MockDify, expected_answer
from tests.browser.chat.chat_visitor import Visitor, shown_words, slow_dify, visitor
from tests.browser.chat.test_chat_frames import DONE, FakeServer, asked, delta, pages_url, server, whole
from tests.browser.stage import screenshot

__all__ = ["pages_url", "server", "slow_dify", "visitor"]

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240)]

FORM = "5f0c3a9b1d7e42886f2a4c1d"
CHOICES = [{"title": title, "choice": f"{FORM} {place}"} for place, title in enumerate(("同意", "驳回"))]
LISTS = {
    "card_type": "multiple_interaction",
    "main_title": {"title": "订会议室"},
    "select_list": [
        {
            "question_key": "room",
            "title": "房间",
            "option_list": [{"id": "1", "text": "大"}, {"id": "2", "text": "小"}],
        },
        {"question_key": "day", "title": "日期", "selected_id": "mon", "option_list": [{"id": "mon", "text": "周一"}]},
    ],
    "submit_button": {"text": "提交", "key": "订会议室"},
}


@pytest.mark.scenario
def test_the_choices_of_a_form_are_buttons(visitor: Visitor, slow_dify: MockDify) -> None:
    """One press submits the choice and continues the run; the buttons then show which, also after a reload."""
    turn = visitor.asks("报销要什么材料 [[form]]")
    text = visitor.sees_end(turn)
    screenshot(visitor.page, "chat-form")
    before = len(slow_dify.forms.submissions)
    buttons = turn.locator(".theirs .card-buttons button")
    assert buttons.all_text_contents() == ["同意", "驳回", "转交财务"]
    assert "要怎么处理？" in text
    assert ZH["form_choose"] not in text
    assert "2." not in text

    buttons.nth(1).click()
    answer = visitor.turns.nth(1)

    assert shown_words(rest("报销要什么材料", "驳回")) == shown_words(visitor.sees_end(answer))
    assert [action for _, action, _ in slow_dify.forms.submissions[before:]] == ["reject"]
    expect(answer.locator(".mine .words")).to_have_text("驳回")
    for _ in range(2):
        expect(buttons.nth(1)).to_have_attribute("aria-pressed", "true")
        assert [button.is_disabled() for button in buttons.all()] == [True, True, True]
        screenshot(visitor.page, "chat-form-chosen")
        visitor.comes_back()


@pytest.mark.scenario
def test_a_form_that_asks_for_texts_has_fields(visitor: Visitor, slow_dify: MockDify) -> None:
    """They go with the choice, and the question shows them; a text that is not given is the form's default."""
    turn = visitor.asks("报销要什么材料 [[form-inputs]]")
    text = visitor.sees_end(turn)
    before = len(slow_dify.forms.submissions)
    assert "priority" not in text
    turn.get_by_label("comment").fill("发票齐了\n可以报")
    turn.get_by_label("priority").select_option("high")
    screenshot(visitor.page, "chat-form-fields")
    turn.get_by_role("button", name="同意").click()

    answer = visitor.turns.nth(1)
    visitor.sees_end(answer)
    [(_, action, given)] = slow_dify.forms.submissions[before:]
    assert (action, given) == ("approve", {"comment": "发票齐了\n可以报", "priority": "high"})
    expect(answer.locator(".mine .words")).to_have_text("同意\ncomment: 发票齐了\n可以报\npriority: high")
    expect(turn.locator(".form-choices textarea")).to_have_count(0)


@pytest.mark.scenario
def test_a_card_in_an_answer_has_buttons(visitor: Visitor) -> None:
    """The JSON is never seen; a button asks its key."""
    turn = visitor.asks("能问什么 [[card]]")
    text = visitor.sees_end(turn)
    screenshot(visitor.page, "chat-card")
    card = turn.locator(".app-card")

    assert "card_type" not in text
    assert "常见问题" in card.inner_text()
    assert card.get_by_role("button").all_text_contents() == ["年假", "报销"]
    card.get_by_role("button", name="报销").click()
    answer = visitor.turns.nth(1)
    assert shown_words(expected_answer("报销需要哪些材料")) == shown_words(visitor.sees_end(answer))
    expect(answer.locator(".mine .words")).to_have_text("报销需要哪些材料")


def test_a_form_that_took_no_choice_is_open_again(server: FakeServer) -> None:
    """After FORM_UNSENT the buttons can be pressed; after FORM_ANSWERED they cannot."""
    turn, _ = asked(server)
    server.says(whole("同意吗？", html="<p>同意吗？</p>", choices=CHOICES), DONE)
    button = turn.locator(".card-buttons button").first
    for count, (code, is_open) in enumerate((("FORM_UNSENT", True), ("FORM_ANSWERED", False)), 2):
        button.click()
        expect(button).to_be_disabled()
        frame = server.receives(count)[-1]
        assert (frame["content"], frame["choice"], frame["conversation"]) == ("同意", f"{FORM} 0", True)
        server.says({"type": "chat", "role": "user", "content": "同意", "id": frame["id"], "stream_id": f"s{count}"})
        server.says({"type": "error", "code": code, "content": "没有收到", "stream_id": f"s{count}"})
        server.says({"type": "typing", "status": False, "stream_id": f"s{count}"})
        answer = server.page.locator(".turn").nth(count - 1)
        expect(answer).to_have_attribute("data-state", "error")
        expect(button).to_be_enabled() if is_open else expect(button).to_be_disabled()
        expect(answer.locator(".note button")).to_have_count(int(is_open))
        expect(answer.locator(".mine .edit")).to_have_count(0)


def test_a_cards_lists_go_with_its_button(server: FakeServer) -> None:
    """A line for each list, as a click in WeCom has; a block that is no card stays code, markup is text."""
    turn, _ = asked(server)
    title = {"main_title": {"title": "<b>x</b>"}, "card_action": {"type": 1, "url": "javascript:alert(1)"}}
    blocks = [LISTS, {"card_type": "text_notice", **title}, {"card_type": "other"}]
    for number, block in enumerate(blocks):
        code = json.dumps(block).replace("<", "&lt;")
        html = f'<pre class="code" data-language="wecom-card"><code>{code}</code></pre>'
        server.says(delta(code, html, cursor=number + 1, block=number))
    cards = turn.locator(".app-card")
    expect(cards).to_have_count(2)
    expect(turn.locator(".code-box")).to_be_hidden()
    server.says(DONE)

    expect(turn.locator(".code-box")).to_be_visible()
    expect(cards.nth(1)).to_have_text("<b>x</b>")
    assert cards.nth(1).locator("a").count() == 0
    cards.first.get_by_label("小").check()
    cards.first.get_by_role("button", name="提交").click()
    assert server.receives(2)[-1]["content"] == "订会议室\nroom: 2\nday: mon"
