"""Makes the questions of a batch of a file, with the ids and other cells of their rows, or shows what they would be."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from typing import Any, NamedTuple

from utils.questions.files.columns import (
    SAMPLE,
    Missing,
    TableRow,
    Unclear,
    column_names,
    find_column,
    guess_id,
    has_header,
    named_column,
    rate_sheet,
)
from utils.questions.files.rows import FileRefused, Wanted, file_rows, sheet_samples, sheets_of, unvalued_cells

#: Maximum number of texts in a batch, and of characters in each.
MAX_TEXTS = 10_000
MAX_CHARS = 10_000
#: Maximum characters of a question's own id, and bytes of the other cells of its row, as JSON.
MAX_ID = 200
MAX_ROW_BYTES = 256 * 1024


class FileRow(NamedTuple):
    """A question of a file with its row."""

    text: str
    #: The cell of the id column; "" without one.
    id: str = ""
    #: The cells of all columns but those of the text and the id, by their columns' names.
    columns: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True)
class Reading:
    """The questions in a file, and the number of formulas without a value, which are skipped."""

    rows: list[FileRow] = field(repr=False)
    unvalued: int = 0

    @property
    def texts(self) -> list[str]:
        return [row.text for row in self.rows]


def read_file(content: bytes, wanted: Wanted) -> Reading:
    """Return the questions in order, without blank ones, with their rows, and the number of formulas without a value.

    Raises:
        FileRefused: the file is unreadable, or has no questions, too many, or one that is too long.
    """
    wanted = _with_sheet(content, wanted)
    table = _Table(content, wanted)
    rows = _bounded(table.numbered(), wanted.max_bytes)
    unvalued = unvalued_cells(content, wanted, table.index)
    if not rows:
        problem = f"There is no text in it: {unvalued} formulas have no value, so open and save it in Excel."
        raise FileRefused("no_texts", problem if unvalued else "There is no text in it.")
    return Reading(rows, unvalued)


def _with_sheet(content: bytes, wanted: Wanted) -> Wanted:
    """Name the sheet of a workbook that has the questions, where the request names none: the first of the best ones."""
    if wanted.sheet or len(names := sheets_of(content, wanted)) < 2:
        return wanted
    samples = sheet_samples(content, wanted, SAMPLE)
    rates = {name: rate_sheet(rows, wanted.column, wanted.header) for name, rows in samples.items()}
    return replace(wanted, sheet=max(rates, key=rates.__getitem__, default=names[0]))


def _bounded(numbered: Iterable[tuple[int, FileRow]], max_bytes: int) -> list[FileRow]:
    rows: list[FileRow] = []
    size = 0
    for number, row in numbered:
        beside = len(json.dumps(row.columns, ensure_ascii=False).encode()) if row.columns else 0
        size += len(row.text.encode()) + beside
        if len(row.text) > MAX_CHARS:
            raise FileRefused("text_too_long", f"Row {number} has more than {MAX_CHARS} characters.")
        if beside > MAX_ROW_BYTES:
            problem = f"Row {number} has more than {MAX_ROW_BYTES} bytes beside its question."
            raise FileRefused("row_too_long", problem)
        if len(row.id) > MAX_ID:
            problem = f"Row {number} has an id of more than {MAX_ID} characters."
            raise FileRefused("id_too_long", problem, "id_column")
        if len(rows) == MAX_TEXTS or size > max_bytes:
            raise FileRefused("too_many_texts", f"{MAX_TEXTS} texts of {max_bytes} bytes are taken at most.")
        rows.append(row)
    return rows


class _Table:
    """A file's rows; one column contains the questions. Plain text has a single column."""

    def __init__(self, content: bytes, wanted: Wanted) -> None:
        self._content = content
        self._wanted = wanted
        #: Index of the question column; None before `numbered` has found it, or if no row has text.
        self.index: int | None = None

    def numbered(self) -> Iterator[tuple[int, FileRow]]:
        """Yield each question with the number of its row from 1, for error messages."""
        rows = file_rows(self._content, self._wanted)
        numbered: Iterable[tuple[int, FileRow]]
        if self._wanted.kind == "text":
            numbered = ((number, FileRow(cells[0].strip())) for number, cells in enumerate(rows, 1))
        else:
            numbered = self._of_table(rows)
        yield from ((number, row) for number, row in numbered if row.text)

    def _of_table(self, rows: Iterator[TableRow]) -> Iterator[tuple[int, FileRow]]:
        """Yield the questions with their row numbers."""
        numbered = ((number, row) for number, row in enumerate(rows, 1) if any(cell.strip() for cell in row))
        sample = list(islice(numbered, SAMPLE))
        if not sample:
            return
        first = [row for _, row in sample]
        index, headed = self._column(first)
        own = self._id_column(first, headed=headed)
        self.index = index
        names = {at: name for at, name in column_names(first, headed=headed).items() if at not in (index, own)}
        for number, row in chain(sample[headed:], numbered):
            columns = {name: _cell(row, at) for at, name in names.items()}
            yield number, FileRow(_cell(row, index).strip(), "" if own is None else _cell(row, own).strip(), columns)

    def _column(self, rows: list[TableRow]) -> tuple[int, bool]:
        try:
            return find_column(rows, self._wanted.column, self._wanted.header)
        except Missing as missing:
            raise _no_column(missing, "column") from None
        except Unclear as unclear:
            problem = f"Which column has the questions? Call it 问题 or question, or choose one of these: {unclear}."
            raise FileRefused("unclear_column", problem, "column") from None

    def _id_column(self, rows: list[TableRow], *, headed: bool) -> int | None:
        try:
            return named_column(rows, self._wanted.id_column, headed=headed) if self._wanted.id_column else None
        except Missing as missing:
            raise _no_column(missing, "id_column") from None


def _no_column(missing: Missing, field: str) -> FileRefused:
    return FileRefused("no_such_column", f"There is no such column. The columns: {missing}.", field)


def _cell(row: TableRow, index: int) -> str:
    return row[index] if index < len(row) else ""


#: Samples of each column, and characters of each.
SAMPLES, SAMPLE_CHARS = 5, 200


def preview(content: bytes, wanted: Wanted) -> dict[str, Any]:
    """Return `{sheets, sheet, columns: [{index, name, samples}], rows, column, id_column, header}` of a file.

    `sheet` is the name of the sheet that was read, "" for a file without sheets. `index`, `column` and `id_column` are
    numbers from 1; a column that is not found is None. `rows` counts the rows with any text below the header.

    Raises:
        FileRefused: the file is unreadable.
    """
    wanted = _with_sheet(content, wanted)
    rows = (row for row in file_rows(content, wanted) if any(cell.strip() for cell in row))
    first: list[TableRow] = list(islice(rows, SAMPLE))
    headed = wanted.kind != "text" and bool(first) and has_header(first, wanted.header)
    names = column_names(first, headed=headed)
    shown = [{"index": at + 1, "name": name, "samples": _samples(first[headed:], at)} for at, name in names.items()]
    index = _question_column(first, wanted)
    own = guess_id(first) if headed else None
    sheets = sheets_of(content, wanted)
    return {
        "sheets": sheets,
        "sheet": wanted.sheet or next(iter(sheets), ""),
        "columns": shown,
        "rows": len(first) - headed + sum(1 for _ in rows),
        "column": None if index is None else index + 1,
        "id_column": None if own is None or own == index else own + 1,
        "header": headed,
    }


def _question_column(rows: Sequence[TableRow], wanted: Wanted) -> int | None:
    if wanted.kind == "text" or not rows:
        return 0 if rows else None
    try:
        return find_column(rows, header=wanted.header)[0]
    except Unclear:
        return None


def _samples(rows: Sequence[TableRow], index: int) -> list[str]:
    cells = (row[index].strip() for row in rows if index < len(row))
    return [cell[:SAMPLE_CHARS] for cell in islice(filter(None, cells), SAMPLES)]
