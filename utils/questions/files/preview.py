"""Shows what a batch would be made of: a file's columns with samples, and which have the questions and the ids."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any

from utils.questions.files.columns import SAMPLE, TableRow, Unclear, column_names, find_column, guess_id, has_header
from utils.questions.files.rows import Wanted, file_rows, sheets_of

#: Samples of each column, and characters of each.
SAMPLES, SAMPLE_CHARS = 5, 200


def preview(content: bytes, wanted: Wanted) -> dict[str, Any]:
    """Return `{sheets, columns: [{index, name, samples}], rows, column, id_column, header}` of a file.

    `index`, `column` and `id_column` are numbers from 1; a column that cannot be told is None. `rows` counts the rows
    with any text below the header.

    Raises:
        FileRefused: the file is unreadable.
    """
    rows = (row for row in file_rows(content, wanted) if any(cell.strip() for cell in row))
    first: list[TableRow] = list(islice(rows, SAMPLE))
    headed = wanted.kind != "text" and bool(first) and has_header(first, wanted.header)
    names = column_names(first, headed=headed)
    shown = [{"index": at + 1, "name": name, "samples": _samples(first[headed:], at)} for at, name in names.items()]
    index = _question_column(first, wanted)
    own = guess_id(first) if headed else None
    return {
        "sheets": sheets_of(content, wanted),
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
