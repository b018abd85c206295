"""Writes rows as JSON (one object a line), CSV, XLSX, or a table for reading, while they are read."""

from __future__ import annotations

import argparse
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from utils import printable
from utils.formats.csv_writer import csv_lines, plain_number, table_cells
from utils.formats.xlsx_writer import workbook_pieces

Row = Mapping[str, Any]

#: Widest cell of a table, in columns of a terminal.
WIDEST = 40


def add_formats(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose the form of the output."""
    forms = parser.add_mutually_exclusive_group()
    forms.add_argument("--json", dest="form", action="store_const", const="json", help="print one JSON object a line")
    forms.add_argument("--csv", dest="form", action="store_const", const="csv", help="print CSV")
    forms.add_argument("--xlsx", dest="form", action="store_const", const="xlsx", help="write an Excel workbook")
    parser.add_argument("--output", metavar="FILE", default="", help="write there, not to standard output")


def write(rows: Iterable[Row], form: str, *, output: str, names: Sequence[str]) -> None:
    """Write rows with these columns; any number of them needs the memory of a few.

    Raises:
        OSError: the file cannot be written.
    """
    pieces = _pieces(rows, form, names)
    if output:
        with Path(output).open("wb") as file:
            _send(pieces, file)
    else:
        _send(pieces, sys.stdout.buffer)


def _send(pieces: Iterable[bytes], file: BinaryIO) -> None:
    for piece in pieces:
        file.write(piece)
    file.flush()


def _pieces(rows: Iterable[Row], form: str, names: Sequence[str]) -> Iterator[bytes]:
    match form:
        case "json":
            return (f"{as_json(row)}\n".encode() for row in rows)
        case "csv":
            return (line.encode("utf-8", "replace") for line in csv_lines(table_cells(rows, names)))
        case "xlsx":
            return workbook_pieces(table_cells(rows, names))
    return (f"{line}\n".encode("utf-8", "replace") for line in table(rows, names))


def as_json(value: Any) -> str:
    return printable.as_json(value, default=plain_number).encode("utf-8", "replace").decode()


def table(rows: Iterable[Row], names: Sequence[str]) -> Iterator[str]:
    """Yield the lines of a table; cells are one line each, the longest are cut."""
    shown = [list(names), *([_shown(row[name]) for name in names] for row in rows)]
    widths = [max(map(_width, column)) for column in zip(*shown, strict=True)]
    for line in shown:
        yield "  ".join(cell + " " * (width - _width(cell)) for cell, width in zip(line, widths, strict=True)).rstrip()


def first(rows: Iterable[Row], most: int) -> Iterator[Row]:
    """Yield at most so many rows; all of them for 0."""
    return islice(rows, most or None)


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else "-" if value is None else as_json(value)
    line = "".join(letter if letter.isprintable() else " " for letter in text)
    while _width(line) > WIDEST:
        line = line[: -max(2, (len(line) - WIDEST) // 2)] + "…"
    return line


def _width(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)
