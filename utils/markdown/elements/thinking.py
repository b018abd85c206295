"""A model's thinking as a folded part of its answer.

`ThinkingMarks` puts each passage of thinking between two lines that no answer can contain; a rule of the parser makes
one top-level block of them. So thinking grows, is limited and is cut as any other block is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal

from markdown_it import MarkdownIt
from markdown_it.rules_block import StateBlock

from utils.thinking import ThinkingStream

#: Thinking on a page is unfolded, folded, or left out.
PageThinking = Literal["show", "fold", "hide"]

#: The token that opens the block, and its class.
TOKEN = "thinking_open"  # nosec B105: a token of the parser
CLASS = "thinking"

#: The lines around thinking; these control characters are removed from the model's text.
_OPENING = {"fold": "\x02", "show": "\x02\x02"}
CLOSING = "\x03"
_CONTROLS = {2: None, 3: None}

#: How Dify wrote thinking before 1.0: an element with this summary, whose attributes differ between versions.
_OLD_START, _OLD_END = "<details", "</details>"
_OLD = re.compile(
    r"<details[^<>]{0,200}>\s{0,9}<summary>\s{0,9}Thinking\s{0,9}(?:\.\.\.|…)?\s{0,9}</summary>", re.IGNORECASE
)
#: Characters of the longest such beginning.
_MOST_OLD = 290


class ThinkingMarks:
    """Marks the thinking of one growing text."""

    def __init__(self, mode: PageThinking) -> None:
        self._mode = mode
        self._old = _OldTags()
        self._stream = ThinkingStream()
        self._thinking = False

    def feed(self, text: str) -> str:
        """Return the next piece with marks; the beginning of a tag at its end is held back."""
        return self._marked(self._old.feed(text.translate(_CONTROLS)))

    def end(self) -> str:
        """Return the text that was held back, after the end of the text."""
        return self._marked(self._old.end()) + "".join(self._pieces(self._stream.end()))

    def _marked(self, text: str) -> str:
        return "".join(self._pieces(self._stream.feed(text))) if text else ""

    def _pieces(self, pieces: Iterator[tuple[bool, str]]) -> Iterator[str]:
        for thinking, text in pieces:
            hidden = self._mode == "hide"
            if thinking != self._thinking:
                self._thinking = thinking
                yield "\n\n" if hidden else f"\n\n{_OPENING[self._mode]}\n" if thinking else f"\n{CLOSING}\n\n"
            if not (thinking and hidden):
                yield text


class _OldTags:
    """Writes Dify's former elements of thinking as `<think>…</think>` while the text grows."""

    def __init__(self) -> None:
        self._held = ""
        self._inside = False

    def feed(self, text: str) -> str:
        self._held += text
        return "".join(self._decided(final=False))

    def end(self) -> str:
        return "".join(self._decided(final=True))

    def _decided(self, *, final: bool) -> Iterator[str]:
        """Yield the text up to the beginning of a tag that the next piece may complete."""
        text, start = self._held, 0
        while (at := text.find(tag := _OLD_END if self._inside else _OLD_START, start)) >= 0:
            found = None if self._inside else _OLD.match(text, at)
            yield text[start:at]
            if not (self._inside or found or final) and len(text) - at < _MOST_OLD:
                self._held = text[at:]
                return
            start = found.end() if found else at + len(tag)
            if self._inside or found:
                yield "</think>" if self._inside else "<think>"
                self._inside = not self._inside
            else:
                yield tag
        end = len(text) if final else len(text) - _begun(text[start:], tag)
        yield text[start:end]
        self._held = text[end:]


def use_thinking(parser: MarkdownIt) -> None:
    """Let the parser make a block of marked thinking."""
    parser.block.ruler.before("table", "thinking", _block, {"alt": ["paragraph", "reference", "blockquote", "list"]})
    parser.add_render_rule("thinking_summary", lambda *_: "<summary>Thinking</summary>\n")


def without_marks(html: str) -> str:
    """Return HTML without the marks that the parser took for code or words."""
    return html.translate(_CONTROLS) if "\x02" in html or CLOSING in html else html


def _block(state: StateBlock, first: int, end: int, silent: bool) -> bool:
    line = _line(state, first)
    if line not in _OPENING.values() or state.level:
        return False
    if silent:
        return True
    last = next((number for number in range(first + 1, end) if _line(state, number) == CLOSING), end)
    opening = state.push(TOKEN, "details", 1)
    opening.attrSet("class", CLASS)
    if line == _OPENING["show"]:
        opening.attrSet("open", "")
    opening.map = [first, min(last + 1, end)]
    state.push("thinking_summary", "summary", 0)
    outer, state.lineMax = state.lineMax, last
    state.md.block.tokenize(state, first + 1, last)
    state.lineMax = outer
    state.push("thinking_close", "details", -1)
    state.line = min(last + 1, end)
    return True


def _line(state: StateBlock, line: int) -> str:
    return state.src[state.bMarks[line] : state.eMarks[line]]


def _begun(text: str, tag: str) -> int:
    """Return how many characters at the end of a text begin the tag."""
    return next((size for size in range(min(len(tag) - 1, len(text)), 0, -1) if text.endswith(tag[:size])), 0)
