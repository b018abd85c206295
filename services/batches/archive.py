"""The end of a batch task: its one canonical log line, its file, and its removal after the retention time."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

from services import metrics
from services.batches.files import BatchFiles
from services.batches.records import Item, ItemStatus, Task
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
#: Items per page when a task's results are read.
PAGE = 200


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
        self._files = BatchFiles(folder) if folder else None
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
            if self._files:
                self._files.write(task_id, all_rows(self._store, task_id))
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


def all_rows(
    store: SqlBatchStore,
    task_id: str,
    *,
    first: int = 0,
    limit: int | None = None,
    status: ItemStatus | None = None,
    page: int = PAGE,
) -> Iterator[Item]:
    """Yield a task's items in order, or those of a status, from number `first` on; at most `limit`, page by page."""
    left, after = math.inf if limit is None else limit, -1
    if not status:
        after, first = first - 1, 0
    while left > 0 and (items := store.rows(task_id, after, int(min(page, left)), status=status, skip=first)):
        yield from items
        after, left, first = items[-1].index, left - len(items), 0


def report(task: Task) -> None:
    """Write a task's one canonical log line, and count its outcome."""
    metrics.BATCH_TASKS.labels(task.status).inc()
    end = task.completed_at or task.cancelled_at or task.seen_at
    counts = {"items": task.total, "completed": task.completed, "failed": task.failed, "cancelled": task.cancelled}
    ms = round((end - task.created_at).total_seconds() * 1000)
    log.info("batch task", extra={"task_id": task.task_id, "outcome": task.status, "ms": ms, **counts})
