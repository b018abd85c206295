"""Sends results: one page of them, or all as a file that is written while it is sent.

A file of any size needs the memory of a few items. No cell of a CSV or workbook is executed by a program as a formula.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Any, Literal
from urllib.parse import quote

from flask import Response

from channels.batch.models import summary_json
from channels.batch.workbook import WorkbookReader, workbook
from channels.web.rest import RestError, envelope
from services.batches.records import Item, Task
from utils.formats.csv_writer import Cell, csv_lines
from utils.printable import harmless

Format = Literal["csv", "jsonl", "xlsx"]

#: Bytes of a file sent at once, and maximum characters of a page.
PIECE = 64 * 1024
MAX_PAGE = 32 * 1024 * 1024
MEDIA: dict[Format, str] = {
    "csv": "text/csv; charset=utf-8",
    "jsonl": "application/x-ndjson",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
}

#: The columns of the CSV in order; sources, usage and metadata are cells of JSON. Those of the submitted file follow.
COLUMNS: tuple[str, ...] = ("index", "text", "status", "content", "error_code", "error_message", "attempts")
COLUMNS += ("sources", "usage", "metadata", "started_at", "completed_at", "id")


def download(task: Task, items: Iterator[Item], format: Format, reader: WorkbookReader) -> Response:
    """Return all results as a file; a workbook is made for its `reader`.

    An unavailable database raises in this call; later, it breaks off the reply.
    """
    rows = chain(list(islice(items, 1)), items)
    reply = Response(_pieces(_written(rows, format, reader)), content_type=MEDIA[format])
    reply.headers["Content-Disposition"] = _attachment(task, format)
    reply.headers["Cache-Control"] = "no-store"
    reply.headers["X-Content-Type-Options"] = "nosniff"
    return reply


def _written(items: Iterator[Item], format: Format, reader: WorkbookReader) -> Iterator[bytes]:
    if format == "xlsx":
        return workbook(items, reader)
    lines = csv_lines(table_rows(items)) if format == "csv" else (f"{item.to_json()}\n" for item in items)
    return (line.encode() for line in lines)


def page(
    task: Task, items: Iterator[Item], *, number: int, size: int, total: int, html: Callable[[str], str] | None = None
) -> Response:
    """Return one page of `total` results in the envelope, with their answers rendered by `html` too if there is one.

    Items are encoded one by one, so that a long page blocks no other request.

    Raises:
        RestError: 422 the page is longer than `MAX_PAGE`.
    """
    results, length = [], 0
    for item in items:
        results.append(_page_item(item, html=html))
        length += len(results[-1])
        if length > MAX_PAGE:
            raise RestError(422, "These results are too long for one page.", reason="page_too_large")
    about = {"task_id": task.task_id, "status": task.status, "total": total, "page": number, "size": size}
    reply = envelope({**about, "summary": summary_json(task), "results": []})
    head, _, tail = reply.get_data(as_text=True).rpartition("[]")
    reply.set_data(f"{head}[{', '.join(results)}]{tail}")
    return reply


def _page_item(item: Item, *, html: Callable[[str], str] | None) -> str:
    if html is None:
        return item.to_json()
    # Rendering takes up to a fifth of a second for an answer.
    time.sleep(0)
    return json.dumps({**item.to_dict(), "html": html(item.content)}, ensure_ascii=False)


def _pieces(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Join lines to pieces of about `PIECE` bytes."""
    piece = bytearray()
    for line in lines:
        piece += line
        if len(piece) >= PIECE:
            yield bytes(piece)
            piece.clear()
            # With a fast client and a fast database nothing else here yields to other greenlets.
            time.sleep(0)
    yield bytes(piece)


def _attachment(task: Task, format: Format) -> str:
    """Name the file after the task (`filename*`, RFC 6266), and by the task's id for clients without `filename*`."""
    name = quote(f"{task.name}.{format}".replace("/", "_").replace("\\", "_"), safe="")
    return f"attachment; filename=\"batch-{task.task_id}.{format}\"; filename*=UTF-8''{name}"


def table_rows(items: Iterable[Item]) -> Iterator[Sequence[Cell]]:
    """Yield the header and a row for each item; the columns of the submitted file are those of the first item."""
    left = iter(items)
    first = list(islice(left, 1))
    names = list(first[0].given.columns) if first else []
    # A column of the file may be called as one of ours.
    yield [*COLUMNS, *(harmless(f"{name} (input)" if name in COLUMNS else name) for name in names)]
    for item in chain(first, left):
        yield [*_ours(item.to_dict()), *(harmless(item.given.columns.get(name, "")) for name in names)]


def _ours(item: Mapping[str, Any]) -> list[Cell]:
    error = item["error"] or {}
    values = {**item, "error_code": error.get("code", ""), "error_message": error.get("message", "")}
    return [_cell(values[name]) for name in COLUMNS]


def _cell(value: Any) -> Cell:
    if value is None or isinstance(value, int):
        return "" if value is None else value
    return harmless(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False) if value else "")
