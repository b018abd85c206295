"""Somebody else's words become one short plain line."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.properties import examples
from utils.markdown.plain_text import plain_line


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("查知识库", "查知识库"),
        ("  two\nlines\r\n of\u2028 it ", "two lines of it"),
        (
            "**bold** [link](https://x.invalid) `code` <font color=red>",
            "bold link https://x.invalid code font color=red",
        ),
        ("right\u202eleft\u0000end\u200b", "right left end"),
        ("<think>", "think"),
        ("👨\u200d👩\u200d👧 family", "👨\u200d👩\u200d👧 family"),
        ("\n\t", ""),
    ],
)
def test_markup_and_line_breaks_are_removed(text: str, line: str) -> None:
    """What is left has no meaning in Markdown, HTML or for the writing direction."""
    assert plain_line(text, 60) == line


def test_a_long_line_is_cut_with_an_ellipsis() -> None:
    """The ellipsis counts, and a composed character is kept whole or left out."""
    assert plain_line("字" * 50, 10) == "字" * 9 + "…"
    assert plain_line("12345678👨\u200d👩\u200d👧", 10) == "12345678…"


@settings(max_examples=examples(60))
@given(st.text(), st.integers(2, 40))
def test_a_line_is_bounded(text: str, most: int) -> None:
    """Any text gives one line within the limit."""
    line = plain_line(text, most)

    assert len(line) <= most
    assert len(line.splitlines()) <= 1


def test_a_huge_text_costs_no_more_than_a_short_one() -> None:
    """Only its beginning is looked at."""
    assert plain_line(" " * 10_000_000 + "x", 40) == ""
