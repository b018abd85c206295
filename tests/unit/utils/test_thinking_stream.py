"""Thinking and answer of a text that grows, with any way of cutting it."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from utils.markdown.elements.thinking import ThinkingMarks
from utils.thinking import MOST_EXAMINED, TAG, ThinkingStream, split_thinking

PARTS = (
    "<think>", "</think>", "<Reasoning>", "</reasoning>", "<", "think>", "`", "``", "```", "\n", "~~~", " ", "年",
    "a",
)  # fmt: skip


def split(*deltas: str) -> tuple[str, str]:
    """Return the thinking and the answer of a text that comes in these deltas."""
    stream = ThinkingStream()
    pieces = [piece for delta in deltas for piece in stream.feed(delta)] + list(stream.end())
    return tuple("".join(piece.text for piece in pieces if piece.thinking is wanted) for wanted in (True, False))  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("text", "thinking", "answer"),
    [
        ("年假五天", "", "年假五天"),
        ("<think>查手册</think>年假五天", "查手册", "年假五天"),
        ("<think>\n查手册\n</think>\n\n年假五天", "查手册\n", "年假五天"),
        ("<thinking>a</thinking>b<think>c</think>d", "ac", "bd"),
        ("write `<think>` here", "", "write `<think>` here"),
        ("```\n<think>\n```\n<think>x</think>y", "x", "```\n<think>\n```\ny"),
        ("a ` b <think>x</think>y", "x", "a ` b y"),
        ("a < b and </thi", "", "a < b and </thi"),
        ("<think>unfinished", "unfinished", ""),
        ("answer</think>more", "", "answermore"),
        ("<think></think>```<think>x", "x", "```"),
        ("<think>`</think><think>`", "`", "<think>`"),
        ("<think>x</think>~~~\n<think>y</think>", "xy", "~~~\n"),
    ],
)
def test_thinking_is_separated_however_the_text_is_cut(text: str, thinking: str, answer: str) -> None:
    """The whole text at once and one character at a time give the same."""
    assert split(text) == split(*text) == (thinking, answer)


def test_a_cut_tag_is_never_shown() -> None:
    """While a tag may still come, its beginning is held back."""
    stream = ThinkingStream()

    assert [piece for delta in ("年假<thi", "nk>查", "</", "think", ">五天") for piece in stream.feed(delta)] == [
        (False, "年假"),
        (True, "查"),
        (False, "五天"),
    ]


# Measuring coverage would double the time, and the small texts below cover the same lines.
@pytest.mark.no_cover
@pytest.mark.parametrize(
    "text",
    [
        "<think>" * 140_000,
        "`" + "<think></think>" * 65_000,
        "`<think>" * 130_000,
        "<details" * 130_000,
        "`\n" * 500_000,
    ],
    ids=lambda text: repr(text[:12]),
)
def test_a_long_text_takes_bounded_time(text: str) -> None:
    """1 MB, at once or in two pieces, takes less than 3 s of CPU time (0.2 s measured); 5 s where a tag copied it."""
    began = time.thread_time()

    split(text)
    for cut in (len(text), len(text) // 2):
        marks = ThinkingMarks("fold")
        assert marks.feed(text[:cut]) + marks.feed(text[cut:]) + marks.end()

    assert time.thread_time() - began < 3


def test_after_the_most_tags_the_text_is_of_one_kind() -> None:
    """Tags after them are text."""
    thinking, answer = split("<think>a</think>b" * (MOST_EXAMINED // 2) + "<think>c</think>d")

    assert (thinking.count("a"), answer) == (MOST_EXAMINED // 2, "b" * (MOST_EXAMINED // 2) + "<think>c</think>d")


@given(st.lists(st.sampled_from(PARTS), max_size=30), st.data())
def test_a_growing_text_is_split_as_the_whole_one(parts: list[str], data: st.DataObject) -> None:
    """Apart from line breaks at the edges of passages, which the whole text's passages lose on both sides."""
    text = "".join(parts)
    first = TAG.search(text)
    assume(not (first and first[1]))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    deltas = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]

    found = split(*deltas)

    wanted = tuple(
        "".join(part.text for part in split_thinking(text) if part.thinking is kind) for kind in (True, False)
    )
    assert tuple(re.sub(r"\s", "", each) for each in found) == tuple(re.sub(r"\s", "", each) for each in wanted)
