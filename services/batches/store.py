"""Batch tasks and their items in SQL, for any number of replicas and workers; see services/batches/sql/tables.

The store keeps no state between calls. Every method raises `StoreUnavailable` while the database is away.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import sqlalchemy as sa

from services.batches.records import (
    ENDED,
    TASK_STATUSES,
    UNFINISHED,
    BatchOptions,
    Claimed,
    Item,
    ItemStatus,
    Task,
    TaskStatus,
)
from services.batches.sql import claims
from services.batches.sql import tasks as steps
from services.batches.sql.expiry import expire
from services.batches.sql.rows import Row, answer_values, items_of, tasks_of, waits
from services.batches.sql.setup import prepare
from services.batches.sql.submission import Bounds, NewTask, submit
from services.batches.sql.tables import TASKS
from services.sql.database import SqlDatabase

#: How often a claim is retried after another worker was faster.
TRIES = 50
#: Maximal number of tasks that one call of `expire` removes, and that one of `unstored` returns.
EXPIRED_AT_ONCE = 20
UNSTORED_AT_ONCE = 100
# Inside the class `list` is a method.
Tasks = list[Task]
Items = list[Item]
Stopped = list[tuple[int, int]]
TaskIds = list[str]


class SqlBatchStore:
    """Tasks, their items, and which lane has which item, in MySQL or SQLite.

    At most `max_unfinished` tasks are unfinished at once, and `max_per_owner` of one owner; None for no such limit.
    Timeouts as in `SqlDatabase`; `clock` returns seconds since 1970.
    """

    def __init__(
        self,
        url: str,
        *,
        max_unfinished: int = 1000,
        max_per_owner: int | None = None,
        pool_size: int = 5,
        pool_timeout: float = 5.0,
        connect_timeout: float = 3.0,
        read_timeout: float = 10.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = SqlDatabase(
            url,
            pool_size=pool_size,
            pool_timeout=pool_timeout,
            connect_timeout=connect_timeout,
            read_timeout=read_timeout,
            writes=True,
        )
        self._bounds = Bounds(max_unfinished, max_per_owner or max_unfinished)
        self._clock = clock

    def prepare(self) -> None:
        """Create missing tables.

        Raises:
            SettingsError: they are missing or of another version, and this SQL user cannot create or change them.
        """
        prepare(self._database)

    def check(self) -> None:
        """Check that the database answers."""
        self._database.read(lambda connection: connection.scalar(sa.select(1)))

    def close(self) -> None:
        """Close the idle connections."""
        self._database.close()

    def create(
        self,
        *,
        owner: str,
        name: str,
        texts: Sequence[str],
        description: str = "",
        options: BatchOptions | None = None,
        credential: str = "",
        key: str = "",
        digest: str = "",
    ) -> tuple[Task, bool]:
        """Add a task; return it, and whether it is new.

        `key` is the owner's idempotency key: with the same `digest` it returns the existing task.

        Raises:
            BatchConflict: the key belongs to a task with another digest.
            BatchQueueFull: the limit of unfinished tasks is reached, in total or for this owner.
            ValueError: there are no texts.
        """
        if not texts:
            raise ValueError("a task has at least one text")
        chosen = options or BatchOptions()
        task_id = str(uuid.uuid4())
        new = NewTask(task_id, owner, name, description, chosen, texts, credential, key, digest)
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

    def results(self, task_id: str, *, page: int = 1, size: int = 100) -> Items:
        """Return one page of a task's items in input order, with any status."""
        return self.rows(task_id, (page - 1) * size - 1, size)

    def rows(self, task_id: str, after: int = -1, limit: int = 100) -> Items:
        """Return up to `limit` items with an index above `after`, in order; none at the end."""
        return self._database.read(lambda connection: list(items_of(connection, task_id, after + 1, limit)))

    def ended(self, task_ids: Collection[str]) -> set[str]:
        """Return those of the tasks that have ended or no longer exist."""
        going = sa.select(TASKS.c.task_id).where(TASKS.c.task_id.in_(task_ids), TASKS.c.status.in_(UNFINISHED))
        return {*task_ids} - {*self._database.read(lambda connection: connection.scalars(going).all())}

    def claim(self, lane: int, *, lanes: int | None = None) -> Claimed | None:
        """Return the item that this lane must ask now, `None` if there is none.

        First an item that is already running in the lane, or in a lane of number `lanes` or above, which no longer
        exists and has no worker. Then the next item of the task that was served longest ago.
        """
        return self._claimed(lane, lanes, begin=True)

    def claim_again(self, lane: int, *, lanes: int | None = None) -> Claimed | None:
        """Do as `claim` does, but return only an item that is already running."""
        return self._claimed(lane, lanes, begin=False)

    def complete(
        self,
        claimed: Claimed,
        *,
        content: str,
        metadata: Mapping[str, Any] | None = None,
        sources: Sequence[Mapping[str, Any]] = (),
        usage: Mapping[str, Any] | None = None,
    ) -> bool:
        """Store an item's answer; `False` if the item has ended or another attempt has begun."""
        return self._end(claimed, "completed", answer_values(content, metadata, sources, usage))

    def fail(self, claimed: Claimed, code: str, message: str, **said: Any) -> bool:
        """Mark the item as failed, with a code and a sentence for the user; `False` as in `complete`.

        `said` is the partial answer, with the keywords of `complete`.
        """
        return self._end(claimed, "failed", {**answer_values(**said), **_error(code, message)})

    def retry(self, claimed: Claimed, after: float, code: str, message: str) -> bool:
        """Ask the item again in `after` seconds, as its next attempt; `False` as in `complete`.

        The caller limits the number of attempts. Items that were never asked come before those to be asked again.
        """
        due = claims.micros(self._now() + timedelta(seconds=after))
        return self._settle(claimed, {"status": "pending", "due": due, **_error(code, message)})

    def wait(self, claimed: Claimed, after: float, code: str, message: str) -> bool:
        """Do as `retry` does, without counting this attempt."""
        due = claims.micros(self._now() + timedelta(seconds=after))
        values = {"status": "pending", "due": due, **waits(claimed.waits + 1), **_error(code, message)}
        return self._settle(claimed, values)

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

    def runnable(self) -> tuple[bool, float | None]:
        """Return whether a claim would find a waiting item and, if not, the seconds until the first retry is due.

        Running items do not count here: see `running_lanes`.
        """
        now = self._now()

        def look(connection: sa.Connection) -> tuple[bool, float | None]:
            found = claims.next_task(connection, claims.held(connection), now) is not None
            return found, None if found else claims.next_due(connection, now)

        return self._database.read(look)

    def running_lanes(self) -> frozenset[int]:
        """Return the lanes that have a running item, each of which needs a worker."""
        return frozenset(item.lane for item in self._database.read(claims.held))

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

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock(), UTC)

    def _one(self, asked: sa.Select[Any]) -> Row | None:
        return self._database.read(lambda connection: connection.execute(asked).first())

    def _tasks(self, rows: Sequence[Row]) -> Tasks:
        return self._database.read(lambda connection: tasks_of(connection, rows, self._now()))

    def _claimed(self, lane: int, lanes: int | None, *, begin: bool) -> Claimed | None:
        for _ in range(TRIES):
            look = partial(claims.candidate, lane=lane, lanes=lanes, now=self._now(), begin=begin)
            attempt = self._database.read(look)
            if attempt is None:
                break
            with suppress(claims.Overtaken):
                if claimed := self._database.transact(attempt):
                    return claimed
        return None

    def _end(self, claimed: Claimed, status: ItemStatus, values: Mapping[str, Any]) -> bool:
        end = {"status": status, "attempts": claimed.tries, "ended_at": self._now()}
        return self._settle(claimed, {**end, **_error(), **values})

    def _settle(self, claimed: Claimed, values: Mapping[str, Any]) -> bool:
        now = self._now()
        return self._database.transact(lambda connection: claims.settle(connection, claimed, values, now))


def _error(code: str | None = None, message: str | None = None) -> dict[str, str | None]:
    return {"error_code": code, "error_message": message}
