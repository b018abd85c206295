"""LaTeX as MathML, which browsers show without a script: `latex2mathml` converts it, an allow-list filters the result.

Its elements are written here, one by one: the library's own output contains HTML of a formula's `\\text` unescaped.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from functools import lru_cache
from html import escape
from itertools import accumulate
from typing import Literal
from xml.etree.ElementTree import Element  # nosec B405: elements of the library are read, no XML is parsed

from latex2mathml.converter import Converter

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
