"""Sends results: one page of them, or all as a file that is written while it is sent.

A file of any size needs the memory of a few items.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from typing import Literal
from urllib.parse import quote

from flask import Response

from channels.batch.answers import summary_json
from channels.batch.tables import csv_lines, table_rows
from channels.web.rest import RestError, envelope
from services.batches.files import item_json
from services.batches.records import Item, Task
from utils.formats.xlsx_writer import workbook_pieces

Format = Literal["csv", "jsonl", "xlsx"]

#: Bytes of a file sent at once, and maximum characters of a page.
PIECE = 64 * 1024
MAX_PAGE = 32 * 1024 * 1024
MEDIA: dict[Format, str] = {
    "csv": "text/csv; charset=utf-8",
    "jsonl": "application/x-ndjson",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
}


def download(task: Task, items: Iterator[Item], format: Format) -> Response:
    """Return all results as a file. An unavailable database raises in this call; later, it breaks off the reply."""
    rows = chain(list(islice(items, 1)), items)
    reply = Response(_pieces(_written(rows, format)), content_type=MEDIA[format])
    reply.headers["Content-Disposition"] = _attachment(task, format)
    reply.headers["Cache-Control"] = "no-store"
    reply.headers["X-Content-Type-Options"] = "nosniff"
    return reply


def _written(items: Iterable[Item], format: Format) -> Iterator[bytes]:
    if format == "xlsx":
        return workbook_pieces(table_rows(items))
    lines = csv_lines(items) if format == "csv" else (f"{item_json(item)}\n" for item in items)
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
    told = {"task_id": task.task_id, "status": task.status, "total": total, "page": number, "size": size}
    reply = envelope({**told, "summary": summary_json(task), "results": []})
    head, _, tail = reply.get_data(as_text=True).rpartition("[]")
    reply.set_data(f"{head}[{', '.join(results)}]{tail}")
    return reply


def _page_item(item: Item, *, html: Callable[[str], str] | None) -> str:
    if html is None:
        return item_json(item)
    # Rendering takes up to a third of a second for an answer.
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
