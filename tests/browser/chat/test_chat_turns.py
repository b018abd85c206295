"""What the chat page does with its turns, with a fake server: elements of answers, edits, deletion, a replaced page."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from channels.asking import MAX_CONTENT
from tests.browser.chat.test_chat_frames import DONE, FakeServer, asked, delta, pages_url, server, whole
from tests.browser.stage import screenshot

__all__ = ["pages_url", "server"]

pytestmark = pytest.mark.browser

THINKING = '<details class="thinking"><summary>Thinking</summary><p>{}</p></details>'
CITED = '<p>两天<sup class="cite"><a href="#source-2">2</a></sup> '
CITED += '<a class="picture"><img src="/files/none" alt="图"></a></p>'


def test_thinking_stays_unfolded_and_citations_lead_to_their_source(server: FakeServer) -> None:
    """What a person has unfolded stays so while it grows; a picture that cannot be had leaves its words."""
    server.page.route("**/files/none", lambda route: route.fulfill(body=""))
    turn, _ = asked(server)
    server.says(delta("想", THINKING.format("想"), cursor=1))
    turn.get_by_text("思考过程").click()
    server.says(delta("想", THINKING.format("想想"), cursor=2))
    expect(turn.get_by_text("想想", exact=True)).to_be_visible()

    sources = [{"title": "一"}, {"title": "二"}]
    server.says(whole("两天", html=THINKING.format("想想") + CITED, sources=sources), DONE)
    expect(turn.locator(".blocks")).to_contain_text("两天2 图")
    expect(turn.locator(".blocks img")).to_have_count(0)
    turn.get_by_role("link", name="来源 2").click()

    expect(turn.locator(".sources li").nth(1)).to_be_focused()
    expect(turn.locator(".sources li").nth(1)).to_be_visible()


def test_a_citation_shows_the_cited_passage(server: FakeServer) -> None:
    """Under the pointer, with the focus and by a tap; Escape hides the passage and stops nothing."""
    server.page.route("**/files/none", lambda route: route.fulfill(body=""))
    server.page.route("**/files/none", lambda route: route.fulfill(body=""))
    turn, _ = asked(server)
    passage = "满一年五天。" * 60
    sources = [
        {"title": "一"},
        {"title": "制度", "dataset_name": "手册", "snippet": passage, "url": "https://a.example/"},
    ]
    server.says(whole("两天", html=CITED, sources=sources), DONE)
    number, card = turn.get_by_role("link", name="来源 2"), server.page.get_by_role("tooltip")
    expect(number).to_be_visible()

    number.hover()
    server.passes(1)
    expect(card).to_contain_text(f"手册 · 制度{passage}")
    screenshot(server.page, "chat-citation")
    card.hover()
    server.passes(1)
    expect(card).to_be_visible()
    server.page.mouse.move(0, 0)
    server.passes(1)
    expect(card).to_be_hidden()

    turn.locator(".mine .act").focus()
    server.page.keyboard.press("Tab")
    expect(number).to_be_focused()
    expect(card).to_be_visible()
    expect(number).to_have_accessible_description(f"手册 · 制度 {passage}")
    server.page.keyboard.press("Escape")
    expect(card).to_be_hidden()
    assert [frame["type"] for frame in server.received[-1]] == ["chat"]

    for shows in (True, False):
        number.dispatch_event("pointerdown", {"pointerType": "touch"})
        number.dispatch_event("click")
        expect(card).to_be_visible(visible=shows)
    expect(turn.locator(".sources")).not_to_have_attribute("open", "")


def test_a_question_that_was_edited_before_its_echo_is_stopped(server: FakeServer) -> None:
    """The server's echo names the stream, which is stopped; an edited question has the limit of any other."""
    turn = server.asks("年假？")
    first = server.receives(1)[0]
    turn.hover()
    turn.get_by_role("button", name="编辑问题").click()
    turn.get_by_role("textbox").fill("长" * (MAX_CONTENT + 1))
    turn.get_by_role("button", name="重新提问").click()
    expect(turn.locator("form .failure")).to_contain_text("10,001")

    turn.get_by_role("textbox").fill("病假？")
    turn.get_by_role("button", name="重新提问").click()
    assert server.receives(2)[1]["content"] == "病假？"
    server.says({"type": "chat", "role": "user", "content": "年假？", "id": first["id"], "stream_id": "s1"})

    assert server.receives(3)[2] == {"type": "stop", "stream_id": "s1"}
    expect(server.page.locator(".turn")).to_have_count(1)


def test_a_deleted_conversation_stops_its_answer(server: FakeServer) -> None:
    """The running one is stopped before the page leaves it."""
    asked(server)
    # The page stores what has changed after a quarter of a second.
    server.passes(1)
    item = server.page.locator("#chats-list li")
    item.get_by_role("button", name="操作").click()
    item.get_by_role("button", name="删除").click()
    server.page.locator("#confirm-yes").click()

    server.until(lambda: {"type": "stop", "stream_id": "s1"} in server.received[0])
    server.is_open(2)
    expect(server.page.locator(".turn")).to_have_count(0)


def test_a_question_on_a_replaced_page_takes_the_conversation_back(server: FakeServer) -> None:
    """The page connects again, resumes, and asks."""
    asked(server)
    server.passes(1)
    server.cuts(4409)

    server.page.locator("#question").fill("病假？")
    server.page.locator("#question").press("Enter")

    server.is_open(2)
    assert [frame["type"] for frame in server.receives(2)] == ["resume", "chat"]
