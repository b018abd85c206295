"""One frame: never too long, never broken, and growing as the text grows."""

from __future__ import annotations

import re
import time
import unicodedata
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.support.properties import examples
from tests.unit.utils.markdown.test_markdown import MARKDOWN, PIECES, without_space
from utils.markdown.wecom import open_fence
from utils.stream_utils import FRAME_BYTES, clip_utf8, compose_frame, render_frame, settled

NOTICE = "太长了，未完。"


def frame(text: str, *, growing: bool = False, **options: Any) -> str:
    return render_frame(text, growing=growing, **options)


def size(text: str) -> int:
    return len(text.encode())


@pytest.mark.parametrize(
    ("text", "max_bytes", "expected"),
    [
        ("hello", 5, "hello"),
        ("hello", 4, "hell"),
        ("hello", 0, ""),
        ("hello", -1, ""),
        ("", 0, ""),
        ("年假", 5, "年"),
        ("年假", 6, "年假"),
        ("a😀", 4, "a"),
        ("ae\u0301x", 2, "a"),
        ("ae\u0301x", 4, "ae\u0301"),
        ("a👍🏽x", 5, "a"),
        ("a👨\u200d👩\u200d👧x", 12, "a"),
        ("a❤\ufe0fx", 4, "a"),
        ("🇨🇳🇩🇪x", 12, "🇨🇳"),
        ("🇨🇳🇩🇪x", 8, "🇨🇳"),
        ("🇨🇳", 4, "🇨"),
        ("e" + "\u0301" * 200, 101, "e" + "\u0301" * 50),
        ("xe" + "\u0301" * 200, 102, "xe" + "\u0301" * 50),
        ("a\ud800b", 9, "a?b"),
    ],
)
def test_clip_keeps_characters_and_clusters_whole(text: str, max_bytes: int, expected: str) -> None:
    """A cut falls between characters, and before a cluster unless it is all there is or very long."""
    assert clip_utf8(text, max_bytes) == expected


@settings(deadline=None)
@given(text=st.text(), max_bytes=st.integers(-1, 60))
def test_clip_is_a_beginning_that_fits(text: str, max_bytes: int) -> None:
    """The result is a beginning of the text, fits, and is all of it where all of it fits."""
    clipped = clip_utf8(text, max_bytes)

    assert text.startswith(clipped)
    assert size(clipped) <= max(0, max_bytes)
    assert clipped == text or size(text) > max_bytes


@settings(deadline=None)
@given(text=st.text(alphabet="ab年😀"), max_bytes=st.integers(0, 60))
def test_clip_of_plain_characters_is_as_long_as_can_be(text: str, max_bytes: int) -> None:
    """Where nothing combines, one character more would not fit."""
    clipped = clip_utf8(text, max_bytes)

    assert not any(unicodedata.combining(character) for character in text)
    assert clipped == text or size(text[: len(clipped) + 1]) > max_bytes


@settings(max_examples=examples(500))
@given(
    text=MARKDOWN | MARKDOWN.map("\n\n".join) | st.text(),
    max_bytes=st.integers(0, 80),
    truncated=st.sampled_from(["", NOTICE]),
)
@example(text="\ud800", max_bytes=40, truncated="")
@example(text="\n \n", max_bytes=40, truncated="")
@example(text="一\n```\n二", max_bytes=80, truncated="")
def test_an_everyday_frame_is_what_every_case_is_made_of(text: str, max_bytes: int, truncated: str) -> None:
    """The short way of a growing text shows what the long way would."""
    long_way = compose_frame(settled(text), "", truncated, "", max_bytes=max_bytes, growing=True, thinking="show")

    assert frame(text, growing=True, max_bytes=max_bytes, truncated=truncated) == long_way


def test_frame_is_rendered_and_folded() -> None:
    """A frame shows folded thinking and surviving line breaks."""
    assert frame("<thinking>one\ntwo</thinking>three\nfour") == "<think>one\n\ntwo</think>\n\nthree\n\nfour"
    assert frame("<think>one\ntwo</think>three\nfour", thinking="hide") == "three\n\nfour"


def test_open_thinking_is_closed_in_every_frame() -> None:
    """While the model thinks, each frame closes the tag, and a fence in it."""
    assert frame("<think>one\n```\ntwo", growing=True) == "<think>one\n```\ntwo\n```</think>"


@pytest.mark.parametrize("text", ["", "\n\n", "  ", "<think>", "<think></think>\n"])
def test_without_a_text_there_is_only_the_suffix(text: str) -> None:
    """Nothing to show is an empty frame, or the sentence alone."""
    assert frame(text) == ""
    assert frame(text, growing=True) == ""
    assert frame(text, suffix="失败了") == "失败了"


def test_suffix_stands_apart() -> None:
    """A sentence after the text is a paragraph of its own, behind a fence that is closed for it."""
    assert frame("text\n", suffix="失败了") == "text\n\n失败了"
    assert frame("- a\n  ```py\n  x", suffix="失败了") == "- a\n  ```py\n  x\n  ```\n\n失败了"
    assert frame("```\nx\n```", suffix="失败了") == "```\nx\n```\n\n失败了"


def test_open_fence_is_closed_before_thinking() -> None:
    """Code that runs into the next thinking is closed before it."""
    text = "<think>one</think>```py\nx\n<think>two</think>"

    assert frame(text) == "<think>one</think>\n\n```py\nx\n```\n\n<think>two</think>"


def test_open_fence_at_the_end_is_left_open() -> None:
    """Where nothing follows, an open fence needs no end; the next delta may be within it."""
    assert frame("```py\nx", growing=True) == "```py\nx"


@pytest.mark.parametrize("tail", ["`", "``", "~", "~~", "<thi"])
def test_half_a_fence_or_tag_waits(tail: str) -> None:
    """The beginning of a fence or tag is not shown until it is one, or the text is whole."""
    assert frame("text\n" + tail, growing=True) == "text"
    assert frame("text\n" + tail) == "text\n\n" + tail


def test_text_of_just_the_limit_is_shown_whole() -> None:
    """20480 bytes are a frame; one more is cut on a character and says so."""
    whole = "年" * (FRAME_BYTES // 3) + "ab"
    assert size(whole) == FRAME_BYTES

    assert frame(whole, truncated=NOTICE) == whole
    cut = frame(whole + "c", truncated=NOTICE)
    assert cut.endswith("年\n\n" + NOTICE)
    assert FRAME_BYTES - 3 < size(cut) <= FRAME_BYTES


def test_cut_and_error_are_both_said() -> None:
    """A cut text of a failed answer carries both sentences, within the limit."""
    cut = frame("a" * 100, max_bytes=50, truncated="cut", suffix="failed")

    assert cut == "a" * 37 + "\n\ncut\n\nfailed"
    assert size(cut) == 50


def test_cut_code_is_closed() -> None:
    """A cut within a fence closes it, within the limit; a cut within its opening line leaves it out."""
    text = "text\n```python\n" + "x = 1\n" * 20

    assert frame(text, max_bytes=40) == "text\n```python\nx = 1\nx = 1\nx = 1\nx =\n```"
    assert frame(text, max_bytes=11) == "text"
    assert frame("- ```\n  x", max_bytes=8) == "-"
    assert frame(text, max_bytes=7) == "text"


def test_cut_between_two_fences_closes_the_right_one() -> None:
    """Where the room for the closing line costs the first fence its own, that one is closed."""
    text = "~~~~~~~~\na\n~~~~~~~~\n```\nb\n"

    for max_bytes in range(18, size(text)):
        assert open_fence(frame(text, max_bytes=max_bytes)) is None


def test_long_thinking_leaves_room_for_the_answer() -> None:
    """Thinking takes half of a frame at most, cut at its end, and is no reason to call the answer cut."""
    shown = frame("<think>" + "想" * 20_000 + "</think>" + "答" * 3000, truncated=NOTICE)

    thought, answer = shown.split("</think>\n\n")
    assert size(thought + "</think>") <= FRAME_BYTES // 2
    assert answer == "答" * 3000


def test_thinking_beyond_its_share_is_left_out() -> None:
    """Once the share is used up, later thinking is not shown; the answers around it are."""
    shown = frame("<think>" + "a" * 100 + "</think>one<think>why</think>two", max_bytes=100)

    assert shown == "<think>" + "a" * 35 + "</think>\n\none\n\ntwo"


def test_thinking_that_meets_the_end_of_the_frame_is_closed() -> None:
    """A frame that ends within thinking still closes the tag, and says that it is cut."""
    text = "a" * 70 + "<think>why why why</think>two"

    assert frame(text, max_bytes=100, truncated="cut") == "a" * 70 + "\n\n<think>why why</think>\n\ncut"


def test_room_for_the_notice_is_kept_while_the_text_grows() -> None:
    """That the text is cut takes back nothing of what was shown before."""
    frames = [frame("a" * length, growing=True, max_bytes=50, truncated="cut") for length in range(100)]

    assert all(
        later.removesuffix("\n\ncut").startswith(sooner.removesuffix("\n\ncut")) for sooner, later in pairwise(frames)
    )
    assert frames[50] == "a" * 45
    assert frames[51] == "a" * 45 + "\n\ncut"
    assert frame("a" * 50, max_bytes=50, truncated="cut") == "a" * 50


@pytest.mark.parametrize("max_bytes", range(12))
def test_even_a_sentence_is_cut_to_the_limit(max_bytes: int) -> None:
    """A limit smaller than the sentences is kept all the same."""
    assert size(frame("text", max_bytes=max_bytes, suffix="失败了", truncated=NOTICE)) <= max_bytes


def test_half_a_surrogate_pair_becomes_a_question_mark() -> None:
    """A frame can always be encoded."""
    assert frame("a\ud800b\nc") == "a?b\n\nc"


@settings(deadline=None)
@given(
    text=MARKDOWN | st.text(),
    max_bytes=st.integers(0, 200),
    growing=st.booleans(),
    suffix=st.sampled_from(["", "失败了"]),
    truncated=st.sampled_from(["", NOTICE]),
    thinking=st.sampled_from(["show", "hide"]),
)
@example(text="~~~~~~\n```\n", max_bytes=12, growing=False, suffix="", truncated="", thinking="show")
def test_no_frame_is_ever_too_long(text: str, max_bytes: int, growing: bool, **options: Any) -> None:
    """Whatever the text and the options, a frame is within its limit and the same each time."""
    shown = frame(text, max_bytes=max_bytes, growing=growing, **options)

    assert size(shown) <= max_bytes
    assert shown == frame(text, max_bytes=max_bytes, growing=growing, **options)


@settings(deadline=None)
@given(text=MARKDOWN.filter(lambda text: "think" not in text), max_bytes=st.integers(40, 200))
def test_the_head_is_never_lost(text: str, max_bytes: int) -> None:
    """A frame is a beginning of the text, apart from white space and the end of a fence."""
    shown = without_space(frame(text, max_bytes=max_bytes, suffix="失败了")).removesuffix("失败了")

    assert without_space(text).startswith(_without_closers(shown))


def _without_closers(shown: str) -> str:
    return re.sub(r"(?:`{3,}|~{3,}|</think>)+$", "", shown)


def _growing_texts() -> st.SearchStrategy[list[str]]:
    """The pieces of answers that may begin with thinking, whose tags stand on lines of their own."""
    pieces = st.lists(PIECES.filter(lambda piece: "think" not in piece), max_size=20)
    thought = pieces.map(lambda inner: ["<think>\n", *inner, "\n</think>\n"])
    return st.tuples(thought | st.just([]), pieces, thought | st.just([]), pieces).map(
        lambda parts: [piece for part in parts for piece in part]
    )


@settings(deadline=None)
@given(pieces=_growing_texts(), thinking=st.sampled_from(["show", "hide"]))
def test_frames_only_grow(pieces: list[str], thinking: str) -> None:
    """Each frame of a growing text continues the one before, apart from white space and what was closed at its end."""
    before = ""
    for end in range(len(pieces) + 1):
        now = without_space(frame("".join(pieces[:end]), growing=True, thinking=thinking, truncated=NOTICE))

        assert now.startswith(before)
        before = _without_closers(now)


@settings(deadline=None)
@given(pieces=_growing_texts(), max_bytes=st.integers(40, 120))
def test_frames_only_grow_at_the_limit_too(pieces: list[str], max_bytes: int) -> None:
    """At the limit a frame may lose a few bytes once, when a later line makes white space before it wider."""
    before = ""
    for end in range(len(pieces) + 1):
        shown = frame("".join(pieces[:end]), growing=True, max_bytes=max_bytes, truncated="…")
        now = without_space(shown).removesuffix("…")

        assert now.startswith(before[: len(before) - 6])
        before = _without_closers(now)


@pytest.mark.parametrize(
    "text", ["字\n" * 2**15, "a<think>b</think>" * 2**14, "🇨" * 2**15, "a" + "\u0301" * 2**17, "```\n" * 2**16]
)
def test_long_texts_take_bounded_time(text: str) -> None:
    """A frame of a long text takes time in proportion to it."""
    started = time.monotonic()

    frame(text, growing=True, truncated=NOTICE, suffix="失败了")

    assert time.monotonic() - started < 20


def test_a_footnote_takes_no_room_from_the_answer() -> None:
    """It stands after a whole text, before what else is said, or not at all."""
    assert frame("text", footnote="note") == "text\n\nnote"
    assert frame("text", footnote="note", suffix="failed") == "text\n\nnote\n\nfailed"
    assert frame("text", footnote="note", growing=True) == "text"
    assert frame("", footnote="note") == ""
    assert frame("a" * 40, footnote="b" * 8, max_bytes=50) == "a" * 40 + "\n\n" + "b" * 8
    assert frame("a" * 40, footnote="b" * 9, max_bytes=50) == "a" * 40
    assert frame("a" * 60, footnote="note", max_bytes=50, truncated="cut") == "a" * 45 + "\n\ncut"
