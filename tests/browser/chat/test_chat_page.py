"""The chat page in Chromium, with a replica, Redis and a mock Dify."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Error, expect

from config.texts import ZH
from demo.mocks.dify.server import MockDify, expected_answer
from tests.browser.chat.chat_visitor import Visitor, replica_for, shown_words, slow_dify, visitor
from tests.browser.stage import screenshot, tab
from tests.support.replicas import Replica
from tests.support.servers.processes import RedisServer, wait_until

__all__ = ["slow_dify", "visitor"]

pytestmark = [pytest.mark.browser, pytest.mark.scenario, pytest.mark.timeout(240)]


@pytest.mark.main_story
def test_an_answer_grows_in_its_bubble(visitor: Visitor, slow_dify: MockDify) -> None:
    """The question is shown at once, then the growing answer, at the end its sources."""
    slow_dify.holds_at = 8
    turn = visitor.asks("年假怎么申请")

    expect(turn.locator(".mine .words")).to_have_text("年假怎么申请")
    expect(turn.locator(".theirs")).to_have_attribute("aria-busy", "true")
    expect(turn.locator(".blocks")).to_contain_text("年假申请")
    begun = turn.locator(".blocks").inner_text()
    slow_dify.holds_at = None
    whole = visitor.sees_end(turn)

    assert len(whole) > len(begun)
    assert shown_words(whole) == shown_words(expected_answer("年假怎么申请"))
    assert turn.locator(".blocks ol > li").count() == 4
    expect(turn.locator(".theirs")).to_have_attribute("aria-busy", "false")
    expect(turn.locator(".sources")).to_contain_text("来源（1）")
    expect(visitor.page.locator("#announcer")).to_contain_text("还需要我帮你查一下剩余天数吗？")


def test_an_answer_shows_its_pictures(visitor: Visitor) -> None:
    """Those of its text where they are named, those beside it after it, and a file as a link; also after a reload."""
    visitor.sees_end(visitor.asks("画一座房子 [[pictures]]"))
    pictures = visitor.turns.last.locator("img")

    for _ in range(2):
        expect(pictures).to_have_count(3)
        wait_until(lambda: all(pictures.evaluate_all("found => found.map(one => one.naturalWidth)")), 30)
        assert pictures.evaluate_all("found => found.map(one => one.alt)") == ["房子", "照片", "9d1c.png"]
        expect(visitor.turns.last.locator(".blocks a")).to_have_attribute("href", re.compile(r"^/files/"))
        screenshot(visitor.page, "chat-pictures")
        visitor.comes_back()


def test_questions_in_a_row_each_get_their_answer(visitor: Visitor) -> None:
    """A second question can be asked before the first one's answer is complete."""
    first, second = visitor.asks("年假怎么申请"), visitor.asks("营业时间")

    assert visitor.sees_end(second).startswith("周一至周五")
    assert visitor.sees_end(first).startswith("年假申请")


@pytest.mark.parametrize("by", ["Escape", "button"])
def test_an_answer_can_be_stopped(visitor: Visitor, by: str) -> None:
    """The text so far stays, the turn is marked as stopped, and no more text comes."""
    turn = visitor.asks(f"[[slow]] 年假怎么申请 {by}")
    expect(turn.locator(".blocks")).to_contain_text("年假申请")

    if by == "button":
        visitor.page.get_by_role("button", name="停止", exact=True).click()
    else:
        visitor.page.keyboard.press("Escape")

    stopped = visitor.sees_end(turn, "cancelled")
    expect(turn.locator(".note")).to_contain_text("已停止")
    expect(visitor.page.locator("#stop")).to_be_hidden()
    assert stopped.startswith("年假申请")
    assert "剩余天数" not in stopped


def test_an_answer_continues_after_a_reload(visitor: Visitor, slow_dify: MockDify) -> None:
    """After a reload the answer grows to its end, complete and without repetition; Dify was asked once."""
    question = "[[slow]] 年假怎么申请？刷新"
    turn = visitor.asks(question)
    expect(turn.locator(".blocks")).to_contain_text("年假申请")

    visitor.page.reload()

    expect(visitor.turns).to_have_count(1)
    expect(visitor.turns.locator(".blocks")).to_contain_text("年假申请")
    whole = visitor.sees_end(visitor.turns)
    assert shown_words(whole) == shown_words(expected_answer(question))
    assert len(slow_dify.asked(question)) == 1


def test_finished_turns_survive_a_reload(visitor: Visitor) -> None:
    """Question, answer, sources and language are the same after a reload."""
    visitor.page.get_by_role("button", name="English").click()
    before = visitor.sees_end(visitor.asks("营业时间"))

    visitor.page.reload()

    assert visitor.sees_end(visitor.turns) == before
    expect(visitor.turns.locator(".sources")).to_contain_text("Sources (1)")
    expect(visitor.page.get_by_role("button", name="Send")).to_be_visible()


def test_answers_survive_a_killed_server(
    chromium: Browser,
    redis_server: RedisServer,
    slow_dify: MockDify,
    tmp_path: Path,
) -> None:
    """The page shows the outage and reconnects; each question, also one asked meanwhile, gets one whole answer."""
    with (
        replica_for(redis_server, slow_dify, tmp_path) as replica,
        tab(chromium, replica.url) as (page, watch),
    ):
        visitor = Visitor(page, watch).opens().is_connected()
        asked = visitor.asks("[[slow]] 年假怎么申请？停电")
        expect(asked.locator(".blocks")).to_contain_text("年假申请")

        replica.kill()
        expect(visitor.state).to_have_attribute("data-state", re.compile("waiting|connecting"))
        late = visitor.asks("报销需要哪些材料？停电")
        expect(late).to_have_attribute("data-state", "unsent")
        replica.restart()
        visitor.is_connected()

        answers = [visitor.sees_end(asked), visitor.sees_end(late)]
        questions = ["年假怎么申请？停电", "报销需要哪些材料？停电"]
        assert [shown_words(one) for one in answers] == [shown_words(expected_answer(one)) for one in questions]
        assert len(slow_dify.asked("报销需要哪些材料？停电")) == 1
        watch.assert_clean(outages=True)


ATTACKS = [
    "<img src=x onerror=\"document.title='broken into'\"><script>document.title='broken into'</script>",
    "[x](javascript:document.title='broken into') ![x](https://host.invalid/track.png) <svg/onload=alert(1)>",
    "\n\n<iframe src=//example.com></iframe>\n\n<style>*{display:none}</style>\n\n<form action=//example.com><button>a",
    '[a](data:text/html,<script>alert(1)</script>) `<script>` &lt;script&gt; "onmouseover="alert(1)',
]


def test_markup_in_questions_and_answers_stays_text(visitor: Visitor) -> None:
    """Neither a question nor an answer that repeats it adds an element to the page, also after a reload."""
    for attack in ATTACKS:
        visitor.sees_end(visitor.asks(f"{attack} 结束"))
    visitor.page.reload()
    for number in range(len(ATTACKS)):
        visitor.sees_end(visitor.turns.nth(number))

    expect(visitor.turns.locator(".mine .words")).to_have_text([f"{attack} 结束".strip() for attack in ATTACKS])
    shown = visitor.turns.locator(".blocks, .mine .words")
    expect(shown.locator("img, script, svg, iframe, style, form, input")).to_have_count(0)
    assert visitor.turns.locator("[onerror], [onload], [onmouseover], [style], [class*=x]").count() == 0
    links = visitor.turns.locator(".blocks a").all()
    assert {link.get_attribute("href") for link in links} <= {"https://host.invalid/track.png"}
    assert all(link.get_attribute("rel") == "noopener noreferrer nofollow" for link in links)
    assert visitor.page.title() == "来宝 · 对话"
    visitor.watch.expect_missing()


def test_a_failed_answer_can_be_asked_again(visitor: Visitor) -> None:
    """The bubble shows the sentence of the error, and a click asks the question again."""
    turn = visitor.asks("[[error]] 年假")
    visitor.sees_end(turn, "error")

    expect(turn.locator(".failure")).to_have_text(ZH["provider_error"])
    turn.get_by_role("button", name="重新提问").click()

    expect(visitor.turns).to_have_count(2)
    visitor.sees_end(visitor.turns.nth(1), "error")


def test_enter_sends_and_shift_enter_does_not(visitor: Visitor) -> None:
    """Shift+Enter adds a line to the question; Enter in an empty field sends nothing."""
    visitor.page.locator("#question").press("Enter")
    visitor.page.keyboard.type("营业时间")
    visitor.page.keyboard.press("Shift+Enter")
    visitor.page.keyboard.type("周末呢")
    visitor.page.keyboard.press("Enter")

    expect(visitor.turns).to_have_count(1)
    visitor.sees_end(visitor.turns)
    assert visitor.turns.locator(".mine .words").inner_text() == "营业时间\n周末呢"


def test_a_conversation_is_continued_unless_switched_off(visitor: Visitor, slow_dify: MockDify) -> None:
    """Dify gets the id of the earlier conversation; with the switch off, also after a reload, it gets none."""
    for question in ("对话一", "对话二"):
        visitor.sees_end(visitor.asks(question))
    visitor.page.get_by_label("连续对话").uncheck()
    visitor.sees_end(visitor.asks("对话三"))
    visitor.comes_back()
    visitor.sees_end(visitor.asks("对话四"))

    named = [slow_dify.asked(f"对话{which}")[0].body.get("conversation_id") for which in "一二三四"]
    assert [bool(one) for one in named] == [False, True, False, False]


def test_speech_is_sent_after_a_silence_and_the_answer_read_aloud(visitor: Visitor) -> None:
    """A silence sends the words; only the answer is read, without its markup, at the chosen rate."""
    page = visitor.page
    page.get_by_text("设置").click()
    page.get_by_label("朗读回答").check()
    page.keyboard.press("Escape")
    page.get_by_role("button", name="语音输入").click()

    # At once: three seconds between them would be a silence.
    page.evaluate("fakeSpeech.hear('营业', false), fakeSpeech.hear('营业时间', true)")

    expect(visitor.turns.locator(".mine .words")).to_have_text("营业时间")
    visitor.sees_end(visitor.turns)
    spoken = wait_until(lambda: page.evaluate("fakeSpeech.spoken"), timeout=30.0)
    assert [one["text"] for one in spoken] == ["周一至周五 9:00-18:00"]
    assert spoken[0]["rate"] == 1.25
    assert page.evaluate("fakeSpeech.running") is None
    page.evaluate("fakeSpeech.endOfPiece()")
    wait_until(lambda: page.evaluate("Boolean(fakeSpeech.running)"), timeout=30.0)
    expect(page.locator("#heard")).to_contain_text("请说话")
    assert page.evaluate("fakeSpeech.overlaps") == []


def test_only_sanitised_answers_become_html(chromium: Browser, open_replica: Replica) -> None:
    """Trusted Types refuse every other way to add HTML or script, also to the page's own code."""
    attempts = (
        "document.body.innerHTML = '<img src=x>'",
        "document.body.setAttribute('onclick', 'alert(1)')",
        "document.body.append(Object.assign(document.createElement('script'), { text: 'alert(1)' }))",
        "trustedTypes.createPolicy('other', { createHTML: (html) => html })",
    )
    with tab(chromium, open_replica.url) as (page, watch):
        Visitor(page, watch).opens().is_connected()

        for attempt in attempts:
            with pytest.raises(Error, match="Trusted"):
                page.evaluate(attempt)

        assert watch.foreign == []
