"""Files that administrators take along: CSV, written while its rows are read."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Any

from flask import Response

from utils.formats.csv_writer import csv_lines, table_cells

CSV = "text/csv; charset=utf-8"
#: Bytes of a file that are sent at once.
PIECE = 64 * 1024


def csv_reply(rows: Iterable[Mapping[str, Any]], names: Sequence[str], *, name: str) -> Response:
    """Return rows as a file of this name. An unavailable database raises in this call; later, it breaks off the reply.

    A cell that a spreadsheet would take for a formula begins with `'`.
    """
    left = iter(rows)
    read = chain(list(islice(left, 1)), left)
    reply = Response(_pieces(csv_lines(table_cells(read, names))), content_type=CSV)
    reply.headers["Content-Disposition"] = f'attachment; filename="{name}"'
    reply.headers["Cache-Control"] = "no-store"
    reply.headers["X-Content-Type-Options"] = "nosniff"
    return reply


def _pieces(lines: Iterable[str]) -> Iterator[bytes]:
    piece = bytearray()
    for line in lines:
        piece += line.encode("utf-8", "replace")
        if len(piece) >= PIECE:
            yield bytes(piece)
            piece.clear()
            # With a fast client and a fast database nothing else here yields to other greenlets.
            time.sleep(0)
    yield bytes(piece)
