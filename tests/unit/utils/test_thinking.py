"""Thinking is separated from the answer, for each of the tags that models use."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from utils.markdown.elements.thinking import ThinkingMarks
from utils.thinking import (
    MOST_EXAMINED,
    TAG,
    Thinking,
    ThinkingStream,
    fold_thinking,
    split_thinking,
    without_partial_tag,
)


@pytest.mark.parametrize(
    ("text", "shown", "hidden"),
    [
        ("answer\n", "answer\n", "answer\n"),
        ("", "", ""),
        ("<think>why</think>\n\nanswer", "<think>why</think>\n\nanswer", "answer"),
        ("<think>\nwhy\n</think>\nanswer", "<think>why</think>\n\nanswer", "answer"),
        ("<thinking>why</thinking>answer", "<think>why</think>\n\nanswer", "answer"),
        ("<Thought>why</THOUGHT>answer", "<think>why</think>\n\nanswer", "answer"),
        ("<reasoning>why</think>answer", "<think>why</think>\n\nanswer", "answer"),
        ("<think>why", "<think>why</think>", ""),
        ("<think>", "", ""),
        ("<think>\n\n</think>\n\nanswer", "answer", "answer"),
        ("one\n<think>why</think>\ntwo", "one\n\n<think>why</think>\n\ntwo", "one\n\ntwo"),
        ("<think>a<think>b</think>c", "<think>ab</think>\n\nc", "c"),
        ("</think>\n\nanswer", "answer", "answer"),
        ("why\n</think>\n\nanswer", "<think>why</think>\n\nanswer", "answer"),
        ("why\n</think>", "<think>why</think>", ""),
        ("say `<think>`\n</think>", "say `<think>`", "say `<think>`"),
        ("say `</think>`\n<think>why</think>", "say `</think>`\n\n<think>why</think>", "say `</think>`"),
        ("one\n</think>\ntwo\n</think>\nthree", "<think>one</think>\n\ntwo\n\nthree", "two\n\nthree"),
        ("its end is </think> here", "its end is  here", "its end is  here"),
        ("<thinker>why</thinker>", "<thinker>why</thinker>", "<thinker>why</thinker>"),
    ],
)
def test_thinking_is_shown_in_one_closed_tag_or_not_at_all(text: str, shown: str, hidden: str) -> None:
    """Every kind of tag becomes a closed `<think>` with a blank line around it; with "hide" thinking is removed."""
    assert fold_thinking(text) == shown
    assert fold_thinking(text, "hide") == hidden


@pytest.mark.parametrize(
    "text",
    [
        "use `<think>` and `</think>` so",
        "```xml\n<think>why</think>\n```\nanswer",
        "~~~\n</think>\n~~~",
        "``a ` <think>``",
    ],
)
@pytest.mark.parametrize("mode", ["show", "hide"])
def test_tags_in_code_are_text(text: str, mode: Thinking) -> None:
    """A tag in inline or fenced code does not start thinking."""
    assert fold_thinking(text, mode) == text


def test_thinking_ends_inside_an_open_code_fence() -> None:
    """The closing tag also closes a fence that the thinking left open."""
    assert fold_thinking("<think>\n```\nx\n</think>\nanswer", "hide") == "answer"


def test_passages_are_returned_in_order() -> None:
    """Blank passages are left out."""
    parts = split_thinking("one<think>why</think>\n<think> </think>two")

    assert [(part.thinking, part.text) for part in parts] == [(False, "one"), (True, "why"), (False, "two")]


@pytest.mark.parametrize("tail", ["<", "<t", "</", "</thin", "<thinkin", "<REASON", "<think", "</thoughts"])
def test_an_incomplete_tag_is_held_back(tail: str) -> None:
    """An end that may become a tag is not shown while the text grows; in a complete text it is shown."""
    assert without_partial_tag("text " + tail) == "text "
    assert fold_thinking("text " + tail) == "text " + tail


@pytest.mark.parametrize("text", ["a < b", "<b", "x<think>", "<thinks", "text", "", "<thi\n"])
def test_other_ends_are_not_held_back(text: str) -> None:
    """An end that cannot become a tag is shown at once."""
    assert without_partial_tag(text) == text


@given(
    why=st.text(alphabet="ab \n`", min_size=1).filter(str.strip),
    answer=st.text(alphabet="ab \n", min_size=1).filter(str.strip),
)
def test_hidden_thinking_is_never_shown_while_it_streams(why: str, answer: str) -> None:
    """With "hide", no beginning of a growing text shows part of the thinking or of a tag."""
    text = f"<think>{why}</think>{answer}"

    for end in range(len(text)):
        assert answer.strip().startswith(fold_thinking(without_partial_tag(text[:end]), "hide").strip())


@pytest.mark.parametrize(
    "text",
    [
        "<think></think>" * 2**14,
        "a<think>b</think>" * 2**14,
        "`a`<think>b</think>" * 2**14,
        "<" * 2**18,
        "`<think>" * 2**15,
        "`" + "\n" * 2**22 + "<think>",
    ],
    ids=lambda text: repr(text[:12]),
)
def test_long_texts_take_bounded_time(text: str) -> None:
    """Many tags or backticks, also in one line, do not make the split quadratic; lines without a tag cost nothing."""
    started = time.thread_time()

    fold_thinking(without_partial_tag(text))

    assert time.thread_time() - started < 4


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
