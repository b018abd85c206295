"""Writes a CSV line by line."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

from utils.printable import as_json, harmless, printable

#: Marks a CSV as UTF-8; without it Excel assumes the system's encoding.
BOM = "\ufeff"

Cell = str | int | float


def csv_lines(rows: Iterable[Sequence[Cell]]) -> Iterator[str]:
    """Yield the lines with every cell quoted, so that programs with another delimiter split no cell."""
    out = io.StringIO(newline="")
    writer = csv.writer(out, quoting=csv.QUOTE_ALL)
    out.write(BOM)
    for row in rows:
        writer.writerow(row)
        yield out.getvalue()
        out.seek(0)
        out.truncate()


def table_cells(rows: Iterable[Mapping[str, Any]], names: Sequence[str]) -> Iterator[Sequence[Cell]]:
    """Yield a table's header, and the cells of rows in the order of `names`; lists and objects become JSON."""
    yield list(names)
    for row in rows:
        yield [_cell(row[name]) for name in names]


def plain_number(value: Any) -> float:
    """Return an exact amount as a number of JSON.

    Raises:
        TypeError: it is no amount.
    """
    if isinstance(value, Decimal):
        return float(value)
    raise TypeError(type(value).__name__)


def _cell(value: Any) -> Cell:
    if isinstance(value, (int, float)):
        return value
    if isinstance(value, Decimal):
        return float(value)
    if value is None:
        return ""
    return harmless(printable(value) if isinstance(value, str) else as_json(value, default=plain_number))
