r"""Formulas: `$…$`, `$$…$$`, `\(…\)` and `\[…\]`; a price such as "$5 and $6" is none."""

from __future__ import annotations

import re
from collections.abc import MutableMapping, Sequence
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.rules_block import StateBlock
from markdown_it.rules_inline.state_inline import StateInline
from markdown_it.token import Token
from markdown_it.utils import OptionsDict

from utils.markdown.elements.mathml import MOST_FORMULA, Display, mathml, source

#: Characters of a text's formulas that are shown as MathML; those after them are shown as their source.
MOST_FORMULAS = 5_000
#: The counter of these characters in the parser's environment.
COUNTER = "formulas"

#: The closing mark of each opening one; longer ones first.
_CLOSING = {"$$": "$$", "$": "$", "\\(": "\\)", "\\[": "\\]"}
_BLOCK = ("$$", "\\[")
_CJK = re.compile("[\u3000-\u9fff\uac00-\ud7ff\uff00-\uffef]")
#: Two words, or an amount and a word, side by side: prose between two prices.
_PROSE = re.compile(r"(?:^\d[\d.,]*|[A-Za-z]{2,})[ \t]+[A-Za-z]{2,}")


def use_formulas(parser: MarkdownIt) -> None:
    """Let the parser read formulas."""
    parser.inline.ruler.before("escape", "formula", _inline)
    parser.block.ruler.before(
        "table", "formula_block", _block, {"alt": ["paragraph", "reference", "blockquote", "list"]}
    )
    parser.add_render_rule("formula", _render)


def _inline(state: StateInline, silent: bool) -> bool:
    mark = state.src[state.pos : state.pos + 2]
    mark = mark if mark in _CLOSING else mark[:1]
    if mark not in _CLOSING:
        return False
    start = state.pos + len(mark)
    end = _end(state.src, start, _CLOSING[mark], min(state.posMax, start + MOST_FORMULA + 2))
    latex = state.src[start:end]
    if not latex.strip() or (mark == "$" and not _is_formula(state.src, start, end)):
        return False
    if not silent:
        _push(state, latex, mark)
    state.pos = end + len(mark)
    return True


def _end(text: str, start: int, closing: str, limit: int) -> int:
    """Return where the closing mark is, `start` for nowhere; a dollar after a backslash is none."""
    end = text.find(closing, start, limit)
    while end > start and closing[0] == "$" and text[end - 1] == "\\":
        end = text.find(closing, end + 1, limit)
    return max(end, start)


def _is_formula(text: str, start: int, end: int) -> bool:
    """Return whether the text between two single dollars is a formula rather than words between two amounts."""
    latex, before, after = text[start:end], text[start - 2 : start - 1], text[end + 1 : end + 2]
    if latex[0].isspace() or latex[-1].isspace() or (after.isalnum() and after.isascii()) or after == "$":
        return False
    if (before.isascii() and before.isalnum()) or "\n" in latex or "`" in latex:
        return False
    return "\\" in latex or not (_CJK.search(latex) or _PROSE.search(latex))


def _push(state: StateInline | StateBlock, latex: str, mark: str) -> Token:
    token = state.push("formula", "", 0)
    token.content = latex
    token.meta = {"display": "block" if mark in _BLOCK else "inline"}
    return token


def _block(state: StateBlock, first: int, end: int, silent: bool) -> bool:
    """Take the lines from one that begins with a block's mark to one that ends with its closing mark.

    Lines up to a blank one without a closing mark are one paragraph, also if one begins a list or a heading: while a
    text grows, a block that has begun may only become longer.
    """
    line = _line(state, first)
    mark = line[:2]
    if mark not in _BLOCK or state.is_code_block(first):
        return False
    closing = _CLOSING[mark]
    at = line.find(closing, 2)
    if at == 2 or 2 < at != len(line) - 2:
        return False
    if silent:
        return True
    last = first if at > 0 else _last(state, first + 1, end, closing)
    closed = at > 0 or (last > first and _line(state, last).endswith(closing))
    text = state.getLines(first, last + 1, state.blkIndent, False).strip()
    if closed and text[2:-2].strip():
        _push(state, text[2:-2], mark).map = [first, last + 1]
    else:
        _push_paragraph(state, text, [first, last + 1])
    state.line = last + 1
    return True


def _last(state: StateBlock, first: int, end: int, closing: str) -> int:
    """Return the line that ends with the closing mark, or the last one before a blank line or the container's end."""
    for line in range(first, end):
        if state.isEmpty(line) or state.sCount[line] < state.blkIndent:
            return line - 1
        if _line(state, line).endswith(closing):
            return line
    return end - 1


def _push_paragraph(state: StateBlock, text: str, lines: list[int]) -> None:
    state.push("paragraph_open", "p", 1).map = lines
    words = state.push("inline", "", 0)
    words.content, words.map, words.children = text, lines, []
    state.push("paragraph_close", "p", -1)


def _line(state: StateBlock, line: int) -> str:
    return state.src[state.bMarks[line] + state.tShift[line] : state.eMarks[line]].strip()


def _render(
    renderer: RendererHTML, tokens: Sequence[Token], index: int, options: OptionsDict, env: MutableMapping[str, Any]
) -> str:
    token = tokens[index]
    display: Display = token.meta["display"]
    shown = env.get(COUNTER, 0) + len(token.content)
    if shown <= MOST_FORMULAS:
        env[COUNTER] = shown
    html = mathml(token.content, display) if shown <= MOST_FORMULAS else source(token.content)
    return f"<p>{html}</p>\n" if token.block else html
