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
    turn, _ = asked(server)
    passage = "满一年五天。" * 60
    sources = [
        {"title": "一"},
        {"title": "制度", "dataset_name": "手册", "snippet": passage, "url": "https://a.example/"},
    ]
    server.says(whole("两天", html=CITED + "<p>其他</p>" * 80, sources=sources), DONE)
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

    turn.locator(".sources summary").focus()
    expect(number).not_to_be_in_viewport()
    server.page.keyboard.press("Shift+Tab")
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


def test_a_regenerated_answer_keeps_its_versions(server: FakeServer) -> None:
    """Each has its own text and rating, also after a reload; one without a text is forgotten by the next."""
    page, turn = server.page, server.page.locator(".turn")

    def answers(stream_id: str, text: str) -> None:
        frame = server.receives(1)[-1]
        server.says({"type": "chat", "role": "user", "content": "年假？", "id": frame["id"], "stream_id": stream_id})
        ending = {"stream_id": stream_id, "html": f"<p>{text}</p>"}
        server.says(*([whole(text, **ending)] if text else []), {**DONE, "stream_id": stream_id})
        expect(turn).to_have_attribute("data-state", "completed" if text else "cancelled")
        expect(turn).to_have_count(1)

    server.asks("年假？")
    for number, text in enumerate(("五天", "十天", "", "十五天"), 1):
        if number > 1:
            before = len(server.received[-1])
            turn.get_by_role("button", name="重新生成").click()
            server.receives(before + 1)
        answers(f"s{number}", text)
        if text == "十天":
            turn.get_by_role("button", name="有帮助", exact=True).click()
            server.until(lambda: server.received[-1][-1]["type"] == "feedback")
            server.says({"type": "feedback", "stream_id": "s2", "rating": "like"})

    expect(turn.locator(".version")).to_have_text("3/3")
    screenshot(page, "chat-versions")
    turn.get_by_role("button", name="上一个回答").click()
    expect(page.locator("#announcer")).to_have_text("第 2 个回答，共 3 个")
    server.has_stored()
    page.reload()
    server.is_open(2)
    liked = turn.get_by_role("button", name="有帮助", exact=True)
    for name, shown, text, is_liked in (
        ("", "2/3", "十天", "true"),
        ("上一个回答", "1/3", "五天", "false"),
        ("上一个回答", "1/3", "五天", "false"),
        ("下一个回答", "2/3", "十天", "true"),
        ("下一个回答", "3/3", "十五天", "false"),
    ):
        if name:
            turn.get_by_role("button", name=name).press("Enter")
        expect(turn.locator(".version")).to_have_text(shown)
        expect(turn.locator(".blocks")).to_have_text(text)
        expect(liked).to_have_attribute("aria-pressed", is_liked)


def test_an_answer_is_as_wide_as_the_conversation_from_its_first_word(server: FakeServer) -> None:
    """Its width stays while it grows; until it has text it names the running step, under the bot's name."""
    turn, _ = asked(server)
    theirs, widths = turn.locator(".theirs"), set()

    def measured() -> None:
        widths.add(theirs.evaluate("(one) => one.getBoundingClientRect().width"))

    expect(turn.locator(".who span")).to_have_text("来宝")
    expect(turn.locator(".typing")).to_have_text("正在思考")
    measured()
    server.says({"type": "typing", "status": True, "stream_id": "s1", "step": "查知识库"})
    expect(turn.locator(".typing")).to_have_text("查知识库")
    server.page.locator("#language").click()
    expect(turn.locator(".typing")).to_have_text("查知识库")
    screenshot(server.page, "chat-step")
    measured()
    for cursor, text in enumerate(("两", "两天" * 40, "很长的回答。" * 200), 1):
        server.says(delta(text, f"<p>{text}</p>", cursor=cursor))
        expect(turn.locator(".blocks")).to_have_text(text)
        expect(turn.locator(".typing span")).to_be_hidden()
        measured()
    server.says(whole(text, html=f"<p>{text}</p>"), DONE)
    expect(turn).to_have_attribute("data-state", "completed")
    measured()

    assert len(widths) == 1
    assert widths.pop() > 600


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
