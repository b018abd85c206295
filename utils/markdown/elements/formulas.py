r"""Formulas: `$…$`, `$$…$$`, `\(…\)` and `\[…\]`; a price such as "$5 and $6" is none.

They become MathML, which browsers show without a script: `latex2mathml` converts LaTeX, an allow-list filters the
result. The elements are written here, one by one: the library's own output contains HTML of a formula's `\text`
unescaped.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, MutableMapping, Sequence
from functools import lru_cache
from html import escape
from itertools import accumulate
from typing import Any, Literal
from xml.etree.ElementTree import Element  # nosec B405: elements of the library are read, no XML is parsed

from latex2mathml.converter import Converter
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.rules_block import StateBlock
from markdown_it.rules_inline.state_inline import StateInline
from markdown_it.token import Token
from markdown_it.utils import OptionsDict

log = logging.getLogger(__name__)

Display = Literal["inline", "block"]

#: Characters of a formula at most; a longer one is shown as its source. A formula takes up to 20 ms per 1,000.
MOST_FORMULA = 1000
#: Depth of a formula's braces at most; the time of the conversion is quadratic in it.
MOST_BRACES = 20

TAGS = frozenset({"math", "mrow", "mi", "mn", "mo", "mtext", "mspace", "mfrac", "msqrt", "mroot", "msup", "msub"})
TAGS |= {
    "msubsup",
    "mover",
    "munder",
    "munderover",
    "mtable",
    "mtr",
    "mtd",
    "mstyle",
    "mpadded",
    "mphantom",
    "menclose",
}
_TRUTH = frozenset({"true", "false"})
_SIDES = frozenset({"left", "center", "right"})
#: The attributes that remain, with their values.
VALUES: dict[str, frozenset[str]] = {
    "display": frozenset({"inline", "block"}),
    "stretchy": _TRUTH,
    "fence": _TRUTH,
    "accent": _TRUTH,
    "movablelimits": _TRUTH,
    "largeop": _TRUTH,
    "displaystyle": _TRUTH,
    "form": frozenset({"prefix", "infix", "postfix"}),
    "mathvariant": frozenset({"normal", "bold", "italic", "bold-italic", "script", "sans-serif", "monospace"}),
    "scriptlevel": frozenset({"0", "1", "2"}),
    "linethickness": frozenset({"0"}),
    "columnalign": _SIDES,
    "linebreak": frozenset({"newline"}),
    "notation": frozenset({"box", "updiagonalstrike", "downdiagonalstrike", "horizontalstrike"}),
}
#: The attributes that are lengths; a longer one might put a formula over other text.
LENGTHS = frozenset({"width", "height", "depth", "voffset", "minsize", "maxsize", "mathsize"})
_LENGTH = re.compile(r"[+-]?[0-3]?(?:\.\d{1,4})?(?:em|ex)|0(?:px)?")

#: Commands that define others: a definition that doubles itself would take for ever.
_DEFINES = re.compile(r"\\(?:def|gdef|edef|xdef|let|(?:re)?new|provide|Declare)")
#: Environments that the library lacks, and the most similar ones that it has.
_ENVIRONMENTS = {"aligned": "align*", "gathered": "matrix", "gather": "matrix", "gather*": "matrix", "dcases": "cases"}
_ENVIRONMENT = re.compile(r"\\(begin|end)\{(\w+\*?)\}")
_OUTER = re.compile(r"\\(?:begin|end)\{equation\*?\}")
#: A character of a formula's words that LaTeX needs a backslash before; the library leaves it there.
_ESCAPED = re.compile(r"\\([$%&#_{}])")
_BRACE = re.compile("[{}]")
_ENTITY = re.compile(r"&#x([0-9A-Fa-f]{1,6});")


def mathml(latex: str, display: Display) -> str:
    """Return a formula as MathML, or as its source in `<code>` if it is too long or cannot be read."""
    return _converted(latex, display) or source(latex)


def source(latex: str) -> str:
    """Return a formula as it is written."""
    return f'<code class="math">{escape(latex.strip(), quote=False)}</code>'


def is_allowed(attribute: str, value: str) -> bool:
    """Return whether an attribute of MathML remains with this value."""
    return bool(_LENGTH.fullmatch(value)) if attribute in LENGTHS else value in VALUES.get(attribute, ())


@lru_cache(maxsize=256)
def _converted(latex: str, display: Display) -> str:
    """Return a formula as MathML, "" if it is too long or cannot be read."""
    if len(latex) > MOST_FORMULA or _DEFINES.search(latex) or _depth(latex) > MOST_BRACES:
        return ""
    known = _ENVIRONMENT.sub(
        lambda found: f"\\{found[1]}{{{_ENVIRONMENTS.get(found[2], found[2])}}}", _OUTER.sub("", latex)
    )
    try:
        return "".join(_written(Converter(display=display).convert_to_element(known)))
    except Exception as exc:
        # The library has no base class for its errors: it also raises IndexError, KeyError and RecursionError.
        log.debug("a formula is shown as its source: %s", type(exc).__name__)
        return ""


def _depth(latex: str) -> int:
    return max(accumulate(1 if brace == "{" else -1 for brace in _BRACE.findall(latex)), default=0)


def _written(element: Element) -> Iterator[str]:
    """Yield an element as HTML; an unknown one without its tag, unknown attributes not at all."""
    known = element.tag in TAGS
    if known:
        kept = [f' {name}="{value}"' for name, value in element.attrib.items() if is_allowed(name, value)]
        yield f"<{element.tag}{''.join(kept)}>"
    words = _ESCAPED.sub(r"\1", element.text or "") if element.tag == "mtext" else element.text or ""
    yield escape(_ENTITY.sub(_character, words), quote=False)
    for child in element:
        yield from _written(child)
    if known:
        yield f"</{element.tag}>"


def _character(entity: re.Match[str]) -> str:
    number = int(entity[1], 16)
    return chr(number) if number <= 0x10FFFF else ""


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
