"""The end of a batch task: its one canonical log line, its file, and its removal after the retention time.

The file is `<task id>.jsonl` in `BATCH_STORAGE_PATH`, one line per item in input order. A reader never sees an
incomplete file: it is written under another name and then renamed. The files belong to the operator; this code never
removes them.
"""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from tempfile import TemporaryFile
from uuid import uuid4

from services import metrics
from services.batches.records import Item, Task
from services.batches.store import SqlBatchStore
from services.errors import BatchUnknown, StoreUnavailable
from services.redis.lock_store import LockStore

log = logging.getLogger(__name__)

LOCK = "batch_archive"
#: Seconds between two checks for ended tasks.
TIDY_SECONDS = 5.0
#: Seconds for which one replica alone does this; longer than the largest file takes.
LOCK_SECONDS = 120.0
#: Seconds between two removals of old tasks.
EXPIRE_SECONDS = 600.0
#: Items written to a file at a time.
WRITTEN_AT_ONCE = 100


class BatchArchive:
    """Archives ended tasks, on one replica at a time."""

    def __init__(
        self,
        store: SqlBatchStore,
        locks: LockStore,
        *,
        folder: str | None,
        retention_days: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._locks = locks
        self._folder = Path(folder) if folder else None
        self._retention_days = retention_days
        self._clock = clock
        self._expired_at = -math.inf
        self._complained = False
        #: Ended tasks that failed with an unexpected error: this process does not try them again.
        self._broken: set[str] = set()

    def tidy(self) -> float:
        """Archive the tasks that ended on any replica; return the seconds until the next call.

        Raises:
            StoreUnavailable: the database or Redis is away.
        """
        ended = self._store.unstored()
        old = self._clock() - self._expired_at >= EXPIRE_SECONDS
        token = self._locks.acquire(LOCK, LOCK_SECONDS) if ended or old else None
        if token is None:
            return TIDY_SECONDS
        try:
            self._tidy(ended, old=old)
        finally:
            with suppress(StoreUnavailable):
                self._locks.release(LOCK, token)
        return TIDY_SECONDS

    def _tidy(self, ended: list[str], *, old: bool) -> None:
        end = self._clock() + LOCK_SECONDS / 2
        for task_id in ended:
            if task_id not in self._broken and (self._clock() > end or not self._archived(task_id)):
                break
        if old:
            while removed := self._store.expire(self._retention_days):
                log.info("batch tasks removed", extra={"tasks": removed})
            self._expired_at = self._clock()

    def _archived(self, task_id: str) -> bool:
        """Archive a task; an unexpected error is logged, so that the other tasks are archived too."""
        try:
            return self._keep(task_id)
        except StoreUnavailable:
            raise
        except Exception:
            log.exception("batch task not seen to", extra={"task_id": task_id})
            self._broken.add(task_id)
            return True

    def _keep(self, task_id: str) -> bool:
        """Write a task's file and log line; return False if the file cannot be written now."""
        try:
            task = self._store.get(task_id)
            if self._folder:
                write_file(self._folder, task_id, self._store.all_rows(task_id))
        except BatchUnknown:
            return True
        except OSError as exc:
            if not self._complained:
                log.error("batch file not written", extra={"task_id": task_id, "cause": type(exc).__name__})
            self._complained = True
            return False
        self._complained = False
        if self._store.stored(task_id):
            report(task)
        return True


def write_file(folder: Path, task_id: str, items: Iterator[Item]) -> Path:
    """Write a task's file, replacing an existing one; return its path.

    Raises:
        OSError: the folder cannot be written, or the disk is full; an older file stays unchanged.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{task_id}.jsonl"
    # Two replicas may write the file at once, each under its own name.
    beside = folder / f".{task_id}.{uuid4().hex}"
    try:
        with beside.open("w", encoding="utf-8") as file:
            while page := list(islice(items, WRITTEN_AT_ONCE)):
                file.writelines(f"{item.to_json()}\n" for item in page)
                file.flush()
                # Synced by pages, because a sync blocks the whole process.
                os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    return path


def writable(folder: str | Path) -> None:
    """Check that files can be created in a folder, or in its nearest existing parent, by creating one.

    Raises:
        OSError: they cannot. Permissions alone show neither a read-only disk nor limits of root.
    """
    path = Path(folder).absolute()
    with TemporaryFile(dir=next(place for place in (path, *path.parents) if place.exists())) as file:
        file.write(b"\0")


def report(task: Task) -> None:
    """Write a task's one canonical log line, and count its outcome."""
    metrics.BATCH_TASKS.labels(task.status).inc()
    end = task.completed_at or task.cancelled_at or task.seen_at
    counts = {"items": task.total, "completed": task.completed, "failed": task.failed, "cancelled": task.cancelled}
    ms = round((end - task.created_at).total_seconds() * 1000)
    log.info("batch task", extra={"task_id": task.task_id, "outcome": task.status, "ms": ms, **counts})
