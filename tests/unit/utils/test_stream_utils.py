"""WeCom frames: within the size limit, with closed tags and fences, and growing with the text."""

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
from tests.support.texts import squeezed
from tests.unit.utils.markdown.test_markdown import MARKDOWN, PIECES
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
def test_clip_keeps_characters_and_grapheme_clusters_whole(text: str, max_bytes: int, expected: str) -> None:
    """A cut is between characters, and inside a cluster only if it is very long or nothing else would be left."""
    assert clip_utf8(text, max_bytes) == expected


@settings(deadline=None)
@given(text=st.text(), max_bytes=st.integers(-1, 60))
def test_clip_returns_a_beginning_that_fits(text: str, max_bytes: int) -> None:
    """The result is a beginning of the text within the limit, and the whole text if it fits."""
    clipped = clip_utf8(text, max_bytes)

    assert text.startswith(clipped)
    assert size(clipped) <= max(0, max_bytes)
    assert clipped == text or size(text) > max_bytes


@settings(deadline=None)
@given(text=st.text(alphabet="ab年😀"), max_bytes=st.integers(0, 60))
def test_clip_of_plain_characters_is_as_long_as_possible(text: str, max_bytes: int) -> None:
    """Without combining characters, one more character would not fit."""
    clipped = clip_utf8(text, max_bytes)

    assert not any(unicodedata.combining(character) for character in text)
    assert clipped == text or size(text[: len(clipped) + 1]) > max_bytes


@settings(max_examples=examples(500))
@given(
    text=MARKDOWN | MARKDOWN.map("\n\n".join) | st.text(),
    max_bytes=st.integers(0, 80),
    truncated=st.sampled_from(["", NOTICE]),
    footnote=st.sampled_from(["", "来源"]),
    growing=st.booleans(),
)
@example(text="\ud800", max_bytes=40, truncated="", footnote="", growing=True)
@example(text="\n \n", max_bytes=40, truncated="", footnote="来源", growing=False)
@example(text="一\n```\n二", max_bytes=80, truncated="", footnote="来源", growing=False)
@example(text="一二", max_bytes=10, truncated="", footnote="来源", growing=False)
def test_the_shortcut_for_plain_frames_gives_the_same_frame(
    text: str, max_bytes: int, truncated: str, footnote: str, growing: bool
) -> None:
    """`render_frame` equals `compose_frame`, the general case."""
    beginning = settled(text) if growing else text
    sentences = {"truncated": truncated, "footnote": footnote}
    general = compose_frame(beginning, "", *sentences.values(), max_bytes=max_bytes, growing=growing, thinking="show")

    assert frame(text, growing=growing, max_bytes=max_bytes, **sentences) == general


def test_a_frame_shows_thinking_and_line_breaks() -> None:
    """Thinking is in one `<think>` tag, or left out with "hide"; single line breaks become blank lines."""
    assert frame("<thinking>one\ntwo</thinking>three\nfour") == "<think>one\n\ntwo</think>\n\nthree\n\nfour"
    assert frame("<think>one\ntwo</think>three\nfour", thinking="hide") == "three\n\nfour"


def test_open_thinking_is_closed_in_every_frame() -> None:
    """While the model thinks, each frame closes the tag and an open fence inside it."""
    assert frame("<think>one\n```\ntwo", growing=True) == "<think>one\n```\ntwo\n```</think>"


@pytest.mark.parametrize("text", ["", "\n\n", "  ", "<think>", "<think></think>\n"])
def test_without_text_a_frame_has_only_the_suffix(text: str) -> None:
    """A text with nothing to show gives an empty frame, or the suffix alone."""
    assert frame(text) == ""
    assert frame(text, growing=True) == ""
    assert frame(text, suffix="失败了") == "失败了"


def test_the_suffix_is_a_paragraph_of_its_own() -> None:
    """It follows a blank line; a fence that is open before it is closed."""
    assert frame("text\n", suffix="失败了") == "text\n\n失败了"
    assert frame("- a\n  ```py\n  x", suffix="失败了") == "- a\n  ```py\n  x\n  ```\n\n失败了"
    assert frame("```\nx\n```", suffix="失败了") == "```\nx\n```\n\n失败了"


def test_open_fence_is_closed_before_thinking() -> None:
    """A code fence that is open when thinking begins is closed before the thinking."""
    text = "<think>one</think>```py\nx\n<think>two</think>"

    assert frame(text) == "<think>one</think>\n\n```py\nx\n```\n\n<think>two</think>"


def test_an_open_fence_at_the_end_stays_open() -> None:
    """If nothing follows, it is not closed, because the next delta may belong to the code."""
    assert frame("```py\nx", growing=True) == "```py\nx"


@pytest.mark.parametrize("tail", ["`", "``", "~", "~~", "<thi"])
def test_an_incomplete_fence_or_tag_is_held_back(tail: str) -> None:
    """The beginning of a fence or tag is shown when it is complete, or when the text is."""
    assert frame("text\n" + tail, growing=True) == "text"
    assert frame("text\n" + tail) == "text\n\n" + tail


def test_a_text_of_exactly_the_limit_is_shown_whole() -> None:
    """20480 bytes fit into a frame; a longer text is cut between characters, and the notice is added."""
    whole = "年" * (FRAME_BYTES // 3) + "ab"
    assert size(whole) == FRAME_BYTES

    assert frame(whole, truncated=NOTICE) == whole
    cut = frame(whole + "c", truncated=NOTICE)
    assert cut.endswith("年\n\n" + NOTICE)
    assert FRAME_BYTES - 3 < size(cut) <= FRAME_BYTES


def test_a_cut_text_can_have_a_notice_and_a_suffix() -> None:
    """A cut text of a failed answer has both sentences, within the limit."""
    cut = frame("a" * 100, max_bytes=50, truncated="cut", suffix="failed")

    assert cut == "a" * 37 + "\n\ncut\n\nfailed"
    assert size(cut) == 50


def test_a_cut_inside_code_closes_the_fence() -> None:
    """The closing line is within the limit; a fence that is cut in its opening line is left out."""
    text = "text\n```python\n" + "x = 1\n" * 20

    assert frame(text, max_bytes=40) == "text\n```python\nx = 1\nx = 1\nx = 1\nx =\n```"
    assert frame(text, max_bytes=11) == "text"
    assert frame("- ```\n  x", max_bytes=8) == "-"
    assert frame(text, max_bytes=7) == "text"


def test_a_cut_between_two_fences_closes_the_right_one() -> None:
    """If the room for the closing line displaces the first fence's own, the first fence is closed."""
    text = "~~~~~~~~\na\n~~~~~~~~\n```\nb\n"

    for max_bytes in range(18, size(text)):
        assert open_fence(frame(text, max_bytes=max_bytes)) is None


def test_thinking_takes_at_most_half_of_a_frame() -> None:
    """Longer thinking is cut at its end, without the notice; the answer keeps its room."""
    shown = frame("<think>" + "想" * 20_000 + "</think>" + "答" * 3000, truncated=NOTICE)

    thought, answer = shown.split("</think>\n\n")
    assert size(thought + "</think>") <= FRAME_BYTES // 2
    assert answer == "答" * 3000


def test_thinking_beyond_its_share_is_omitted() -> None:
    """After its share is used up, later thinking is not shown; the answers around it are."""
    shown = frame("<think>" + "a" * 100 + "</think>one<think>why</think>two", max_bytes=100)

    assert shown == "<think>" + "a" * 35 + "</think>\n\none\n\ntwo"


def test_thinking_cut_at_the_end_of_a_frame_is_closed() -> None:
    """A frame that ends inside thinking closes the tag and has the notice."""
    text = "a" * 70 + "<think>why why why</think>two"

    assert frame(text, max_bytes=100, truncated="cut") == "a" * 70 + "\n\n<think>why why</think>\n\ncut"


def test_room_for_the_notice_is_reserved_while_the_text_grows() -> None:
    """Adding the notice removes no text that an earlier frame showed."""
    frames = [frame("a" * length, growing=True, max_bytes=50, truncated="cut") for length in range(100)]

    assert all(
        later.removesuffix("\n\ncut").startswith(sooner.removesuffix("\n\ncut")) for sooner, later in pairwise(frames)
    )
    assert frames[50] == "a" * 45
    assert frames[51] == "a" * 45 + "\n\ncut"
    assert frame("a" * 50, max_bytes=50, truncated="cut") == "a" * 50


@pytest.mark.parametrize("max_bytes", range(12))
def test_a_suffix_is_cut_to_the_limit(max_bytes: int) -> None:
    """A limit smaller than notice and suffix is kept, too."""
    assert size(frame("text", max_bytes=max_bytes, suffix="失败了", truncated=NOTICE)) <= max_bytes


def test_a_lone_surrogate_becomes_a_question_mark() -> None:
    """Every frame can be encoded in UTF-8."""
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
def test_no_frame_exceeds_its_limit(text: str, max_bytes: int, growing: bool, **options: Any) -> None:
    """For any text and options the frame is within the limit, and the same when rendered again."""
    shown = frame(text, max_bytes=max_bytes, growing=growing, **options)

    assert size(shown) <= max_bytes
    assert shown == frame(text, max_bytes=max_bytes, growing=growing, **options)


@settings(deadline=None)
@given(text=MARKDOWN.filter(lambda text: "think" not in text), max_bytes=st.integers(40, 200))
def test_a_cut_frame_is_a_beginning_of_the_text(text: str, max_bytes: int) -> None:
    """This holds apart from white space and a fence's closing line."""
    shown = squeezed(frame(text, max_bytes=max_bytes, suffix="失败了")).removesuffix("失败了")

    assert squeezed(text).startswith(_without_closers(shown))


def _without_closers(shown: str) -> str:
    return re.sub(r"(?:`{3,}|~{3,}|</think>)+$", "", shown)


def _growing_texts() -> st.SearchStrategy[list[str]]:
    """Generate the pieces of answers with optional thinking, whose tags are on lines of their own."""
    pieces = st.lists(PIECES.filter(lambda piece: "think" not in piece), max_size=20)
    thought = pieces.map(lambda inner: ["<think>\n", *inner, "\n</think>\n"])
    return st.tuples(thought | st.just([]), pieces, thought | st.just([]), pieces).map(
        lambda parts: [piece for part in parts for piece in part]
    )


@settings(deadline=None)
@given(pieces=_growing_texts(), thinking=st.sampled_from(["show", "hide"]))
def test_frames_only_grow(pieces: list[str], thinking: str) -> None:
    """Each frame of a growing text continues the previous one, apart from white space and closing tags and fences."""
    before = ""
    for end in range(len(pieces) + 1):
        now = squeezed(frame("".join(pieces[:end]), growing=True, thinking=thinking, truncated=NOTICE))

        assert now.startswith(before)
        before = _without_closers(now)


@settings(deadline=None)
@given(pieces=_growing_texts(), max_bytes=st.integers(40, 120))
@example(pieces=["<think>\n", "```", "`", "\n</think>\n"], max_bytes=44)
def test_frames_at_the_limit_lose_at_most_a_few_bytes(pieces: list[str], max_bytes: int) -> None:
    """At the limit a frame may lose up to 6 characters, when a later line widens the white space before it.

    It also loses a fence that grows until the line that closes it has no room, and thinking of nothing else.
    """
    before = ""
    for end in range(len(pieces) + 1):
        shown = frame("".join(pieces[:end]), growing=True, max_bytes=max_bytes, truncated="…")
        now = squeezed(shown).removesuffix("…")

        assert now.startswith(before[: len(before) - 6])
        before = _without_closers(now).rstrip("`~").removesuffix("<think>")


@pytest.mark.parametrize(
    "text", ["字\n" * 2**13, "a<think>b</think>" * 2**12, "🇨" * 2**13, "a" + "\u0301" * 2**15, "```\n" * 2**14]
)
def test_long_texts_take_bounded_time(text: str) -> None:
    """Up to 70 KB of the worst texts take less than 10 s of CPU time (0.2 s measured), unlike a quadratic scan."""
    started = time.thread_time()

    frame(text, growing=True, truncated=NOTICE, suffix="失败了")

    assert time.thread_time() - started < 10


def test_a_footnote_is_shown_only_if_all_of_it_fits() -> None:
    """It follows a complete, uncut text and precedes the suffix; otherwise it is omitted."""
    assert frame("text", footnote="note") == "text\n\nnote"
    assert frame("text", footnote="note", suffix="failed") == "text\n\nnote\n\nfailed"
    assert frame("text", footnote="note", growing=True) == "text"
    assert frame("", footnote="note") == ""
    assert frame("a" * 40, footnote="b" * 8, max_bytes=50) == "a" * 40 + "\n\n" + "b" * 8
    assert frame("a" * 40, footnote="b" * 9, max_bytes=50) == "a" * 40
    assert frame("a" * 60, footnote="note", max_bytes=50, truncated="cut") == "a" * 45 + "\n\ncut"
