"""The realtime page in Chromium, with a replica: questions, answers, controls, languages."""

from __future__ import annotations

import re
from functools import partial

import pytest
from playwright.sync_api import expect

from config.texts import EN, ZH
from demo.mocks.dify.server import MockDify
from tests.browser.realtime.realtime_visitor import Visitor, enter, mock_dify, own_env, replica, speaker, writer
from tests.browser.stage import TIMEOUT
from tests.support.servers.processes import wait_until

__all__ = ["enter", "mock_dify", "own_env", "replica", "speaker", "writer"]

pytestmark = [pytest.mark.browser, pytest.mark.scenario]


def test_an_instant_query_replaces_the_running_answer(writer: Visitor) -> None:
    """The first bubble is marked as stopped, the second is answered."""
    writer.types("年假怎么申请？[[slow]]")
    writer.sees_it_grow()
    writer.types("我说的是营业时间")
    writer.stands_at("waiting_for_question")

    writer.presses("立即提问")

    writer.sees_answer(0, "stopped")
    assert writer.sees_answer(1).startswith("周一至周五")
    assert writer.counters == ("2", "2")


def test_buttons_are_enabled_while_they_mean_something(writer: Visitor) -> None:
    """Asking needs a sentence, stopping a running answer; pause becomes resume."""
    button = partial(writer.page.get_by_role, "button", exact=True)
    for name in ("立即提问", "停止", "清空页面"):
        expect(button(name=name)).to_be_disabled()

    writer.types("年假申请[[slow]]")
    expect(button(name="立即提问")).to_be_enabled()
    expect(button(name="停止")).to_be_disabled()
    writer.presses("立即提问")
    writer.sees_it_grow()
    expect(button(name="停止")).to_be_enabled()
    writer.presses("停止")
    expect(button(name="停止")).to_be_disabled()

    writer.presses("暂停")
    expect(button(name="暂停")).to_have_count(0)
    expect(button(name="立即提问")).to_be_disabled()
    writer.presses("继续")
    expect(button(name="立即提问")).to_be_enabled()


def test_questions_without_room_at_the_server_wait_in_the_queue(writer: Visitor) -> None:
    """One answer runs, three wait at the server and two here: none is an error, and all are answered in their order."""
    first, *others = ["年假怎么申请？", *(f"第{number}条规定是什么？" for number in range(5))]
    writer.types(f"{first}[[slow]]")
    writer.sees_it_grow()
    for question in others:
        writer.types(question)

    expect(writer.sees("#queue .mine")).to_have_text(others)
    expect(writer.sees(".sentence small")).to_have_text(["", *["排队中"] * 5])
    expect(writer.sees(".turn[data-state=held]")).to_have_count(2)
    expect(writer.sees("main .failure:not(:empty)")).to_have_count(0)
    writer.page.reload()
    expect(writer.sees(".turn[data-state=finished]")).to_have_count(6)

    expect(writer.sees("#talk .mine")).to_have_text([first, *others])
    expect(writer.sees(".sentence small")).to_have_text([""] * 6)
    expect(writer.sees("#queue .turn")).to_have_count(0)
    expect(writer.sees("main .failure:not(:empty)")).to_have_count(0)


def test_a_stop_ends_the_queue_and_a_full_queue_refuses(writer: Visitor) -> None:
    """Held questions are stopped with the others; one for which even the queue had no place is asked by a button."""
    writer.types("年假怎么申请？[[slow]]")
    writer.sees_it_grow()
    for number in range(24):
        writer.types(f"第{number}条规定是什么？")

    expect(writer.sees("#queue .mine")).to_have_count(23)
    refused = writer.sees(".turn[data-state=refused]")
    expect(refused.locator(".mine")).to_have_text("第23条规定是什么？")
    expect(refused.locator(".failure")).to_have_text(ZH["too_many_questions"])
    writer.presses("English")
    expect(refused.locator(".failure")).to_have_text(EN["too_many_questions"])
    writer.presses("Stop")
    expect(writer.sees("#queue .turn")).to_have_count(0)
    expect(writer.sees(".sentence small")).to_have_text(["", *["stopped"] * 23, ""])
    expect(writer.sees(".turn[data-state=stopped]")).to_have_count(24)
    refused.get_by_role("button", name="Ask again").click()

    expect(refused).to_have_count(0)
    expect(writer.sees(".turn[data-state=finished] .mine")).to_have_text("第23条规定是什么？", timeout=TIMEOUT)
    expect(writer.sees(".sentence span").locator("visible=true").filter(has_text="第23条")).to_have_count(1)


def test_what_was_asked_is_marked_in_its_sentence(writer: Visitor) -> None:
    """The question alone, all of a sentence that is asked at once, and nothing of others; a reload keeps the marks."""
    writer.types("那我们下周再开会吧IT 服务台的电话是多少？")
    writer.sees_answer(0)
    writer.types("大家辛苦了")
    writer.stands_at("waiting_for_question")
    expect(writer.sees(".sentence mark")).to_have_text(["IT 服务台的电话是多少？"])
    expect(writer.turns.locator(".mine")).to_have_text(["IT 服务台的电话是多少？"])
    writer.presses("立即提问")
    writer.sees_answer(1)

    for _ in range(2):
        expect(writer.sees(".sentence mark")).to_have_text(["IT 服务台的电话是多少？", "大家辛苦了"])
        expect(writer.sees(".sentence mark").first).to_have_attribute("title", "已提问")
        expect(writer.sees(".sentence span")).to_have_text(["那我们下周再开会吧IT 服务台的电话是多少？", "大家辛苦了"])
        writer.page.reload()


def test_transcript_and_answers_are_copied_and_saved(writer: Visitor, mock_dify: MockDify) -> None:
    """The transcript and each answer are copied as text; a file has both with times, as Markdown."""
    writer.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    for name in ("复制转写", "保存转写和问答"):
        expect(writer.page.get_by_role("button", name=name)).to_be_disabled()
    writer.types("大家好，我们开始吧")
    writer.types("年假怎么申请？")
    answer = writer.sees_answer(0)

    writer.presses("复制转写")
    expect(writer.sees("#announcer")).to_have_text("已复制")
    copied = [writer.evaluates("navigator.clipboard.readText()")]
    writer.presses("复制回答")
    wait_until(lambda: writer.evaluates("navigator.clipboard.readText()") not in copied, timeout=TIMEOUT / 1000)
    copied.append(writer.evaluates("navigator.clipboard.readText()"))
    with writer.page.expect_download() as download:
        writer.presses("保存转写和问答")
    saved = download.value.path().read_text("utf-8")

    assert copied == ["大家好，我们开始吧\n年假怎么申请？", answer]
    assert re.fullmatch(r"实时问答-\d{4}年.*\.md", download.value.suggested_filename)
    time = r"\d{1,2}:\d{2}:\d{2}"
    assert re.search(rf"## 实时转写\n\n- {time} 大家好，我们开始吧\n- {time} 年假怎么申请？ \(已提问\)\n", saved)
    assert re.search(rf"## 问答\n\n### 年假怎么申请？\n\n\*{time}\*\n\n{re.escape(answer)}\n\n来源（1）\n\n1\. ", saved)


def test_a_sentence_is_asked_again_although_it_is_no_question(writer: Visitor) -> None:
    """A stopped instant query is asked again; the server has forgotten its sentence."""
    writer.types("年假申请[[slow]]")
    writer.presses("立即提问")
    writer.sees_it_grow()
    writer.presses("停止")
    writer.sees_answer(0, "stopped")

    writer.presses("再问一次")

    writer.sees_it_grow(1)
    expect(writer.turns.nth(1).locator(".mine")).to_have_text("年假申请[[slow]]")


def test_a_reload_keeps_the_page_and_resumes_its_answers(writer: Visitor, mock_dify: MockDify) -> None:
    """Transcript, answers and session are kept; the running answer goes on, the queued one follows, each asked once."""
    opening = "大家好，我们开始今天的培训。"
    questions = ["门禁卡怎么办理？", "加班怎么调休？[[slow]]", "出差怎么订票？"]
    writer.types(opening)
    writer.types(questions[0])
    writer.sees_answer(0)
    writer.types(questions[1])
    writer.sees_it_grow(1)
    writer.types(questions[2])
    expect(writer.sees("#queue .turn")).to_have_count(1)
    session = writer.sees("#session").text_content()

    writer.page.reload()

    assert [writer.sees_answer(number) for number in range(3)] == [mock_dify.expected_answer(one) for one in questions]
    expect(writer.turns.locator(".mine")).to_have_text([question.removesuffix("[[slow]]") for question in questions])
    expect(writer.sees(".sentence span").first).to_have_text(opening)
    expect(writer.sees(".sentence small")).to_have_text([""] * 4)
    assert writer.sees("#session").text_content() == session
    assert [len(mock_dify.asked(question)) for question in questions] == [1, 1, 1]


def test_an_answer_is_rendered_with_its_sources(writer: Visitor) -> None:
    """The server's HTML is shown, and the sources are folded below it; a reload keeps both."""
    writer.types("年假怎么申请？")
    writer.sees_answer(0)

    for _ in range(2):
        expect(writer.turns.locator(".text strong").first).to_be_visible()
        assert "**" not in writer.turns.locator(".text").inner_text()
        expect(writer.turns.locator(".sources li")).to_be_hidden()
        writer.turns.locator(".sources summary").click()
        expect(writer.turns.locator(".sources li")).to_be_visible()
        writer.page.reload()


def test_a_cleared_page_stays_clear(writer: Visitor) -> None:
    """Transcript and answers are gone, also after a reload."""
    writer.types("营业时间是什么？")
    writer.sees_answer(0)

    writer.presses("清空页面")
    expect(writer.sees("#empty")).to_be_visible()
    writer.page.reload()

    expect(writer.connected).to_be_visible()
    expect(writer.sees(".turn, .sentence")).to_have_count(0)


def test_stop_ends_the_answer_here_and_at_the_provider(writer: Visitor, mock_dify: MockDify) -> None:
    """The text that was shown stays, marked as stopped, and Dify gets a stop."""
    stopped = len(mock_dify.stops)
    writer.types("年假怎么申请？[[slow]]")
    writer.sees_it_grow()

    writer.presses("停止")

    assert writer.sees_answer(0, "stopped")
    writer.stands_at("idle")
    wait_until(lambda: len(mock_dify.stops) > stopped, timeout=30.0)


def test_a_failed_answer_shows_the_error_in_its_bubble(writer: Visitor) -> None:
    """The bubble has the sentence instead of an answer, and the session continues."""
    writer.types("年假怎么申请？[[error]]")

    assert writer.sees_answer(0, "failed") == ""
    expect(writer.turns.locator(".failure")).to_contain_text(ZH["provider_error"])
    writer.stands_at("idle")
    writer.types("营业时间是什么？")
    assert writer.sees_answer(1).startswith("周一至周五")
    assert writer.counters == ("2", "1")


def test_a_replaced_answer_begins_again_in_its_bubble(speaker: Visitor, mock_dify: MockDify) -> None:
    """The first text is gone, the answer is counted once, and the voice reads the new text."""
    speaker.has_answers_read_aloud()
    question = "年假怎么申请？[[chatflow-moderated]]"
    speaker.says(question)
    speaker.sees_it_grow()

    assert speaker.sees_answer(0) == mock_dify.expected_answer(question)
    assert speaker.counters == ("1", "1")
    assert speaker.listens_to_the_end()[-1] == mock_dify.expected_answer(question)


def test_markup_in_questions_and_answers_stays_text(speaker: Visitor) -> None:
    """Neither speech nor an answer that repeats it adds an element to the page, and markup is not read aloud."""
    attack = "<img src=x onerror=\"document.title='broken into'\"><script>document.title='broken into'</script>怎么办？"
    speaker.has_answers_read_aloud()

    speaker.says(attack, final=False)
    speaker.says(attack)

    assert attack in speaker.sees_answer(0)
    expect(speaker.sees(".sentence span")).to_have_text([attack])
    assert speaker.sees("#talk img, #talk script, #words img, #words script").count() == 0
    assert speaker.page.title() == "来宝 · 实时问答"
    assert "script" not in "".join(speaker.listens_to_the_end())


def test_a_new_session_begins_a_new_conversation(writer: Visitor, mock_dify: MockDify) -> None:
    """Within a session Dify gets the conversation's id; in a new session it does not."""
    first = writer.sees("#session").get_attribute("title")
    for number in range(3):
        if number == 2:
            writer.presses("新会话")
            expect(writer.sees("#session")).not_to_have_attribute("title", first or "")
        writer.types(f"第{number}次会议是什么时候？")
        writer.sees_answer(number)

    asked = [mock_dify.asked(f"第{number}次会议是什么时候？")[0].body.get("conversation_id") for number in range(3)]
    assert not asked[0]
    assert asked[1]
    assert not asked[2]
