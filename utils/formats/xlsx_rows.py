"""The rows of a workbook's sheet as text, within bounds: a small file may unpack to anything."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, time
from io import BytesIO
from itertools import islice
from typing import Any
from zipfile import ZipFile

from openpyxl import Workbook, load_workbook
from openpyxl.utils.escape import unescape

#: How every such file begins: it is a ZIP.
MAGIC = b"PK\x03\x04"
#: Parts of a workbook, and bytes they may unpack to together. No part is read further than it claims to be long.
MAX_PARTS = 2_000
MAX_UNPACKED = 128 * 1024 * 1024
#: Rows that are read, as many as a sheet can have, and columns of each.
MAX_ROWS = 1_048_576
MAX_COLUMNS = 256
#: How a formula begins in a sheet's XML, bytes that are looked through at once, and the longest such beginning.
_FORMULA = re.compile(rb"<(?:\w{1,20}:)?f[\s/>]")
READ_BYTES, LONGEST_TAG = 1024 * 1024, 32


class Unreadable(Exception):
    """It is no workbook, or a broken one."""


class TooComplex(Exception):
    """It would unpack to more than is taken."""


def sheet_rows(content: bytes, sheet: str = "") -> Iterator[list[str]]:
    """Yield the rows of a sheet as text, of formulas what they last came to; "" is the first that is not hidden.

    Raises:
        Unreadable, TooComplex: see there.
        KeyError: no sheet has this name, or all are hidden.
    """
    rows = _rows(_opened(content), sheet)
    with _reading():
        for row in islice(rows, MAX_ROWS):
            yield [_text(cell) for cell in row[:MAX_COLUMNS]]
        if next(rows, None) is not None:
            raise TooComplex


def unvalued_formulas(content: bytes, sheet: str, column: int | None) -> int:
    """Return how many formulas of a column have no value; None for all columns.

    Excel writes what a formula came to beside it, other programs leave it to be calculated when the file is opened.

    Raises:
        Unreadable, TooComplex, KeyError: as `sheet_rows`.
    """
    if not _has_formulas(content):
        return 0
    values, formulas = (_rows(_opened(content, values=values), sheet) for values in (True, False))
    cells = slice(MAX_COLUMNS) if column is None else slice(column, column + 1)
    with _reading():
        return sum(
            value is None and formula is not None
            for valued, written in zip(islice(values, MAX_ROWS), formulas, strict=False)
            for value, formula in zip(valued[cells], written[cells], strict=False)
        )


def _has_formulas(content: bytes) -> bool:
    """Look at the parts as they are: a workbook is parsed once more only where it has a formula."""
    with _reading(), ZipFile(BytesIO(content)) as archive:
        sheets = [name for name in archive.namelist() if name.startswith("xl/worksheets/")]
        return any(_has_formula(archive, name) for name in sheets)


def _has_formula(archive: ZipFile, name: str) -> bool:
    before = b""
    with archive.open(name) as part:
        while piece := part.read(READ_BYTES):
            if _FORMULA.search(before + piece):
                return True
            before = piece[-LONGEST_TAG:]
    return False


def _opened(content: bytes, *, values: bool = True) -> Workbook:
    """Open a workbook; of formulas it has what they last came to, or else the formulas."""
    with _reading():
        parts = ZipFile(BytesIO(content)).infolist()
    if len(parts) > MAX_PARTS or sum(part.file_size for part in parts) > MAX_UNPACKED:
        raise TooComplex
    with _reading(), warnings.catch_warnings():
        # It says what it leaves out: styles, validations, whatever else is not text.
        warnings.simplefilter("ignore")
        return load_workbook(BytesIO(content), read_only=True, data_only=values, keep_links=False)


def _rows(workbook: Workbook, sheet: str) -> Iterator[tuple[Any, ...]]:
    found = [one for one in workbook.worksheets if (one.title == sheet if sheet else one.sheet_state == "visible")]
    if not found:
        raise KeyError(sheet)
    # What a file says of its own size may be wrong: nothing, or more than there is.
    found[0].reset_dimensions()
    return found[0].iter_rows(values_only=True)


@contextmanager
def _reading() -> Iterator[None]:
    """Let what openpyxl says of a bad file be one error; it has none of its own and fails with whatever comes up."""
    try:
        yield
    except TooComplex:
        raise
    except MemoryError as exc:
        raise TooComplex from exc
    except Exception as exc:
        raise Unreadable(type(exc).__name__) from exc


def _text(cell: Any) -> str:
    """Return a cell as a person sees it, more or less: formats of numbers and dates are not followed."""
    match cell:
        case None:
            return ""
        case str():
            return _whole(unescape(cell))
        case bool():
            return str(cell).upper()
        case float() if cell.is_integer() and abs(cell) < 1e15:
            return str(int(cell))
        case datetime() if cell.time() == time():
            return cell.date().isoformat()
        case datetime():
            return cell.isoformat(" ")
    return str(cell)


def _whole(text: str) -> str:
    """Return text without halves of characters, which an escape can bring in."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
