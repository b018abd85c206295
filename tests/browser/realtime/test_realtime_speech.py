"""Speech on the realtime page: continuous recognition, answers read aloud, never both at once."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from demo.mocks.dify.server import MockDify
from tests.browser.realtime.realtime_visitor import (
    SPEECH,
    Visitor,
    enter,
    mock_dify,
    own_env,
    replica,
    speaker,
    writer,
)

__all__ = ["enter", "mock_dify", "own_env", "replica", "speaker", "writer"]

pytestmark = [pytest.mark.browser, pytest.mark.scenario]


@pytest.mark.main_story
def test_a_spoken_question_is_transcribed_and_answered(speaker: Visitor, mock_dify: MockDify) -> None:
    """Interim words have another colour than final ones, and the question in them is answered."""
    speaker.says("年假", final=False)
    expect(speaker.sees("#interim")).to_have_text("年假")
    speaker.says("年假怎么申请？")

    assert speaker.sees_answer(0) == mock_dify.expected_answer("年假怎么申请？")
    expect(speaker.sees("#interim")).to_have_text("")
    expect(speaker.sees(".sentence span").first).to_have_text("年假怎么申请？")
    expect(speaker.turns.locator(".mine")).to_have_text(["年假怎么申请？"])
    assert _colour(speaker, "#interim") != _colour(speaker, ".sentence")
    speaker.stands_at("idle")


def _colour(visitor: Visitor, css: str) -> str:
    return str(visitor.sees(css).first.evaluate("one => getComputedStyle(one).color"))


def test_recognition_pauses_while_an_answer_is_read_aloud(speaker: Visitor) -> None:
    """Only the answer's words are read, without markup, and no recogniser runs meanwhile."""
    speaker.has_answers_read_aloud()
    speaker.says("年假怎么申请？")
    speaker.waits_for("fakeSpeech.saying !== null")

    assert speaker.evaluates("fakeSpeech.running === null")
    expect(speaker.sees("#mic-word")).to_have_text("朗读中，暂不收听")
    speaker.sees_answer(0)
    pieces = speaker.listens_to_the_end()

    assert pieces[0] == "年假申请分四步，全部在线完成："
    assert pieces[-1] == "还需要我帮你查一下剩余天数吗？"
    assert not re.search(r"[*>✅]|怎么申请", "".join(pieces))
    assert len(pieces) == len(set(pieces))
    assert speaker.evaluates("fakeSpeech.overlaps") == []
    expect(speaker.sees("#mic-word")).to_have_text("停止收听")


def test_listening_continues_after_reading_is_stopped(speaker: Visitor) -> None:
    """The rest of that answer is not read."""
    speaker.has_answers_read_aloud()
    speaker.says("年假怎么申请？")
    speaker.waits_for("fakeSpeech.saying !== null")

    speaker.presses("停止朗读")
    speaker.sees_answer(0)
    speaker.waits_for("fakeSpeech.running !== null")

    assert len(speaker.evaluates("fakeSpeech.spoken")) == 1


READ_ALOUD = [
    ("# 标题\n\n**重点**和`代码`", "标题\n重点和代码"),
    ("见[手册](https://example.test/a_(b))，或 https://example.test/c?d=e。", "见手册，或 。"),
    ("![图](https://example.test/a.png) <b>粗</b> a < b &amp; c", "图 粗 a < b & c"),
    ("- [x] 完成 ✅\n- ~~作废~~ snake_case_name\n> 引用 1️⃣", "完成\n作废 snake_case_name\n引用 1"),
    ("| 假期 | 天数 |\n|---|:-:|\n| 年假 | 5 |", "假期，天数\n年假，5"),
    ("前\n```python\nprint(1)\n```\n后\n---", "前\n后"),
    ("<think>先想想\n再想想</think>答案是 3.14", "答案是 3.14"),
]


def test_only_words_are_read_aloud(writer: Visitor) -> None:
    """Markup, code, addresses, emoji and the model's thoughts are left out."""
    script = f"markdown => {{ {SPEECH} return plainText(markdown); }}"

    read = [writer.page.evaluate(script, markdown) for markdown, _ in READ_ALOUD]

    assert read == [words for _, words in READ_ALOUD]


def test_removing_unclosed_markup_is_fast(writer: Visitor) -> None:
    """Texts of 60,000 opening marks without an end are converted within 8 s each."""
    timed = "const began = Date.now(); plainText(mark.repeat(60_000)); return Date.now() - began;"
    script = f"mark => {{ {SPEECH} {timed} }}"

    assert all(writer.page.evaluate(script, mark) < 8_000 for mark in ("![](", "_a ", "[a]("))


def test_voice_and_rate_are_chosen_and_stored(speaker: Visitor) -> None:
    """The default rate is 1.25; chosen voice and rate are used, and restored after a reload."""
    assert speaker.sees("#rate").input_value() == "1.25"

    with speaker.settings():
        speaker.sees("#aloud").check()
        speaker.sees("#voice").select_option(label="Anna (en-US)")
        speaker.sees("#rate").fill("0.5")
    speaker.says("营业时间是什么？")
    speaker.waits_for("fakeSpeech.saying !== null")

    assert speaker.evaluates("[fakeSpeech.spoken[0].voice, fakeSpeech.spoken[0].rate]") == ["Anna", 0.5]
    speaker.page.reload()
    expect(speaker.sees("#rate-shown")).to_have_text("0.50×")
    expect(speaker.sees("#voice")).to_have_value("urn:test:anna")
    expect(speaker.sees("#aloud")).to_be_checked()


def test_listening_continues_after_the_recogniser_ends(speaker: Visitor) -> None:
    """Earlier words are kept, interim ones included."""
    speaker.says("大家好。")
    speaker.says("今天我们开会", final=False)
    speaker.evaluates("fakeSpeech.running.end()")
    speaker.waits_for("fakeSpeech.runs === 2 && fakeSpeech.running !== null")
    speaker.says("请看屏幕。")

    expect(speaker.sees(".sentence span")).to_have_text(["大家好。", "今天我们开会", "请看屏幕。"])


def test_a_refused_microphone_shows_the_error(speaker: Visitor) -> None:
    """Listening ends, and sentences can be typed."""
    speaker.evaluates("fakeSpeech.running.fail('not-allowed')")

    expect(speaker.sees("#talk .failure")).to_contain_text("浏览器没有允许使用麦克风")
    expect(speaker.page.get_by_role("button", name="开始说话")).to_have_attribute("aria-pressed", "false")
    speaker.types("营业时间是什么？")
    assert speaker.sees_answer(0).startswith("周一至周五")


def test_sentences_can_be_typed_without_a_recogniser(writer: Visitor) -> None:
    """Enter sends a line as a final sentence; the page hides the microphone and says why."""
    expect(writer.sees("#hint")).to_contain_text("没有语音识别")
    expect(writer.sees("#mic")).to_be_hidden()

    writer.types("大家好，我们开始吧")
    writer.stands_at("waiting_for_question")
    writer.types("营业时间是什么？")

    assert writer.sees_answer(0) == "周一至周五 9:00-18:00 🙂"
    assert writer.counters == ("1", "1")
    expect(writer.sees(".sentence span")).to_have_text(["大家好，我们开始吧", "营业时间是什么？"])


def test_a_pause_stops_the_microphone_too(speaker: Visitor) -> None:
    """A sentence typed meanwhile is marked as not processed; after resuming the recogniser runs again."""
    speaker.presses("暂停")
    speaker.stands_at("paused")
    speaker.waits_for("fakeSpeech.running === null")
    speaker.types("营业时间是什么？")
    expect(speaker.sees(".sentence small").first).to_contain_text("已暂停，没有处理")

    speaker.presses("继续")
    speaker.stands_at("listening")
    speaker.says("营业时间是什么？")

    assert speaker.sees_answer(0).startswith("周一至周五")
    assert speaker.counters == ("1", "1")
