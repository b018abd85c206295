"""Markdown as plain text, what a reader sees of it; and any text as one short plain line."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.properties import examples
from utils.markdown.plain_text import plain_line, plain_text

MOST = 65_534


@pytest.mark.parametrize(
    ("markdown", "text"),
    [
        ("# 标题\n\n**重点**和`代码`", "标题\n\n重点和代码"),
        ("见[手册](https://a.test/h)，[附件](/files/x.pdf)与<https://b.test>", "见手册 (https://a.test/h)，附件与https://b.test"),
        ("![图](/files/a.png) a < b &amp; c", "图 a < b & c"),
        ("- [x] 完成\n- [ ] 未完\n* ~~作废~~ a_b_c\n  + 里面\n1. 一", "☑ 完成\n☐ 未完\n• 作废 a_b_c\n  • 里面\n1. 一"),
        ("> 引用\n> > 再引用", "引用\n再引用"),
        ("| 假期 | 天数 |\n|---|:-:|\n| **年假** | 5 |", "假期 | 天数\n年假 | 5"),
        ("前\n```python\na = **b\n# no head\n```\n后\n\n---\n", "前\na = **b\n# no head\n后"),
        ("`**a**` 2*3*4 a * b * c", "**a** 2*3*4 a * b * c"),
        ("*斜*、***都***、__粗__、_斜_ \\*星\\*", "斜、都、粗、斜 *星*"),
        ("<think>想\n想</think>五天", "五天"),
        ("一<br>二\r\n三\n\n\n\n四", "一\n二\n三\n\n四"),
        ("", ""),
    ],
)  # fmt: skip
def test_marks_are_removed(markdown: str, text: str) -> None:
    assert plain_text(markdown, MOST) == text


@pytest.mark.parametrize(
    "mark", ["**a", "[", "[a](", "![a", "`", "_a ", "*a*", "~~a", "> ", "| a ", "- ", "<br>", "\\", "```\n"]
)
def test_a_hostile_text_takes_linear_time(mark: str) -> None:
    """What a cell holds takes less than a second of CPU time, a bound that a quadratic expression would exceed."""
    begun = time.thread_time()
    plain_text(mark * MOST, MOST)

    assert time.thread_time() - begun < 1.0


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
