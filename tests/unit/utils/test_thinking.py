"""Thinking is separated from the answer, for each of the tags that models use."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from utils.thinking import Thinking, fold_thinking, split_thinking, without_partial_tag


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
    assert fold_thinking("text " + tail, growing=True) == "text "
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
        assert answer.strip().startswith(fold_thinking(text[:end], "hide", growing=True).strip())


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

    fold_thinking(text, growing=True)

    assert time.thread_time() - started < 4
