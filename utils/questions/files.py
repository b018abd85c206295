"""Read questions from a file: plain text, CSV or an Excel workbook, with one question per line or row.

A large file takes seconds of CPU time, and a malicious one could use all memory. The server therefore runs this module
as a separate process with resource limits (`main`). Call `read_texts` directly only for trusted files.

    arguments   limits of the process: seconds of CPU time and bytes of memory
    stdin       the fields of `Wanted` as one line of JSON, then the file
    stdout      {"unvalued": n}, then each text as one line of JSON; or {"reason", "field", "problem"} of the error
"""

from __future__ import annotations

import csv
import io
import json
import re
import resource
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from itertools import chain, islice
from typing import Literal

from utils.formats.encodings import decoded
from utils.formats.xlsx_rows import MAGIC as XLSX_MAGIC
from utils.formats.xlsx_rows import TooComplex, Unreadable, sheet_rows, unvalued_formulas
from utils.questions.columns import SAMPLE, Header, Missing, TableRow, Unclear, find_column

FileKind = Literal["text", "csv", "xlsx"]
Encoding = Literal["auto", "utf-8", "utf-16", "gb18030"]

#: Maximum number of texts in a batch, and of characters in each.
MAX_TEXTS = 10_000
MAX_CHARS = 10_000
#: Delimiters that are recognized in CSV files.
DELIMITERS = ",;\t"

_OLE_MAGIC = bytes.fromhex("d0cf11e0a1b11ae1")
_KINDS: dict[str, FileKind] = {"txt": "text", "csv": "csv", "tsv": "csv", "xlsx": "xlsx", "xlsm": "xlsx"}
_LINE_END = re.compile(r"\r\n|\r|\n")


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
    #: Whether the first row is a header; auto: if it contains a usual name, or words above numbers.
    header: Header = "auto"
    #: A sheet's name; "": the first visible sheet.
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


@dataclass(frozen=True, slots=True)
class Reading:
    """The questions in a file, and the number of formulas without a value, which are skipped."""

    texts: list[str]
    unvalued: int = 0


def read_texts(content: bytes, wanted: Wanted) -> list[str]:
    """Return the questions in order, without surrounding white space and blank ones.

    Raises:
        FileRefused: the file is unreadable, or has no questions, too many, or one that is too long.
    """
    return read_file(content, wanted).texts


def read_file(content: bytes, wanted: Wanted) -> Reading:
    """Return the questions as `read_texts` does, and the number of formulas without a value.

    Raises:
        FileRefused: as in `read_texts`.
    """
    table = _Table(content, wanted)
    texts = _bounded(table.numbered(), wanted.max_bytes)
    unvalued = table.unvalued()
    if not texts:
        formulas = f" {unvalued} formulas have no value: open and save it in Excel." if unvalued else ""
        raise FileRefused("no_texts", f"There is no text in it.{formulas}")
    return Reading(texts, unvalued)


def _bounded(numbered: Iterable[tuple[str, str]], max_bytes: int) -> list[str]:
    texts: list[str] = []
    size = 0
    for location, text in numbered:
        size += len(text.encode())
        if len(text) > MAX_CHARS:
            raise FileRefused("text_too_long", f"{location} has more than {MAX_CHARS} characters.")
        if len(texts) == MAX_TEXTS or size > max_bytes:
            raise FileRefused("too_many_texts", f"{MAX_TEXTS} texts of {max_bytes} bytes are taken at most.")
        texts.append(text)
    return texts


class _Table:
    """A file's rows; one column contains the questions. Plain text has a single column."""

    def __init__(self, content: bytes, wanted: Wanted) -> None:
        self._content = content
        self._wanted = wanted
        #: Index of the question column; None before it is found, or if no row has text.
        self._index: int | None = None

    def numbered(self) -> Iterator[tuple[str, str]]:
        """Yield each text with its location, such as "Row 3", for error messages."""
        numbered: Iterable[tuple[int, str]]
        if self._wanted.kind == "text":
            lines = _LINE_END.split(_decoded(self._content, self._wanted.encoding))
            numbered, unit = enumerate(lines, 1), "Line"
        else:
            numbered, unit = self._column(_rows(self._content, self._wanted)), "Row"
        for number, text in numbered:
            if stripped := text.strip():
                yield f"{unit} {number}", stripped

    def unvalued(self) -> int:
        """Return the number of formulas without a value in the column; call this after `numbered` is consumed."""
        if self._wanted.kind != "xlsx":
            return 0
        with _refusing():
            return unvalued_formulas(self._content, self._wanted.sheet, self._index)

    def _column(self, rows: Iterator[TableRow]) -> Iterator[tuple[int, str]]:
        """Yield the cells of the question column with their row numbers."""
        numbered = ((number, row) for number, row in enumerate(rows, 1) if any(cell.strip() for cell in row))
        sample = list(islice(numbered, SAMPLE))
        if not sample:
            return
        try:
            index, headed = find_column([row for _, row in sample], self._wanted.column, self._wanted.header)
        except Missing as missing:
            raise FileRefused("no_such_column", f"There is no such column. The columns: {missing}.", "column") from None
        except Unclear as unclear:
            problem = f"Which column has the questions? Call it 问题 or question, or choose one of these: {unclear}."
            raise FileRefused("unclear_column", problem, "column") from None
        self._index = index
        for number, row in chain(sample[headed:], numbered):
            yield number, _cell(row, index)


def _rows(content: bytes, wanted: Wanted) -> Iterator[TableRow]:
    if wanted.kind == "csv":
        yield from _csv_rows(_decoded(content, wanted.encoding))
        return
    with _refusing():
        yield from sheet_rows(content, wanted.sheet)


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
    if told := re.fullmatch(r"sep=(.)\r?", first):
        delimiter, text = told[1], rest
    else:
        delimiter = _delimiter(first)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        yield from reader
    except csv.Error as exc:
        raise FileRefused("unreadable_file", f"Line {reader.line_num} is no CSV: are all quotes closed?") from exc


def _delimiter(line: str) -> str:
    """Return the delimiter that occurs most often outside quotes in the first line."""
    bare = re.sub(r'"[^"]*"', "", line)
    return max(DELIMITERS, key=bare.count)


def _cell(row: TableRow, index: int) -> str:
    return row[index] if index < len(row) else ""


def _decoded(content: bytes, encoding: Encoding) -> str:
    """Decode the file with the given encoding, or detect it for `auto`."""
    told = {"auto": [], "utf-8": ["utf-8-sig"]}.get(encoding, [encoding])
    text = decoded(content, told)
    if text is None:
        problem = "Its characters are neither UTF-8 nor UTF-16 nor GBK: save it as UTF-8."
        raise FileRefused("bad_encoding", problem, "encoding")
    return text


def _limit(cpu_seconds: int, memory: int) -> None:
    for what, most in ((resource.RLIMIT_CPU, cpu_seconds), (resource.RLIMIT_AS, memory)):
        # Not every system supports both limits.
        with suppress(ValueError, OSError):
            resource.setrlimit(what, (most, most))


def _answer(line: bytes, content: bytes) -> Iterator[str]:
    try:
        reading = read_file(content, Wanted(**json.loads(line)))
    except FileRefused as refused:
        yield json.dumps({"reason": refused.reason, "field": refused.field, "problem": refused.problem})
        return
    yield json.dumps({"unvalued": reading.unvalued})
    yield from (json.dumps(text, ensure_ascii=False) for text in reading.texts)


def request(wanted: Wanted) -> bytes:
    """Return the line that precedes the file on the stdin of the separate process."""
    return json.dumps(asdict(wanted)).encode() + b"\n"


def main(cpu_seconds: int, memory: int) -> None:
    _limit(cpu_seconds, memory)
    line = sys.stdin.buffer.readline()
    out = io.TextIOWrapper(sys.stdout.buffer, "utf-8", newline="\n")
    out.writelines(f"{text}\n" for text in _answer(line, sys.stdin.buffer.read()))
    out.flush()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
