"""A finished task as a file: `<task id>.jsonl` in `BATCH_STORAGE_PATH`, one line for each item, in the input's order.

A reader never sees half a file: it is written beside, and then takes its name. The files are the operator's: nothing
here removes them.
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
    """See that files can be made in a folder, or in the one it would be made in: a file is made and removed.

    Raises:
        OSError: they cannot. Permissions alone do not tell of a read-only disk, or of what root may not do either.
    """
    whole = Path(folder).absolute()
    with TemporaryFile(dir=next(place for place in (whole, *whole.parents) if place.exists())) as file:
        file.write(b"\0")


class BatchFiles:
    """Writes the files of finished tasks."""

    def __init__(self, folder: str | Path) -> None:
        self._folder = Path(folder)

    def write(self, task_id: str, items: Iterator[Item]) -> Path:
        """Write a task's file, in place of one that is there; return where it is.

        Raises:
            OSError: the folder cannot be written to, or is full; an older file stays as it was.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{task_id}.jsonl"
        # Two replicas may write it at once: each its own.
        beside = self._folder / f".{task_id}.{uuid4().hex}"
        try:
            with beside.open("w", encoding="utf-8") as file:
                while page := list(islice(items, PAGE)):
                    file.writelines(f"{item_json(item)}\n" for item in page)
                    file.flush()
                    # By pages: nothing else of the process runs meanwhile.
                    os.fsync(file.fileno())
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)
        return path
