"""Writes a CSV line by line."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence

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
