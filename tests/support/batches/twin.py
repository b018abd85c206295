"""Batches in memory, for tests of endpoints: the manager's rules without SQL, Redis or a provider."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from services.batches.records import (
    ENDED,
    TASK_STATUSES,
    BatchOptions,
    Given,
    Item,
    ItemStatus,
    QueueStatus,
    Task,
    TaskStatus,
)
from services.errors import (
    BatchConflict,
    BatchFinished,
    BatchQueueFull,
    BatchUnfinished,
    BatchUnknown,
    StoreUnavailable,
)

START = datetime(2026, 11, 21, 8, 30, tzinfo=UTC)


@dataclass
class BatchesTwin:
    """Batches whose clock advances one second with each call. The test ends items with `answer`."""

    max_size: int = 1000
    #: Whether SQL is unreachable.
    away: bool = False
    #: The number of items that all calls of `rows` have yielded.
    handed_out: int = 0
    credentials: list[str] = field(default_factory=list)
    _tasks: dict[str, Task] = field(default_factory=dict)
    _items: dict[str, list[Item]] = field(default_factory=dict)
    _keys: dict[tuple[str, str], tuple[str, object]] = field(default_factory=dict)
    _seconds: int = 0

    def submit(
        self,
        *,
        owner: str,
        name: str,
        texts: Sequence[str],
        given: Sequence[Given] = (),
        credential: str = "",
        description: str = "",
        options: BatchOptions | None = None,
        key: str = "",
    ) -> tuple[Task, bool]:
        self._reach()
        digest = (name, description, options, tuple(texts), tuple(given))
        if key and (owner, key) in self._keys:
            task_id, known = self._keys[owner, key]
            if known != digest:
                raise BatchConflict
            return self._tasks[task_id], False
        if sum(not task.ended for task in self._tasks.values()) >= self.max_size:
            raise BatchQueueFull
        now = self._now()
        task = Task(
            str(uuid.uuid4()), owner, name, description, "pending", options or BatchOptions(), len(texts), now, now
        )
        self.credentials.append(credential)
        self._tasks[task.task_id] = task
        self._items[task.task_id] = [
            Item(index, text, given=given[index] if given else Given()) for index, text in enumerate(texts)
        ]
        self._keys[owner, key] = (task.task_id, digest)
        return task, True

    def get(self, task_id: str, owner: str) -> Task:
        self._reach()
        task = self._tasks.get(task_id)
        if task is None or task.owner != owner:
            raise BatchUnknown
        return replace(task, seen_at=self._now())

    def list(
        self, owner: str, status: TaskStatus | None = None, *, page: int = 1, size: int = 20
    ) -> tuple[list[Task], int]:
        self._reach()
        found = [task for task in self._tasks.values() if task.owner == owner and status in (None, task.status)]
        found.sort(key=lambda task: task.created_at, reverse=True)
        return found[(page - 1) * size : page * size], len(found)

    def rows(
        self, task_id: str, owner: str, *, first: int = 0, limit: int | None = None, status: ItemStatus | None = None
    ) -> Iterator[Item]:
        self.get(task_id, owner)
        found = [item for item in self._items[task_id] if status in (None, item.status)][first:][:limit]
        return (self._handed(item) for item in found)

    def cancel(self, task_id: str, owner: str) -> Task:
        task = self._unfinished(task_id, owner)
        items = [replace(i, status="cancelled") if i.status in ("pending", "running") else i for i in self._all(task)]
        self._items[task_id] = items
        return self._keep(replace(task, status="cancelled", cancelled_at=self._now()))

    def pause(self, task_id: str, owner: str) -> Task:
        return self._keep(replace(self._unfinished(task_id, owner), status="paused"))

    def resume(self, task_id: str, owner: str) -> Task:
        task = self._unfinished(task_id, owner)
        if task.status != "paused":
            return task
        return self._keep(replace(task, status="running" if task.started_at else "pending"))

    def retry(self, task_id: str, owner: str, *, credential: str = "") -> Task:
        task = self._ended(task_id, owner)
        if not task.failed:
            raise BatchFinished(code="batch_nothing_failed")
        self.credentials.append(credential)
        again = [Item(i.index, i.text, given=i.given) if i.status == "failed" else i for i in self._all(task)]
        self._items[task_id] = again
        return self._keep(replace(task, status="running", completed_at=None))

    def purge(self, task_id: str, owner: str) -> None:
        del self._tasks[self._ended(task_id, owner).task_id]

    def status(self) -> QueueStatus:
        self._reach()
        totals = {one: sum(task.status == one for task in self._tasks.values()) for one in TASK_STATUSES}
        return QueueStatus(1, 5, sum(task.running for task in self._tasks.values()), totals, self.max_size)

    def answer(self, task_id: str, item: Item) -> None:
        """Replace the item with this item's index; the last item that ends also ends its task."""
        task = self._tasks[task_id]
        started = self._now()
        self._items[task_id][item.index] = replace(item, attempts=1, started_at=started, completed_at=self._now())
        task = self._keep(replace(task, status="running", started_at=task.started_at or started))
        if task.done == task.total:
            self._keep(replace(task, status="completed" if task.completed else "failed", completed_at=self._now()))

    def _all(self, task: Task) -> Sequence[Item]:
        return self._items[task.task_id]

    def _unfinished(self, task_id: str, owner: str) -> Task:
        task = self.get(task_id, owner)
        if task.status in ENDED:
            raise BatchFinished
        return task

    def _ended(self, task_id: str, owner: str) -> Task:
        task = self.get(task_id, owner)
        if task.status not in ENDED:
            raise BatchUnfinished
        return task

    def _keep(self, task: Task) -> Task:
        ended = [item.status for item in self._all(task)]
        counts = {one: ended.count(one) for one in ("completed", "failed", "cancelled", "running")}
        self._tasks[task.task_id] = replace(task, **counts)  # type: ignore[arg-type]
        return self._tasks[task.task_id]

    def _handed(self, item: Item) -> Item:
        self._reach()
        self.handed_out += 1
        return item

    def _reach(self) -> None:
        if self.away:
            raise StoreUnavailable

    def _now(self) -> datetime:
        self._seconds += 1
        return START + timedelta(seconds=self._seconds)
