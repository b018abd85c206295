"""Citations on pages: numbers that lead to the sources below an answer."""

from __future__ import annotations

import pytest

from utils.markdown.blocks import render_markdown


def numbers(markdown: str) -> list[str]:
    """Return the numbers of the citations in a text's HTML."""
    chips = render_markdown(markdown).split('<sup class="cite"><a href="#source-')[1:]
    assert all(f">{chip.split(chr(34))[0]}</a></sup>" in chip for chip in chips)
    return [chip.split('"')[0] for chip in chips]


@pytest.mark.parametrize(
    ("markdown", "cited"),
    [
        ("Ten days [1].", ["1"]),
        ("Ten days[1][12].", ["1", "12"]),
        ("Ten days [^2]", ["2"]),
        ("十天【3】，五天【4†source】。", ["3", "4"]),
        ("| a |\n|---|\n| ten [1] |", ["1"]),
        ("**Ten [1]**", ["1"]),
    ],
)
def test_a_number_in_brackets_is_a_citation(markdown: str, cited: list[str]) -> None:
    """The common forms of models lead to the source of that number."""
    assert numbers(markdown) == cited


@pytest.mark.parametrize(
    "markdown",
    [
        "`a[1]`",
        "```\na[1]\n```",
        "a[0] [100] [x] 【见】",
        "[1](https://a.example)",
        "[[1]](https://a.example)",
        "[see [1]](https://a.example)",
        "[1]\n\n[1]: https://a.example",
        "[1]: no address",
    ],
)
def test_other_brackets_are_no_citations(markdown: str) -> None:
    """Code, links and their definitions stay what they are."""
    assert numbers(markdown) == []
