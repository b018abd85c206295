"""Read the rows of an Excel sheet as text, with limits: a small file may decompress to any size."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, time
from io import BytesIO
from itertools import islice
from typing import TYPE_CHECKING, Any
from zipfile import ZipFile

if TYPE_CHECKING:
    from openpyxl import Workbook

# openpyxl is imported where it is used: a process of its own reads files, and a worker would keep 5 MiB for it.

#: First bytes of every .xlsx file, which is a ZIP archive.
MAGIC = b"PK\x03\x04"
#: Maximum number of parts, and of bytes they decompress to in total. No part is read beyond its declared size.
MAX_PARTS = 2_000
MAX_UNPACKED = 128 * 1024 * 1024
#: Maximum number of rows, which is Excel's own limit, and of columns that are read.
MAX_ROWS = 1_048_576
MAX_COLUMNS = 256
#: Sheets whose first rows are looked at, and rows of each, blank ones included.
MAX_SAMPLED, MAX_SAMPLED_ROWS = 30, 1_000
#: Opening tags of a formula and of a row in a sheet's XML, bytes searched at a time, and the maximum length of a tag.
_FORMULA, _ROW = (re.compile(rb"<(?:\w{1,20}:)?%b[\s/>]" % name) for name in (b"f", b"row"))
READ_BYTES, LONGEST_TAG = 1024 * 1024, 32


class Unreadable(Exception):
    """The file is not a workbook, or is damaged."""


class TooComplex(Exception):
    """The workbook exceeds the limits on parts, decompressed size or rows."""


def sheet_rows(content: bytes, sheet: str = "") -> Iterator[list[str]]:
    """Yield the rows of a sheet as text, with the cached values of formulas; "" selects the first visible sheet.

    Raises:
        Unreadable: the file is not a workbook, or is damaged.
        TooComplex: the workbook exceeds the limits.
        KeyError: no sheet has this name, or all sheets are hidden.
    """
    rows = _rows(_opened(content), sheet)
    with _reading():
        for row in islice(rows, MAX_ROWS):
            yield [_text(cell) for cell in row[:MAX_COLUMNS]]
        if next(rows, None) is not None:
            raise TooComplex


def sheet_names(content: bytes) -> list[str]:
    """Return the names of the visible sheets.

    Raises:
        Unreadable, TooComplex: as in `sheet_rows`.
    """
    return [sheet.title for sheet in _opened(content).worksheets if sheet.sheet_state == "visible"]


def first_rows(content: bytes, most: int) -> dict[str, list[list[str]]]:
    """Return up to `most` rows with any text of each visible sheet, by its name.

    Of the first MAX_SAMPLED sheets and their first MAX_SAMPLED_ROWS rows only.

    Raises:
        Unreadable, TooComplex: as in `sheet_rows`.
    """
    visible = [sheet for sheet in _opened(content).worksheets if sheet.sheet_state == "visible"]
    found: dict[str, list[list[str]]] = {}
    for sheet in visible[:MAX_SAMPLED]:
        with _reading():
            sheet.reset_dimensions()
            rows = islice(sheet.iter_rows(values_only=True), MAX_SAMPLED_ROWS)
            texts = ([_text(cell) for cell in row[:MAX_COLUMNS]] for row in rows)
            found[sheet.title] = list(islice((row for row in texts if any(map(str.strip, row))), most))
    return found


def unvalued_formulas(content: bytes, sheet: str, column: int | None) -> int:
    """Return the number of formulas without a cached value in a column, or in all columns for None.

    Excel stores each formula's value beside it; other programs leave the calculation to the reader.

    Raises:
        Unreadable, TooComplex, KeyError: as in `sheet_rows`.
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
    """Search the raw XML for formulas, so that only workbooks with formulas are parsed a second time."""
    return any(_most_tags(content, _FORMULA, 1))


def _most_tags(content: bytes, tag: re.Pattern[bytes], most: int) -> Iterator[int]:
    """Yield the number of such tags in the raw XML of each sheet, `most` at most."""
    with _reading(), ZipFile(BytesIO(content)) as archive:
        for name in archive.namelist():
            if name.startswith("xl/worksheets/"):
                yield sum(1 for _ in islice(_tags(archive, name, tag), most))


def _tags(archive: ZipFile, name: str, tag: re.Pattern[bytes]) -> Iterator[re.Match[bytes]]:
    text = b""
    with archive.open(name) as part:
        while piece := part.read(READ_BYTES):
            text, end = text + piece, 0
            for found in tag.finditer(text):
                end = found.end()
                yield found
            text = text[max(end, len(text) - LONGEST_TAG) :]


def _opened(content: bytes, *, values: bool = True) -> Workbook:
    """Open a workbook; `values` selects the cached values of formulas, False the formulas themselves."""
    with _reading():
        parts = ZipFile(BytesIO(content)).infolist()
    if len(parts) > MAX_PARTS or sum(part.file_size for part in parts) > MAX_UNPACKED:
        raise TooComplex
    # Opening parses a sheet that declares no dimensions. To count the tags takes a twentieth of the time of parsing.
    if any(count > MAX_ROWS for count in _most_tags(content, _ROW, MAX_ROWS + 1)):
        raise TooComplex
    with _reading(), warnings.catch_warnings():
        # openpyxl warns about features it ignores, such as styles and validations; none of them is text.
        warnings.simplefilter("ignore")
        from openpyxl import load_workbook

        return load_workbook(BytesIO(content), read_only=True, data_only=values, keep_links=False)


def _rows(workbook: Workbook, sheet: str) -> Iterator[tuple[Any, ...]]:
    found = [one for one in workbook.worksheets if (one.title == sheet if sheet else one.sheet_state == "visible")]
    if not found:
        raise KeyError(sheet)
    # The dimensions declared in the file may be missing or wrong.
    found[0].reset_dimensions()
    return found[0].iter_rows(values_only=True)


@contextmanager
def _reading() -> Iterator[None]:
    """Turn any exception into `Unreadable`: openpyxl has no error class of its own for bad files."""
    try:
        yield
    except TooComplex:
        raise
    except MemoryError as exc:
        raise TooComplex from exc
    except Exception as exc:
        raise Unreadable(type(exc).__name__) from exc


def _text(cell: Any) -> str:
    """Return a cell's text approximately as Excel shows it; number and date formats are ignored."""
    match cell:
        case None:
            return ""
        case str():
            from openpyxl.utils.escape import unescape

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
    """Replace lone surrogates, which escapes in the XML can produce."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
