"""Markdown for WeCom: single line breaks are kept by blank lines, and nothing else about a text changes."""

from __future__ import annotations

import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.support.properties import examples
from tests.support.texts import squeezed
from utils.markdown.lines import LineState, classify, render_lines
from utils.markdown.wecom import open_fence, render_markdown

#: Texts made of pieces with a meaning in Markdown find far more errors than random letters.
PIECES = st.sampled_from(
    [
        "\n", "\n", "\n\n", "\r\n", "\r", " ", "  ", "    ", "\t", "\u3000", "a", "b c", "年假", "\\", "- ", "* ",
        "1. ", "2) ", "-", "--", "---", "===", "***", "# ", "#", "> ", ">", "|", "| a | b |", "|---|---|", "`",
        "``", "```", "````", "```py", "~~~", "<think>", "</think>", "**", "_", "[x](https://x.example)",
    ]
)  # fmt: skip
MARKDOWN = st.lists(PIECES, max_size=40).map("".join)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("one\ntwo", "one\n\ntwo"),
        ("one  \ntwo", "one  \n\ntwo"),
        ("一、甲\n二、乙\n三、丙", "一、甲\n\n二、乙\n\n三、丙"),
        ("• one\n• two", "• one\n\n• two"),
        ("one\n\u3000\ntwo", "one\n\n\u3000\n\ntwo"),
        ("steps:\n- one\n- two\nend", "steps:\n\n- one\n- two\n\nend"),
        ("steps:\n2. two\n3. three", "steps:\n\n2. two\n3. three"),
        ("> said\nanswer", "> said\n\nanswer"),
        ("code:\n    x = 1\n    y = 2\nend", "code:\n\n    x = 1\n    y = 2\n\nend"),
        ("one\r\ntwo\rthree", "one\n\ntwo\n\nthree"),
        ("title\n-", "title\n\n-"),
        ("- item\n```\nx\n```\n  one\n  two", "- item\n```\nx\n```\n  one\n\n  two"),
        ("    ```\none\ntwo", "    ```\n\none\n\ntwo"),
        ("a\n--\nb", "a\n--\nb"),
    ],
)
def test_single_breaks_become_blank_lines(text: str, expected: str) -> None:
    """A blank line is inserted where the second line would continue the first one's paragraph."""
    assert render_markdown(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("text\n| a | b |\n|---|---|\n| 1 | 2 |", "text\n\n| a | b |\n|---|---|\n| 1 | 2 |"),
        ("# head\na | b\n:-- | --:\n1 | 2\nend", "# head\n\na | b\n:-- | --:\n1 | 2\n\nend"),
        ("- item\n| a |\n|---|", "- item\n\n| a |\n|---|"),
        ("```\nx\n```\n| a |\n|---|", "```\nx\n```\n\n| a |\n|---|"),
        ("| a | b |\n|---|---|\n| 1 | 2 |\n- item", "| a | b |\n|---|---|\n| 1 | 2 |\n- item"),
        ("| no |\n| table |", "| no |\n\n| table |"),
    ],
)
def test_tables_are_separated_by_blank_lines(text: str, expected: str) -> None:
    """A blank line is inserted before a table and before text after it; its rows stay together."""
    assert render_markdown(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n\none\n\n\n\ntwo\n",
        "# one\ntext\n\n## two\ntext",
        "title\n=====\ntext\n\ntitle\n-----\ntext",
        "text\n# head",
        "text\n> quote\n>> deeper",
        "text\n***\ntext",
        "- one\n  more\n  - deeper\n\n      even\n- two\n* three\n+ four\n1. five\n2) six",
        "- one\n\n  a paragraph\n  of the item",
        "```py\nx\n\ny\n- z\n| a |\n|---|\n```",
        "text\n```\nx\ny\n```\ntext",
        "~~~\n```\nx\ny\n~~~",
        "````\n```\nx\ny\n```\nz\n````",
        "1. step\n   ```sh\nunindented\nlines\n   ```\n   more",
        "1. step\n\n        ```sh\n        cmd\n        cmd\n        ```",
        "- ```py\n  x\n  y\n  ```\n- two",
        "```\nnever\nclosed",
        "```\n    ```\nstill\ncode\n```",
        "    x = 1\n    y = 2",
        "`inline\ncode`",
        "a ``b ` c\nd`` e",
    ],
)
def test_blocks_are_unchanged(text: str) -> None:
    """Lists, quotes, headings, code, and inline code over several lines stay byte for byte the same."""
    assert render_markdown(text) == text


@pytest.mark.parametrize(
    "text", ["an `open\ntick", "``x\ny`", "```not a fence```\ny", "2024\nyear", "*em*\n#tag", "1.x\ny"]
)
def test_text_that_only_resembles_a_block_is_text(text: str) -> None:
    """An unclosed backtick, a number, and a mark without the space after it start no block."""
    assert render_markdown(text) == text.replace("\n", "\n\n")


@given(text=MARKDOWN | st.text(max_size=200))
@example("- a\n  \t```\nb\nc")
def test_only_white_space_changes(text: str) -> None:
    """No character other than white space is lost, added or moved."""
    assert squeezed(render_markdown(text)) == squeezed(text)


@given(text=MARKDOWN | st.text(max_size=200))
@example("a\n--\nb\n==")
@example("| a |\n|---\n- | -\nx")
def test_rendering_twice_changes_nothing(text: str) -> None:
    """Rendering is idempotent."""
    once = render_markdown(text)

    assert render_markdown(once) == once


@given(lines=st.lists(st.sampled_from(["word", "两个词", "x = 1", "**bold**", "a, b"]), min_size=1, max_size=20))
def test_every_line_of_plain_text_becomes_a_paragraph(lines: list[str]) -> None:
    """Each line break becomes a blank line."""
    assert render_markdown("\n".join(lines)).split("\n\n") == lines


@given(code=MARKDOWN.filter(lambda text: "~" not in text and "\r" not in text))
def test_fenced_code_is_unchanged(code: str) -> None:
    """Any text between fences stays byte for byte the same."""
    assert render_markdown(f"~~~\n{code}\n~~~") == f"~~~\n{code}\n~~~"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("no fence", None),
        ("```\nclosed\n```", None),
        ("~~~ closed too\n~~~~", None),
        ("inline ```x``` only", None),
        ("text\n```py\ncode", (5, 8, "```")),
        ("````\n```", (0, 4, "````")),
        ("  ~~~\nx", (2, 5, "  ~~~")),
        ("- ```\n  x", (2, 5, "  ```")),
        ("- item\n  - ```", (11, 14, "    ```")),
        ("```\na\n```\n```\nb", (10, 13, "```")),
    ],
)
def test_open_fence_is_found(text: str, expected: tuple[int, int, str] | None) -> None:
    """An unclosed fence is found, with its marker's start and end and the line that would close it."""
    found = open_fence(text)

    assert (found and (found.start, found.end, found.closer)) == expected


@given(text=MARKDOWN)
def test_the_closer_closes_the_fence(text: str) -> None:
    """After the closing line of the open fence no fence is open."""
    text = render_markdown(text)

    if found := open_fence(text):
        assert open_fence(f"{text}\n{found.closer}") is None


# Measuring coverage would double the time, and the small texts above cover the same lines.
@pytest.mark.no_cover
@pytest.mark.parametrize(
    "text",
    [
        "`" * 2**16, "`a" * 2**15, "a\n" * 2**15, "- a\n" * 2**14, "```\n" * 2**14, "|\n" * 2**15,
        "|a|\n|-|\n" * 2**13, "# a\n" * 2**14, "# a\n" * 2**14 + "|", " " * 2**16 + "x", "-" * 2**16,
        "> \n" * 2**14, "".join("`" * n + " " for n in range(360)),
    ],
    ids=lambda text: repr(text[:10]),
)  # fmt: skip
def test_long_texts_take_bounded_time(text: str) -> None:
    """64 KiB of the worst texts take less than 10 s of CPU time (0.1 s measured); a quadratic scan takes a minute."""
    started = time.thread_time()

    render_markdown(text)
    open_fence(text)

    assert time.thread_time() - started < 10


def test_line_breaks_inside_a_quote_are_kept() -> None:
    """Two quoted lines of plain text become two quotes; quoted code, lists, tables and blank lines are unchanged."""
    assert render_markdown("> 一\n> 二") == "> 一\n\n> 二"
    assert render_markdown("> 一\n\n> 二") == "> 一\n\n> 二"
    for kept in ("> ```\n> a\n> b\n> ```", "> - a\n> - b", "> a\n>\n> b", "> `a\n> b`", "> | a |\n> |---|\n> | 1 |"):
        assert render_markdown(kept) == kept


def by_rules(text: str) -> str:
    """Render by the rules, line by line, without the shortcuts for stretches."""
    return render_lines(text.replace("\r\n", "\n").replace("\r", "\n").split("\n"), LineState())[0]


#: Stretches of the kinds that have a shortcut, and texts that narrowly miss being one.
SHORTCUTS = st.sampled_from(
    [
        "一段话", "一段\n两行", "**粗** 体\n2024 年", "# 标题", "# 标题\n文字", "1. 一\n2. 二",
        "- 甲\n  - 乙\n- 丙", "- **甲**：一\n- 乙", "```py\nx = 1\n\ny = 2\n```", "```\nx\n```", "```", "~~~\nx",
        "- a\n---", "* * *", "  - deep", "    code", "- ```\n  x", "文字\n- 表", "a | b\n--|--\n1 | 2",
        "- a | b\n|--|", "x `a\nb` y", "10. ", "1.x", "2024.", "3)", "_a_\nb", "**\nb", "a\n===", "a\n--",
        "> q\n> r", "```a`b", "````\nx\n````",
    ]
)  # fmt: skip
STRETCHES = st.lists(MARKDOWN | SHORTCUTS, max_size=8)


@settings(max_examples=examples(600))
@given(STRETCHES.map("\n\n".join), st.sampled_from(["", "\n", " "]))
@example("```\na\n\n```\nb\n\nc\nd", "")
@example("- a\n\n    ```\n\nx\ny\n\n    ```\nz\nw", "")
def test_shortcuts_for_stretches_give_the_result_of_the_rules(text: str, end: str) -> None:
    """The second rendering, from the cache, gives the same result."""
    assert render_markdown(text + end) == by_rules(text + end)
    assert render_markdown(text + end) == by_rules(text + end)


@settings(max_examples=examples(300))
@given(STRETCHES.map("\n\n".join))
def test_the_shortcut_for_open_fences_finds_the_fence_of_the_rules(text: str) -> None:
    """The fence that is open at the end has the line and the marker that the rules find."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    lines = text.split("\n")
    (_, state) = list(classify(lines, LineState()))[-1]
    found = open_fence(text)

    assert (found is None) is (state.fence is None)
    if found and state.fence:
        assert text[: found.start].count("\n") == state.fence.line
        assert text[found.start : found.end] == state.fence.marker
