"""Keeps text from being executed as a formula by a spreadsheet that opens a table."""

from __future__ import annotations

import re

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
