"""Results as rows of a table, for CSV and workbooks: which columns there are, and cells that no program executes."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Any

from services.batches.records import Item

#: The columns in order; sources, usage and metadata are cells of JSON. The columns of the submitted file follow.
COLUMNS: tuple[str, ...] = ("index", "text", "status", "content", "error_code", "error_message", "attempts")
COLUMNS += ("sources", "usage", "metadata", "started_at", "completed_at", "id")
#: First characters that make a spreadsheet read a cell as a formula; full-width ones count in East Asian ones.
FORMULA = tuple("=+-@＝＋－＠\t\r\n")
#: Cells that begin like a formula but are none: a signed number, and a list item without a function call, DDE or a
#: reference to another sheet.
_NUMBER = re.compile(r"[-+]\d[\d,]*(\.\d+)?([eE][-+]?\d{1,3})?%?")
_LIST_ITEM = re.compile(r"[-+] +(?![-+=@])(?!.*(?:[\w.]\s*[(（]|[|｜]|[!！]\s*[$\w])).*", re.DOTALL | re.ASCII)
#: Marks a CSV as UTF-8; without it Excel assumes the system's encoding.
BOM = "\ufeff"

Cell = str | int


def table_rows(items: Iterable[Item]) -> Iterator[Sequence[Cell]]:
    """Yield the header and a row for each item; the first item says which columns the submitted file had."""
    left = iter(items)
    first = list(islice(left, 1))
    names = list(first[0].given.columns) if first else []
    # A column of the file may be called as one of ours.
    yield [*COLUMNS, *(harmless(f"{name} (input)" if name in COLUMNS else name) for name in names)]
    for item in chain(first, left):
        yield [*_ours(item.to_dict()), *(harmless(item.given.columns.get(name, "")) for name in names)]


def csv_lines(items: Iterable[Item]) -> Iterator[str]:
    """Yield the CSV with every cell quoted, so that programs with another delimiter split no cell."""
    out = io.StringIO(newline="")
    writer = csv.writer(out, quoting=csv.QUOTE_ALL)
    out.write(BOM)
    for row in table_rows(items):
        writer.writerow(row)
        yield out.getvalue()
        out.seek(0)
        out.truncate()


def harmless(cell: str) -> str:
    """Return text that no spreadsheet reads as a formula: one that looks like a formula gets a leading `'`."""
    bare = cell.strip(" ")
    is_formula = bare.startswith(FORMULA) and not _NUMBER.fullmatch(bare) and not _LIST_ITEM.fullmatch(bare)
    return f"'{cell}" if is_formula else cell


def _ours(item: Mapping[str, Any]) -> list[Cell]:
    error = item["error"] or {}
    values = {**item, "error_code": error.get("code", ""), "error_message": error.get("message", "")}
    return [_cell(values[name]) for name in COLUMNS]


def _cell(value: Any) -> Cell:
    if value is None or isinstance(value, int):
        return "" if value is None else value
    return harmless(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False) if value else "")
