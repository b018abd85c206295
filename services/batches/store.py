"""Batch tasks and their items in SQL, for any number of replicas and workers; see services/batches/sql/tables.

The store keeps no state between calls. Every method raises `StoreUnavailable` while the database is away.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any

import sqlalchemy as sa

from services.batches.item_store import SqlItemStore
from services.batches.records import ENDED, TASK_STATUSES, BatchOptions, Given, Task, TaskStatus
from services.batches.sql import tasks as steps
from services.batches.sql import webhooks
from services.batches.sql.claims import micros
from services.batches.sql.expiry import expire, hide_task, remove
from services.batches.sql.rows import Row, tasks_of
from services.batches.sql.submission import Bounds, NewTask, check_bounds, pass_gate, submit
from services.batches.sql.tables import INDEXES, TABLES, TASKS
from services.errors import StoreUnavailable
from services.sql.database import SqlDatabase
from services.sql.schema import Schema

SCHEMA = Schema(
    TABLES,
    INDEXES,
    name="batch tables are",
    subject="BATCH_ENABLED",
    remedy="docs/batches.md has the statements; BATCH_ENABLED=false does without batches",
)


def prepare(database: SqlDatabase) -> None:
    """Create missing tables; safe to run again, and in many processes at once.

    Raises:
        SettingsError: tables are missing or of another version, and this SQL user cannot create or change them.
        StoreUnavailable: the database is away.
    """
    SCHEMA.create_missing(database)
    database.transact(pass_gate)


#: Maximal number of tasks that one call of `expire` removes, and that one of `unstored` returns.
EXPIRED_AT_ONCE = 20
UNSTORED_AT_ONCE = 100
#: Characters of the cause of a failed webhook that are kept.
MOST_ERROR = 64
# Inside the class `list` is a method.
Tasks = list[Task]
Stopped = list[tuple[int, int]]
TaskIds = list[str]


class SqlBatchStore(SqlItemStore):
    """Tasks, their items, and which lane has which item, in MySQL or SQLite."""

    def __init__(
        self, url: str, *, max_unfinished: int = 1000, max_per_owner: int | None = None, **options: Any
    ) -> None:
        """Take the limits of unfinished tasks: of all, and of one owner (None: none); `options` as `SqlItemStore`."""
        super().__init__(url, **options)
        self._bounds = Bounds(max_unfinished, max_per_owner or max_unfinished)

    def prepare(self) -> None:
        """Create missing tables.

        Raises:
            SettingsError: they are missing or of another version, and this SQL user cannot create or change them.
        """
        prepare(self._database)

    def create(
        self,
        *,
        owner: str,
        name: str,
        texts: Sequence[str],
        given: Sequence[Given] = (),
        description: str = "",
        options: BatchOptions | None = None,
        credential: str = "",
        key: str = "",
        digest: str = "",
    ) -> tuple[Task, bool]:
        """Add a task; return it, and whether it is new.

        `given` is empty, or has an entry for each text. `key` is the owner's idempotency key: with the same `digest` it
        returns the existing task.

        Raises:
            BatchConflict: the key belongs to a task with another digest.
            BatchQueueFull: the limit of unfinished tasks is reached, in total or for this owner.
            ValueError: there are no texts.
        """
        if not texts:
            raise ValueError("a task has at least one text")
        chosen = options or BatchOptions()
        task_id = str(uuid.uuid4())
        new = NewTask(task_id, owner, name, description, chosen, texts, given, credential, key, digest)
        row = submit(self._database, new, self._bounds, self._now())
        return self._tasks([row])[0], row.task_id == task_id

    def get(self, task_id: str, owner: str | None = None) -> Task:
        """Return a task of this owner, or of any owner if `None`.

        Raises:
            BatchUnknown: there is no such task, or it has another owner.
        """
        row = self._one(sa.select(TASKS).where(TASKS.c.task_id == task_id))
        return self._tasks([steps.visible(row, owner)])[0]

    def look_up(self, task_ids: Collection[str]) -> Tasks:
        """Return those of the tasks that exist, of any owner, in no order."""
        asked = sa.select(TASKS).where(TASKS.c.task_id.in_(task_ids), TASKS.c.status.in_(TASK_STATUSES))
        return self._tasks(self._database.read(lambda connection: connection.execute(asked).all()))

    def list(
        self, owner: str | None = None, status: TaskStatus | None = None, *, page: int = 1, size: int = 20
    ) -> tuple[Tasks, int]:
        """Return one page of tasks, newest first, and the number on all pages."""
        wanted = [TASKS.c.status.in_(TASK_STATUSES) if status is None else TASKS.c.status == status]
        if owner is not None:
            wanted.append(TASKS.c.owner == owner)
        newest = sa.select(TASKS).where(*wanted).order_by(TASKS.c.created_at.desc(), TASKS.c.task_id)
        shown = newest.limit(size).offset((page - 1) * size)
        counted = sa.select(sa.func.count()).select_from(TASKS).where(*wanted)
        total = self._database.read(lambda connection: connection.scalar(counted) or 0)
        return self._tasks(self._database.read(lambda connection: connection.execute(shown).all())), total

    def totals(self) -> Mapping[TaskStatus, int]:
        """Return the number of tasks by status, 0 included."""
        counted = sa.select(TASKS.c.status, sa.func.count().label("number")).group_by(TASKS.c.status)
        rows = self._database.read(lambda connection: connection.execute(counted).all())
        found: dict[TaskStatus, int] = {row.status: row.number for row in rows}
        return {status: found.get(status, 0) for status in TASK_STATUSES}

    def cancel(self, task_id: str, owner: str | None = None) -> tuple[Task, Stopped]:
        """Cancel a task; return it, and (index, attempt) of its running items, which the caller stops.

        Raises:
            BatchUnknown, BatchFinished: the owner has no such task, or it has ended.
        """
        now = self._now()
        return self._database.transact(lambda c: steps.cancel(c, steps.owned(c, task_id, owner), now))

    def pause(self, task_id: str, owner: str | None = None) -> Task:
        """Claim no more items of a task; running ones may end. Raises as `cancel` does."""
        now = self._now()
        return self._database.transact(lambda c: steps.pause(c, steps.owned(c, task_id, owner), now))

    def resume(self, task_id: str, owner: str | None = None) -> Task:
        """Continue a paused task. Raises as `cancel` does."""
        now = self._now()
        return self._database.transact(lambda c: steps.resume(c, steps.owned(c, task_id, owner), now))

    def retry_failed(self, task_id: str, owner: str | None = None, *, credential: str = "") -> Task:
        """Ask the failed items of an ended task again, with the submitter's present `credential`.

        Raises:
            BatchUnknown, BatchUnfinished: the owner has no such task, or it has not ended.
            BatchFinished: it was cancelled; code "batch_nothing_failed": no item failed.
            BatchQueueFull: the limit of unfinished tasks is reached, in total or for this owner.
        """
        now = self._now()

        def again(connection: sa.Connection) -> Task:
            pass_gate(connection)
            row = steps.ended(connection, task_id, owner)
            check_bounds(connection, row.owner, self._bounds)
            return steps.retry(connection, row, credential, now)

        return self._database.transact(again)

    def purge(self, task_id: str, owner: str | None = None) -> None:
        """Remove an ended task with its results; it is hidden at once. Raises `BatchUnknown`, `BatchUnfinished`."""

        def hide(connection: sa.Connection) -> int:
            row = steps.ended(connection, task_id, owner)
            hide_task(connection, task_id)
            return int(row.total)

        total = self._database.transact(hide)
        # What is left after an outage is removed with the expired tasks.
        with suppress(StoreUnavailable):
            remove(self._database, task_id, total)

    def take_webhook(self, lease: float) -> tuple[str, int] | None:
        """Begin an attempt to deliver the webhook that is due; return its task's id and its number, None if none is.

        No other call returns it within `lease` seconds, or ever if `settle_webhook` is called in that time.
        """
        now = self._now()
        until = micros(now + timedelta(seconds=lease))
        for found in self._database.read(lambda connection: webhooks.due(connection, micros(now))):
            if self._database.transact(lambda connection, found=found: webhooks.take(connection, found, until)):  # type: ignore[misc]
                return found.task_id, found.hook_tries + 1
        return None

    def settle_webhook(self, task_id: str, attempt: int, *, delivered: bool, again: float | None, error: str) -> None:
        """Store the end of an attempt: `again` is in how many seconds the next one begins, None for no next one."""
        due = micros(self._now() + timedelta(seconds=again or 0.0))
        state = "pending" if again is not None else "delivered" if delivered else "failed"
        values = {"hook_state": state, "hook_due": due, "hook_error": error[:MOST_ERROR] or None}
        self._database.transact(lambda connection: webhooks.settle(connection, task_id, attempt, values))

    def unstored(self) -> TaskIds:
        """Return ended tasks for which `stored` was not called, oldest end first."""
        missing = sa.select(TASKS.c.task_id).where(TASKS.c.stored == 0, TASKS.c.status.in_(ENDED))
        first = missing.where(TASKS.c.ended_at.is_not(None)).order_by(TASKS.c.ended_at).limit(UNSTORED_AT_ONCE)
        return [*self._database.read(lambda connection: connection.scalars(first).all())]

    def stored(self, task_id: str) -> bool:
        """Mark an ended task as archived; `True` for the first caller."""
        first = (TASKS.c.task_id == task_id, TASKS.c.status.in_(ENDED), TASKS.c.stored == 0)
        noted = TASKS.update().where(*first).values(stored=1)
        return bool(self._database.transact(lambda connection: connection.execute(noted).rowcount))

    def expire(self, days: float) -> int:
        """Remove some tasks that ended more than `days` ago; return how many, 0 when none is left."""
        now = self._now()
        return expire(self._database, now - timedelta(days=days), now, EXPIRED_AT_ONCE)

    def _one(self, asked: sa.Select[Any]) -> Row | None:
        return self._database.read(lambda connection: connection.execute(asked).first())

    def _tasks(self, rows: Sequence[Row]) -> Tasks:
        return self._database.read(lambda connection: tasks_of(connection, rows, self._now()))
