"""Citations: `[1]`, `[^1]` and `【1】` become numbers that lead to the source of this number in a page's list."""

from __future__ import annotations

import re

from markdown_it import MarkdownIt
from markdown_it.rules_inline.state_inline import StateInline

CLASS = "cite"
#: Where a citation leads: the page finds the source by the number.
TARGET = re.compile(r"#source-[1-9]\d?")

_NUMBER = r"([1-9]\d?)"
#: A bracket after it would make it a link, or the first of several citations.
_CITATION = re.compile(rf"\[\^?{_NUMBER}\](?![(:]|\[(?!\^?[1-9]\d?\]))|【{_NUMBER}(?:†[^】\n]{{0,40}})?】")


def use_citations(parser: MarkdownIt) -> None:
    """Let the parser read citations; a link that the text defines by a number remains a link."""
    parser.inline.ruler.after("link", "citation", _citation)


def _citation(state: StateInline, silent: bool) -> bool:
    found = _CITATION.match(state.src, state.pos, state.posMax)
    if not found or state.linkLevel or silent:
        # The parser asks silently within a link's words, which must not be taken for a link of their own: [[1]](url).
        return False
    number = found[1] or found[2]
    state.push("sup_open", "sup", 1).attrs = {"class": CLASS}
    state.push("link_open", "a", 1).attrs = {"href": f"#source-{number}"}
    state.push("text", "", 0).content = number
    state.push("link_close", "a", -1)
    state.push("sup_close", "sup", -1)
    state.pos = found.end()
    return True
