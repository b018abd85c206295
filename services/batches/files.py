"""A finished task as a file: `<task id>.jsonl` in `BATCH_STORAGE_PATH`, one line per item in input order.

A reader never sees an incomplete file: it is written under another name and then renamed. The files belong to the
operator; this code never removes them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from tempfile import TemporaryFile
from uuid import uuid4

from services.batches.records import Item

#: Items written at a time.
PAGE = 100


def item_json(item: Item) -> str:
    """Return an item as one line of JSON, without the line feed."""
    return json.dumps(item.to_dict(), ensure_ascii=False)


def writable(folder: str | Path) -> None:
    """Check that files can be created in a folder, or in its nearest existing parent, by creating one.

    Raises:
        OSError: they cannot. Permissions alone show neither a read-only disk nor limits of root.
    """
    whole = Path(folder).absolute()
    with TemporaryFile(dir=next(place for place in (whole, *whole.parents) if place.exists())) as file:
        file.write(b"\0")


class BatchFiles:
    """Writes the files of finished tasks."""

    def __init__(self, folder: str | Path) -> None:
        self._folder = Path(folder)

    def write(self, task_id: str, items: Iterator[Item]) -> Path:
        """Write a task's file, replacing an existing one; return its path.

        Raises:
            OSError: the folder cannot be written, or the disk is full; an older file stays unchanged.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{task_id}.jsonl"
        # Two replicas may write the file at once, each under its own name.
        beside = self._folder / f".{task_id}.{uuid4().hex}"
        try:
            with beside.open("w", encoding="utf-8") as file:
                while page := list(islice(items, PAGE)):
                    file.writelines(f"{item_json(item)}\n" for item in page)
                    file.flush()
                    # Synced by pages, because a sync blocks the whole process.
                    os.fsync(file.fileno())
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)
        return path
