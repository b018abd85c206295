"""Thinking is told apart from the answer, however the model spells it."""

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
    """Every spelling becomes a closed `<think>` apart from the answer, or goes with "hide"."""
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
def test_tags_in_code_are_words(text: str, mode: Thinking) -> None:
    """A tag in inline or fenced code is what the answer is about, not thinking."""
    assert fold_thinking(text, mode) == text


def test_code_in_thinking_does_not_hide_its_end() -> None:
    """A fence that the thinking left open ends with it."""
    assert fold_thinking("<think>\n```\nx\n</think>\nanswer", "hide") == "answer"


def test_parts_come_in_order() -> None:
    """A text is split into its parts, the blank ones left out."""
    parts = split_thinking("one<think>why</think>\n<think> </think>two")

    assert [(part.thinking, part.text) for part in parts] == [(False, "one"), (True, "why"), (False, "two")]


@pytest.mark.parametrize("tail", ["<", "<t", "</", "</thin", "<thinkin", "<REASON", "<think", "</thoughts"])
def test_half_a_tag_waits_for_the_rest(tail: str) -> None:
    """What may become a tag is not shown while the text grows, and is once it does not."""
    assert without_partial_tag("text " + tail) == "text "
    assert fold_thinking("text " + tail, growing=True) == "text "
    assert fold_thinking("text " + tail) == "text " + tail


@pytest.mark.parametrize("text", ["a < b", "<b", "x<think>", "<thinks", "text", "", "<thi\n"])
def test_other_ends_are_shown_at_once(text: str) -> None:
    """What can no longer become a tag does not wait."""
    assert without_partial_tag(text) == text


@given(
    why=st.text(alphabet="ab \n`", min_size=1).filter(str.strip),
    answer=st.text(alphabet="ab \n", min_size=1).filter(str.strip),
)
def test_no_thinking_leaks_while_it_streams(why: str, answer: str) -> None:
    """With "hide", no beginning of a text shows anything of the thinking or of a tag."""
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
    ],
    ids=lambda text: text[:12],
)
def test_long_texts_take_bounded_time(text: str) -> None:
    """Neither many tags nor many backticks in one line make the split quadratic."""
    started = time.monotonic()

    fold_thinking(text, growing=True)

    assert time.monotonic() - started < 20
