"""Text from outside, as people and programs print it: without control codes and formulas, and as JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

#: Control codes, which could move a terminal's cursor, change its colours or turn the direction of its text: those that
#: JSON does not escape, and all.
_BEYOND_ASCII = (*range(0x7F, 0xA0), 0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
_CONTROLS = (*(code for code in range(0x20) if chr(code) not in "\n\t"), *_BEYOND_ASCII)
_HARMLESS = dict.fromkeys(_CONTROLS, "\ufffd") | {0x0D: None}
_ESCAPED = {code: f"\\u{code:04x}" for code in _BEYOND_ASCII}


def printable(text: str) -> str:
    """Return text with U+FFFD in the place of control codes, but for line feeds and tabs."""
    return text.translate(_HARMLESS)


def as_json(value: Any, *, indent: int | None = None, default: Callable[[Any], Any] | None = None) -> str:
    """Return a value as JSON for people and programs: control codes are escaped, other letters are not."""
    return json.dumps(value, ensure_ascii=False, indent=indent, default=default).translate(_ESCAPED)


#: First characters that make a spreadsheet read a cell as a formula; full-width ones count in East Asian ones.
_FORMULA = tuple("=+-@＝＋－＠\t\r\n")
#: Cells that begin like a formula but are none: a signed number, and a list item without a function call, DDE or a
#: reference to another sheet.
_NUMBER = re.compile(r"[-+]\d[\d,]*(\.\d+)?([eE][-+]?\d{1,3})?%?")
_LIST_ITEM = re.compile(r"[-+] +(?![-+=@])(?!.*(?:[\w.]\s*[(（]|[|｜]|[!！]\s*[$\w])).*", re.DOTALL | re.ASCII)


def harmless(cell: str) -> str:
    """Return text that no spreadsheet reads as a formula: one that looks like a formula gets a leading `'`."""
    bare = cell.strip(" ")
    is_formula = bare.startswith(_FORMULA) and not _NUMBER.fullmatch(bare) and not _LIST_ITEM.fullmatch(bare)
    return f"'{cell}" if is_formula else cell
