"""The content of frames, and late messages with the part that the frame does not show."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config.texts import LOCALES, ZH, Texts
from services.files.links import FileLinks
from services.files.shown import FileOffers
from services.streams.records import Snapshot
from services.streams.store import READ_BYTES
from services.wecom.frames import MOST_LINES, SMALL_BYTES, EndedAnswer, WeComFrames, ended
from tests.support.properties import examples
from tests.support.texts import squeezed
from tests.unit.utils.markdown.test_markdown import MARKDOWN
from utils.stream_utils import FRAME_BYTES, answer_text

NO_LINKS = FileOffers(Texts(), FileLinks(b"k"))
FRAMES = WeComFrames(Texts(), NO_LINKS, thinking={"shows": "show", "hides": "hide"}, sources={"shows"})


@settings(max_examples=examples(60))
@given(piece=MARKDOWN, size=st.integers(SMALL_BYTES // 2, 2 * FRAME_BYTES), bot=st.sampled_from(["shows", "hides"]))
def test_the_owner_knows_whether_a_frame_is_cut(piece: str, size: int, bot: str) -> None:
    """The late message is claimed exactly where the finished frame says that the rest follows."""
    text = (piece or "字") * (size // max(1, len(piece.encode())))

    content = FRAMES.content(bot, ended(text, ""))

    assert FRAMES.overflows(bot, text, "") is (ZH["truncated_late"] in content)


@pytest.mark.parametrize("text", ["\n字" * 3000, "字" * 6827, "a\n" * 5000, "字" * 6820, "字" * 2000 + "\n" * 9000])
@pytest.mark.parametrize("code", ["", "provider_timeout"])
def test_texts_near_the_limit(text: str, code: str) -> None:
    """Rendering adds blank lines, an error its sentence: each counts."""
    content = FRAMES.content("shows", ended(text, code))

    assert FRAMES.overflows("shows", text, code) is (ZH["truncated_late"] in content)
    assert len(content.encode()) <= FRAME_BYTES


def test_a_frame_without_an_address_promises_nothing() -> None:
    """The sentences say that more follows only where it does."""
    long = ended("字" * 10_000, "", late=False)
    over = Snapshot("s", "processing", text="年假", size=6, frame_over=True)

    assert FRAMES.content("shows", long).endswith(ZH["truncated"])
    assert FRAMES.content("shows", over) == f"年假\n\n{ZH['frame_ended']}"
    assert FRAMES.content("shows", replace(over, late=True)) == f"年假\n\n{ZH['frame_ended_late']}"


@pytest.mark.parametrize(
    ("thinking", "lines"),
    [("", 190), ("<think>先想想</think>\n", 190), ("<think>" + "想" * 9000 + "</think>\n", 120)],
    ids=["none", "short", "more than a poll reads"],
)
@pytest.mark.parametrize("bot", ["shows", "hides"])
def test_frame_and_message_are_the_answer(thinking: str, lines: int, bot: str) -> None:
    """Thinking belongs to the frame, and is not repeated in the message."""
    answer = "\n\n".join(f"第 {number} 条：{'字' * 40}" for number in range(lines))
    text = thinking + answer
    assert FRAMES.overflows(bot, text, "")
    frame = FRAMES.content(bot, ended(text, "")).removesuffix(ZH["truncated_late"]).rpartition("</think>")[2]

    message = FRAMES.late_message(bot, EndedAnswer(text, ended(text, "")))

    assert squeezed(frame + message.removeprefix("(2/2)")) == squeezed(answer_text(text))
    assert len(text.encode()) > READ_BYTES


def test_a_replaced_answer_is_sent_whole() -> None:
    """The frame showed another text, so its rest would mean nothing."""
    seen = Snapshot("s", "completed", text="旧的回答", size=12, frame_over=True, late=True)

    assert FRAMES.late_message("shows", EndedAnswer("新的回答在这里", seen)) == "(2/2)\n\n新的回答在这里"


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        ("年假五天", "", ZH["late_complete"]),
        ("年假五天", "provider_timeout", ZH["provider_timeout"]),
        ("年假五天，病假十二天", "provider_timeout", f"，病假十二天\n\n{ZH['provider_timeout']}"),
    ],
)
def test_a_promised_message_comes_with_any_end(text: str, code: str, message: str) -> None:
    """The answer may have been complete when its frame ended, or it may fail."""
    seen = Snapshot("s", "completed", text="年假五天", size=12, frame_over=True, late=True)

    assert FRAMES.late_message("shows", EndedAnswer(text, seen, code)) == f"(2/2)\n\n{message}"


def test_an_answer_without_text_says_so() -> None:
    """Nobody saw anything, and there is nothing."""
    assert FRAMES.late_message("shows", EndedAnswer("", None)) == f"(2/2)\n\n{ZH['provider_empty']}"


def test_the_message_lists_the_sources() -> None:
    """Only for bots that show them, and not for failed answers."""
    answer = EndedAnswer("五天", None, cited="1. 手册")

    assert FRAMES.late_message("shows", answer) == f"(2/2)\n\n五天\n\n{ZH['sources_heading']}\n\n1. 手册"
    assert "手册" not in FRAMES.late_message("hides", answer)
    assert "手册" not in FRAMES.late_message("shows", replace(answer, error_code="provider_timeout"))


STEP = Snapshot("s", "processing", note="查知识库")


@pytest.mark.parametrize("language", LOCALES)
def test_the_placeholder_names_the_running_step(language: str) -> None:
    """Only while nothing of the text can be seen, and not in a finished frame."""
    sentences = LOCALES[language]
    frames = WeComFrames(Texts(language), NO_LINKS, thinking={"shows": "show", "hides": "hide"})
    named, thinks = sentences["step"].format(step="查知识库"), replace(STEP, text="<think>想")

    assert frames.content("shows", STEP) == frames.content("hides", thinks) == named
    assert frames.content("shows", thinks) == "<think>想</think>"
    assert frames.content("shows", replace(STEP, waiting=True)) == sentences["queued"]
    assert frames.content("shows", replace(STEP, note="")) == sentences["thinking"]
    assert frames.content("shows", replace(STEP, text="五天")) == "五天"
    assert frames.content("shows", replace(STEP, frame_over=True)) == sentences["frame_ended"]


def test_a_title_with_braces_is_not_filled_in() -> None:
    """It is somebody else's text."""
    assert "{step} {x}" in FRAMES.content("shows", replace(STEP, note="{step} {x}"))


ANSWERED = Snapshot("s", "completed", text="五天", size=6, cited="1. 手册", note="病假呢\n婚假呢")
LISTED = f"{ZH['suggestions_heading']}\n\n- 病假呢\n- 婚假呢"
CITED = f"{ZH['sources_heading']}\n\n1. 手册"


def test_suggestions_follow_a_completed_answer() -> None:
    """After the sources, in the frame that finishes; not below an answer that was cut off, stopped or failed."""
    cancelled, failed = replace(ANSWERED, status="cancelled"), replace(ANSWERED, status="error")

    assert FRAMES.content("shows", ANSWERED) == f"五天\n\n{CITED}\n\n{LISTED}"
    assert FRAMES.content("hides", ANSWERED) == f"五天\n\n{LISTED}"
    assert FRAMES.content("hides", replace(ANSWERED, note="")) == "五天"
    for other in (replace(ANSWERED, frame_over=True), cancelled, failed):
        assert "病假" not in FRAMES.content("shows", other)


def footnote_of(note: str) -> str:
    return "\n".join([f"{ZH['suggestions_heading']}\n", *(f"- {question}" for question in note.split("\n"))])


@settings(max_examples=examples(60))
@given(missing=st.integers(-200, 500), note=st.sampled_from([ANSWERED.note, "问" * 100]))
def test_suggestions_count_towards_the_frames_limit(missing: int, note: str) -> None:
    """Where they do not fit they are left out, before the sources, and nothing of the answer is."""
    text = "a" * (FRAME_BYTES - missing)
    answered = replace(ANSWERED, text=text[:READ_BYTES], size=len(text), note=note, late=True)

    content = FRAMES.content("shows", answered)
    listed, cited, cut = (words in content for words in (ZH["suggestions_heading"], CITED, ZH["truncated_late"]))

    assert len(content.encode()) <= FRAME_BYTES
    assert cut is (missing < 0)
    assert cut or content.startswith(text)
    assert cited is (missing >= 2 + len(CITED.encode()))
    assert listed is (missing >= 4 + len(CITED.encode()) + len(footnote_of(note).encode()))


def test_a_late_message_lists_the_suggestions() -> None:
    """They are at its end. A refused question has its own sentence there instead, else that of the code."""
    answer = EndedAnswer("五天", None, cited="1. 手册", note="病假呢\n婚假呢")

    assert FRAMES.late_message("shows", answer) == f"(2/2)\n\n五天\n\n{CITED}\n\n{LISTED}"
    refused = EndedAnswer("", None, "not_allowed", note="请联系行政开通")
    assert FRAMES.late_message("shows", refused) == "(2/2)\n\n请联系行政开通"
    assert FRAMES.late_message("shows", replace(refused, note="")).endswith(Texts().error("not_allowed"))


def test_a_late_message_without_room_for_suggestions_lists_the_sources() -> None:
    """The message has a limit of its own."""
    answer = EndedAnswer("a" * (FRAME_BYTES - 60), None, cited="1. 手册", note="病假呢\n婚假呢")

    message = FRAMES.late_message("shows", answer)

    assert message.endswith(CITED)
    assert len(message.encode()) <= FRAME_BYTES


PARTS = WeComFrames(Texts(), NO_LINKS, thinking={"shows": "show"}, sources={"shows"}, parts=30)


def further(answer: EndedAnswer, frames: WeComFrames = PARTS) -> list[str]:
    return frames.further_messages("shows", answer).messages


@pytest.mark.parametrize("lines", [400, 2000])
def test_frame_and_messages_are_the_answer(lines: int) -> None:
    """On the long connection several messages carry what the frame does not, with the sources after it."""
    text = "<think>先想想</think>\n" + "\n\n".join(f"第 {number} 条：{'字' * 40}" for number in range(lines))
    frame = PARTS.content("shows", ended(text, ""))

    messages = further(EndedAnswer(text, ended(text, ""), cited="1. 手册"))

    shown = frame.removesuffix(ZH["truncated_parts"]).rpartition("</think>")[2]
    sent = "".join(message.partition("\n\n")[2] for message in messages)
    assert squeezed(shown + sent) == squeezed(answer_text(text)) + squeezed(f"{ZH['sources_heading']} 1. 手册")
    assert [message.partition("\n")[0] for message in messages] == [
        f"({number}/{len(messages) + 1})" for number in range(2, len(messages) + 2)
    ]


def test_an_answer_that_its_frame_shows_has_no_further_messages() -> None:
    """Nothing is repeated; a frame that its time ended is followed by the rest, or by the sentence `late_complete`."""
    over = Snapshot("s", "completed", text="年假五天", size=12, frame_over=True)

    assert further(EndedAnswer("年假五天", ended("年假五天", ""))) == []
    assert further(EndedAnswer("年假五天，病假", over)) == ["(2/2)\n\n，病假"]
    assert further(EndedAnswer("年假五天", over)) == [f"(2/2)\n\n{ZH['late_complete']}"]
    assert PARTS.content("shows", over) == f"年假五天\n\n{ZH['frame_ended_parts']}"


def test_an_answer_whose_frame_was_refused_is_sent_whole() -> None:
    """It looks like any message; only one that needs several has numbers."""
    assert further(EndedAnswer("年假五天", None)) == ["年假五天"]
    assert further(EndedAnswer("", None, "provider_timeout")) == [ZH["provider_timeout"]]
    assert further(EndedAnswer("字" * 9000, None))[0].startswith("(1/2)\n\n字")


def test_an_answer_with_too_many_parts_ends_with_a_link_to_all_of_it() -> None:
    """Without an address for links it ends with the sentence that the rest is missing; its error comes after either."""
    frames = WeComFrames(Texts(), NO_LINKS, thinking={"shows": "show"}, parts=2)
    answer = EndedAnswer("字" * 30_000, None, "provider_timeout", full_text_link="（链接）")

    *parts, last = further(answer, frames)

    assert [part.partition("\n")[0] for part in parts] == ["(1/3)", "(2/3)"]
    assert last == f"(3/3)\n\n（链接）\n\n{ZH['provider_timeout']}"
    assert ZH["late_truncated"] in further(replace(answer, full_text_link=""), frames)[-1]


def test_an_answer_of_very_many_lines_is_cut() -> None:
    """Only as many lines as messages carry are rendered; the message or the last part says that the answer goes on."""
    answer = EndedAnswer("a few words\n\n" * MOST_LINES, None, full_text_link="（链接）")

    message, parts = FRAMES.late_message("shows", answer), PARTS.further_messages("shows", answer)

    assert message.endswith("（链接）")
    assert (parts.cut, parts.messages[-1].partition("\n\n")[2]) == (True, "（链接）")
    assert sum(part.count("a few words") for part in parts.messages) == MOST_LINES // 2
