"""Reads the rows of a file as text, for every kind of file, and reports why a file cannot be read."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from utils.formats.encodings import decoded
from utils.formats.xlsx_rows import MAGIC as XLSX_MAGIC
from utils.formats.xlsx_rows import TooComplex, Unreadable, first_rows, sheet_names, sheet_rows, unvalued_formulas
from utils.questions.files.columns import Header, TableRow

FileKind = Literal["text", "csv", "xlsx"]
Encoding = Literal["auto", "utf-8", "utf-16", "gb18030"]

#: Delimiters that are recognized in CSV files.
DELIMITERS = ",;\t"

_OLE_MAGIC = bytes.fromhex("d0cf11e0a1b11ae1")
_KINDS: dict[str, FileKind] = {"txt": "text", "csv": "csv", "tsv": "csv", "xlsx": "xlsx", "xlsm": "xlsx"}
_LINE_END = re.compile(r"\r\n|\r|\n")

# The file's size bounds a cell. Python's own limit (131,072 characters) would look like a quote that is not closed.
csv.field_size_limit(2**31 - 1)


class FileRefused(Exception):
    """The file cannot become a batch. `reason` is a stable code, `field` the part of the request to change."""

    def __init__(self, reason: str, problem: str, field: str = "file") -> None:
        super().__init__(problem)
        self.reason = reason
        self.problem = problem
        self.field = field


@dataclass(frozen=True, slots=True)
class Wanted:
    """Options for reading a file: where the questions are, and their total size."""

    kind: FileKind
    #: A column's name or its number from 1; "": find it by its name or content.
    column: str = ""
    #: The column of the questions' own ids, like `column`; "": none.
    id_column: str = ""
    #: Whether the first row is a header; auto: if it contains a usual name, or words above numbers.
    header: Header = "auto"
    #: A sheet's name; "": the visible sheet with the questions, else the first visible one.
    sheet: str = ""
    encoding: Encoding = "auto"
    #: Maximum size of all texts together, in bytes of UTF-8.
    max_bytes: int = 32 * 1024 * 1024


def kind_of(filename: str, content: bytes) -> FileKind:
    """Return the kind of a file by its first bytes, or else by its name.

    Raises:
        FileRefused: the kind is not supported (`unsupported_file`).
    """
    if content.startswith(_OLE_MAGIC):
        raise FileRefused("unsupported_file", "An old or locked workbook: save it as .xlsx without a password.")
    if content.startswith(XLSX_MAGIC):
        return "xlsx"
    if kind := _KINDS.get(filename.lower().rpartition(".")[2]):
        return kind
    raise FileRefused("unsupported_file", "The file's name has to end in .txt, .csv, .tsv or .xlsx.")


def file_rows(content: bytes, wanted: Wanted) -> Iterator[TableRow]:
    """Yield the rows of a file as text; a line of plain text is a row of one cell.

    Raises:
        FileRefused: the file is unreadable.
    """
    if wanted.kind == "text":
        yield from ((line,) for line in _LINE_END.split(_decoded(content, wanted.encoding)))
    elif wanted.kind == "csv":
        yield from _csv_rows(_decoded(content, wanted.encoding))
    else:
        with _refusing():
            yield from sheet_rows(content, wanted.sheet)


def sheets_of(content: bytes, wanted: Wanted) -> list[str]:
    """Return the names of a workbook's visible sheets; [] for another file. Raises as `file_rows` does."""
    if wanted.kind != "xlsx":
        return []
    with _refusing():
        return sheet_names(content)


def sheet_samples(content: bytes, wanted: Wanted, most: int) -> dict[str, list[list[str]]]:
    """Return the first rows of a workbook's visible sheets by name; {} for another file. Raises as `file_rows` does."""
    if wanted.kind != "xlsx":
        return {}
    with _refusing():
        return first_rows(content, most)


def unvalued_cells(content: bytes, wanted: Wanted, index: int | None) -> int:
    """Return the number of a workbook's formulas without a value in a column, or in all for None."""
    if wanted.kind != "xlsx":
        return 0
    with _refusing():
        return unvalued_formulas(content, wanted.sheet, index)


@contextmanager
def _refusing() -> Iterator[None]:
    """Turn the errors of reading a workbook into `FileRefused`."""
    try:
        yield
    except KeyError as exc:
        raise FileRefused("no_such_sheet", "The workbook has no sheet of this name to be seen.", "sheet") from exc
    except TooComplex as exc:
        raise FileRefused("file_too_complex", "It unpacks to more than is taken.") from exc
    except Unreadable as exc:
        raise FileRefused("unreadable_file", "It is no readable workbook.") from exc


def _csv_rows(text: str) -> Iterator[list[str]]:
    first, _, rest = text.partition("\n")
    # Excel's own way to declare the delimiter.
    if named := re.fullmatch(r"sep=(.)\r?", first):
        delimiter, text = named[1], rest
    else:
        delimiter = _delimiter(first)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        yield from reader
    except csv.Error as exc:
        problem = f"Line {reader.line_num} is no CSV: are all quotes closed?"
        raise FileRefused("unreadable_file", problem) from exc


def _delimiter(line: str) -> str:
    """Return the delimiter that occurs most often outside quotes in the first line."""
    bare = re.sub(r'"[^"]*"', "", line)
    return max(DELIMITERS, key=bare.count)


def _decoded(content: bytes, encoding: Encoding) -> str:
    """Decode the file with the given encoding, or detect it for `auto`."""
    encodings = {"auto": [], "utf-8": ["utf-8-sig"]}.get(encoding, [encoding])
    text = decoded(content, encodings)
    if text is None:
        problem = "Its characters are neither UTF-8 nor UTF-16 nor GBK: save it as UTF-8."
        raise FileRefused("bad_encoding", problem, "encoding")
    return text
