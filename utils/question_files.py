"""Questions out of a person's file: plain text, CSV, or a workbook of Excel, one to a line or row.

Reading a large one takes the CPU for seconds, and a hostile one all memory it can get. So the server runs this module
as a process of its own, under limits of its own (`main`); `read_texts` alone is for people's own files.

    arguments   seconds of CPU and bytes of memory that the process may use
    stdin       the fields of `Wanted` as one line of JSON, then the file
    stdout      each text as one line of JSON; or of a file that is refused {"reason", "field", "problem"}
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
import resource
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Literal

from utils.xlsx_rows import MAGIC as XLSX_MAGIC
from utils.xlsx_rows import TooComplex, Unreadable, sheet_rows

Kind = Literal["text", "csv", "xlsx"]
Header = Literal["auto", "yes", "no"]
Encoding = Literal["auto", "utf-8", "utf-16", "gb18030"]

#: Texts of a batch, and characters of each.
MAX_TEXTS = 10_000
MAX_CHARS = 10_000
#: Names by which a column of questions is known, the surest first.
NAMES: tuple[str, ...] = ("question", "questions", "query", "queries", "prompt", "prompts", "text", "texts")
NAMES += ("问题", "提问", "问句", "提示词", "文本")
#: What parts the columns of a CSV.
DELIMITERS = ",;\t"

_OLE_MAGIC = bytes.fromhex("d0cf11e0a1b11ae1")
_KINDS: dict[str, Kind] = {"txt": "text", "csv": "csv", "tsv": "csv", "xlsx": "xlsx", "xlsm": "xlsx"}
_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
_LINE_END = re.compile(r"\r\n|\r|\n")


class FileRefused(Exception):
    """No batch can be made of this file. `reason` is a stable word, `field` what of the request is to be changed."""

    def __init__(self, reason: str, problem: str, field: str = "file") -> None:
        super().__init__(problem)
        self.reason = reason
        self.problem = problem
        self.field = field


@dataclass(frozen=True, slots=True)
class Wanted:
    """Where in a file the questions are, and how many there may be."""

    kind: Kind
    #: A column's name or its number from 1; "": the one that has a usual name, else the first.
    column: str = ""
    #: Whether the first row names the columns; auto: when it says so by the column's name.
    header: Header = "auto"
    #: A sheet's name; "": the first that is not hidden.
    sheet: str = ""
    encoding: Encoding = "auto"
    #: Bytes of all texts together, as UTF-8.
    max_bytes: int = 32 * 1024 * 1024


def kind_of(filename: str, content: bytes) -> Kind:
    """Tell what a file is by its first bytes, else by its name.

    Raises:
        FileRefused: `unsupported_file`.
    """
    if content.startswith(_OLE_MAGIC):
        raise FileRefused("unsupported_file", "An old or locked workbook: save it as .xlsx without a password.")
    if content.startswith(XLSX_MAGIC):
        return "xlsx"
    if kind := _KINDS.get(filename.lower().rpartition(".")[2]):
        return kind
    raise FileRefused("unsupported_file", "The file's name has to end in .txt, .csv, .tsv or .xlsx.")


def read_texts(content: bytes, wanted: Wanted) -> list[str]:
    """Return the questions in their order, without white space around them; what is blank is passed over.

    Raises:
        FileRefused: it cannot be read, has no questions, too many, or one that is too long.
    """
    texts: list[str] = []
    size = 0
    for place, text in _numbered(content, wanted):
        size += len(text.encode())
        if len(text) > MAX_CHARS:
            raise FileRefused("text_too_long", f"{place} has more than {MAX_CHARS} characters.")
        if len(texts) == MAX_TEXTS or size > wanted.max_bytes:
            raise FileRefused("too_many_texts", f"{MAX_TEXTS} texts of {wanted.max_bytes} bytes are taken at most.")
        texts.append(text)
    if not texts:
        raise FileRefused("no_texts", "There is no text in it.")
    return texts


def _numbered(content: bytes, wanted: Wanted) -> Iterator[tuple[str, str]]:
    """Yield each text with the words for its place, for an error."""
    numbered: Iterable[tuple[int, str]]
    if wanted.kind == "text":
        numbered, place = enumerate(_LINE_END.split(_decoded(content, wanted.encoding)), 1), "Line"
    else:
        numbered, place = _column(_rows(content, wanted), wanted), "Row"
    for number, text in numbered:
        if stripped := text.strip():
            yield f"{place} {number}", stripped


def _rows(content: bytes, wanted: Wanted) -> Iterator[Sequence[str]]:
    if wanted.kind == "csv":
        yield from _csv_rows(_decoded(content, wanted.encoding))
        return
    try:
        yield from sheet_rows(content, wanted.sheet)
    except KeyError as exc:
        raise FileRefused("no_such_sheet", "The workbook has no sheet of this name to be seen.", "sheet") from exc
    except TooComplex as exc:
        raise FileRefused("file_too_complex", "It unpacks to more than is taken.") from exc
    except Unreadable as exc:
        raise FileRefused("unreadable_file", "It is no readable workbook.") from exc


def _csv_rows(text: str) -> Iterator[list[str]]:
    first, _, rest = text.partition("\n")
    # Excel's own way to say what parts the columns.
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
    """Return what parts the columns of a first line: what is there most often outside quotes."""
    bare = re.sub(r'"[^"]*"', "", line)
    return max(DELIMITERS, key=bare.count)


def _column(rows: Iterator[Sequence[str]], wanted: Wanted) -> Iterator[tuple[int, str]]:
    """Yield one column's cells with the numbers of their rows."""
    numbered = ((number, row) for number, row in enumerate(rows, 1) if any(cell.strip() for cell in row))
    number, first = next(numbered, (0, ()))
    if not number:
        return
    index, named = _place([cell.strip().casefold() for cell in first], wanted)
    if not named and wanted.header != "yes":
        yield number, _cell(first, index)
    for number, row in numbered:
        yield number, _cell(row, index)


def _place(names: Sequence[str], wanted: Wanted) -> tuple[int, bool]:
    """Return the column's index, and whether the first row was seen to name it."""
    column = wanted.column.strip().casefold()
    if wanted.header != "no":
        known = (column,) if column else NAMES
        for name in known:
            if name in names:
                return names.index(name), True
    if not column:
        return 0, False
    if re.fullmatch(r"[1-9]\d{0,4}", column):
        index = int(column) - 1
        return index, wanted.header != "no" and index < len(names) and names[index] in NAMES
    raise FileRefused("no_such_column", "The first row has no column of this name.", "column")


def _cell(row: Sequence[str], index: int) -> str:
    return row[index] if index < len(row) else ""


def _decoded(content: bytes, encoding: Encoding) -> str:
    """Return the file's text: as told, or by its mark, else UTF-8, else GB18030, which old Chinese programs write."""
    marked = next((name for mark, name in _MARKS if content.startswith(mark)), "")
    tried = {"auto": [marked] if marked else ["utf-8", "gb18030"], "utf-8": ["utf-8-sig"]}.get(encoding, [encoding])
    for name in tried:
        with suppress(UnicodeDecodeError):
            text = content.decode(name)
            # Every other byte of UTF-16 without a mark is one, and it would pass for UTF-8.
            if "\0" not in text:
                return text
    raise FileRefused("bad_encoding", "Its characters cannot be read: save it as UTF-8.", "encoding")


def _limit(cpu_seconds: int, memory: int) -> None:
    for what, most in ((resource.RLIMIT_CPU, cpu_seconds), (resource.RLIMIT_AS, memory)):
        # Not every system knows both.
        with suppress(ValueError, OSError):
            resource.setrlimit(what, (most, most))


def _answer(line: bytes, content: bytes) -> Iterator[str]:
    try:
        for text in read_texts(content, Wanted(**json.loads(line))):
            yield json.dumps(text, ensure_ascii=False)
    except FileRefused as refused:
        yield json.dumps({"reason": refused.reason, "field": refused.field, "problem": refused.problem})


def request(wanted: Wanted) -> bytes:
    """Return what goes before the file to a process apart."""
    return json.dumps(asdict(wanted)).encode() + b"\n"


def main(cpu_seconds: int, memory: int) -> None:
    _limit(cpu_seconds, memory)
    line = sys.stdin.buffer.readline()
    out = io.TextIOWrapper(sys.stdout.buffer, "utf-8", newline="\n")
    out.writelines(f"{text}\n" for text in _answer(line, sys.stdin.buffer.read()))
    out.flush()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
