"""Sends results: one page of them, or all as a file that is written while it is sent.

A file of any size needs the memory of a few items.
"""

from __future__ import annotations

import csv
import io
import json
import re
import time
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import Any, Literal
from urllib.parse import quote

from flask import Response

from channels.batch.answers import summary_json
from channels.web.envelope import envelope
from channels.web.rest import RestError
from services.batches.files import item_json
from services.batches.records import Item, Task

Format = Literal["csv", "jsonl"]

#: Bytes of a file sent at once, and maximum characters of a page.
PIECE = 64 * 1024
MAX_PAGE = 32 * 1024 * 1024
#: The columns of the CSV in order; sources, usage and metadata are cells of JSON.
COLUMNS: tuple[str, ...] = ("index", "text", "status", "content", "error_code", "error_message", "attempts")
COLUMNS += ("sources", "usage", "metadata", "started_at", "completed_at")
#: First characters that make a spreadsheet read a cell as a formula; full-width ones count in East Asian ones.
FORMULA = tuple("=+-@＝＋－＠\t\r\n")
#: Cells that begin like a formula but are none: a signed number, and a list item without a function call, DDE or a
#: reference to another sheet.
_NUMBER = re.compile(r"[-+]\d[\d,]*(\.\d+)?([eE][-+]?\d{1,3})?%?")
_LIST_ITEM = re.compile(r"[-+] +(?![-+=@])(?!.*(?:[\w.]\s*[(（]|[|｜]|[!！]\s*[$\w])).*", re.DOTALL | re.ASCII)
#: Marks the file as UTF-8; without it Excel assumes the system's encoding.
BOM = "\ufeff"
MEDIA = {"csv": "text/csv; charset=utf-8", "jsonl": "application/x-ndjson"}


def download(task: Task, items: Iterator[Item], format: Format) -> Response:
    """Return all results as a file. An unavailable database raises in this call; later, it breaks off the reply."""
    rows = chain(list(islice(items, 1)), items)
    lines = csv_lines(rows) if format == "csv" else (f"{item_json(item)}\n" for item in rows)
    reply = Response(_pieces(lines), content_type=MEDIA[format])
    reply.headers["Content-Disposition"] = _attachment(task, format)
    reply.headers["Cache-Control"] = "no-store"
    reply.headers["X-Content-Type-Options"] = "nosniff"
    return reply


def page(task: Task, items: Iterator[Item], *, number: int, size: int) -> Response:
    """Return one page of results in the envelope.

    Items are encoded one by one, so that a long page blocks no other request.

    Raises:
        RestError: 422 the page is longer than `MAX_PAGE`.
    """
    results, length = [], 0
    for item in items:
        results.append(item_json(item))
        length += len(results[-1])
        if length > MAX_PAGE:
            raise RestError(422, "These results are too long for one page.", reason="page_too_large")
    told = {"task_id": task.task_id, "status": task.status, "total": task.total, "page": number, "size": size}
    reply = envelope({**told, "summary": summary_json(task), "results": []})
    head, _, tail = reply.get_data(as_text=True).rpartition("[]")
    reply.set_data(f"{head}[{', '.join(results)}]{tail}")
    return reply


def csv_lines(items: Iterable[Item]) -> Iterator[str]:
    """Yield the CSV with every cell quoted, so that programs with another delimiter split no cell."""
    out = io.StringIO(newline="")
    writer = csv.writer(out, quoting=csv.QUOTE_ALL)
    out.write(BOM)
    writer.writerow(COLUMNS)
    for item in items:
        writer.writerow(_cells(item))
        yield _taken(out)
    yield _taken(out)


def harmless(cell: str) -> str:
    """Return text that no spreadsheet reads as a formula: one that looks like a formula gets a leading `'`."""
    bare = cell.strip(" ")
    is_formula = bare.startswith(FORMULA) and not _NUMBER.fullmatch(bare) and not _LIST_ITEM.fullmatch(bare)
    return f"'{cell}" if is_formula else cell


def _cells(item: Item) -> list[str | int]:
    told = item.to_dict()
    error = told["error"] or {}
    values = {**told, "error_code": error.get("code", ""), "error_message": error.get("message", "")}
    return [_cell(values[name]) for name in COLUMNS]


def _cell(value: Any) -> str | int:
    if value is None or isinstance(value, int):
        return "" if value is None else value
    return harmless(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False) if value else "")


def _taken(out: io.StringIO) -> str:
    text = out.getvalue()
    out.seek(0)
    out.truncate()
    return text


def _pieces(lines: Iterable[str]) -> Iterator[bytes]:
    """Join lines to pieces of about `PIECE` bytes."""
    piece = bytearray()
    for line in lines:
        piece += line.encode()
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
