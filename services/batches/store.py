"""Batch tasks and their items in SQL, for any number of replicas and workers at once; see services/batches/sql/tables.

Nothing here is remembered between two calls. Every method raises `StoreUnavailable` while the database is away.
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
from services.batches.sql.submission import Bounds, Submission, submit
from services.batches.sql.tables import TASKS
from services.sql.database import SqlDatabase

#: How often a claim that others were faster for is tried again.
TRIES = 50
#: Tasks that one call of `expire` removes, and that one of `unstored` names, at most.
EXPIRED_AT_ONCE = 20
UNSTORED_AT_ONCE = 100
# Inside the class `list` is a method.
Tasks = list[Task]
Items = list[Item]
Stopped = list[tuple[int, int]]
TaskIds = list[str]


class SqlBatchStore:
    """Tasks, their items, and who works on which, in MySQL or SQLite.

    At most `max_unfinished` tasks are unfinished at once, and `max_per_owner` of one owner, None for as many. Timeouts
    as in `SqlDatabase`; `clock` tells seconds since 1970.
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
        """Create the tables where they are missing.

        Raises:
            SettingsError: they are missing, or another version's, and this user may not or cannot mend that.
        """
        prepare(self._database)

    def check(self) -> None:
        """Ask the database for nothing, to see that it answers."""
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

        `key` is the owner's own name for this submission: said again with the same `digest` it finds its task.

        Raises:
            BatchConflict: the key stands for a submission with another digest.
            BatchQueueFull: as many tasks are unfinished as may be, of all or of this owner.
            ValueError: there are no texts.
        """
        if not texts:
            raise ValueError("a task has at least one text")
        chosen = options or BatchOptions()
        task_id = str(uuid.uuid4())
        new = Submission(task_id, owner, name, description, chosen, texts, credential, key, digest)
        row = submit(self._database, new, self._bounds, self._now())
        return self._tasks([row])[0], row.task_id == task_id

    def get(self, task_id: str, owner: str | None = None) -> Task:
        """Return a task of this owner, or of anybody.

        Raises:
            BatchUnknown: there is none, or it is another's.
        """
        row = self._one(sa.select(TASKS).where(TASKS.c.task_id == task_id))
        return self._tasks([steps.visible(row, owner)])[0]

    def look_up(self, task_ids: Collection[str]) -> Tasks:
        """Return those of these tasks that there are, anybody's, in no order."""
        asked = sa.select(TASKS).where(TASKS.c.task_id.in_(task_ids), TASKS.c.status.in_(TASK_STATUSES))
        return self._tasks(self._database.read(lambda connection: connection.execute(asked).all()))

    def list(
        self, owner: str | None = None, status: TaskStatus | None = None, *, page: int = 1, size: int = 20
    ) -> tuple[Tasks, int]:
        """Return one page of tasks, the newest first, and how many there are on all pages."""
        wanted = [TASKS.c.status.in_(TASK_STATUSES) if status is None else TASKS.c.status == status]
        if owner is not None:
            wanted.append(TASKS.c.owner == owner)
        newest = sa.select(TASKS).where(*wanted).order_by(TASKS.c.created_at.desc(), TASKS.c.task_id)
        shown = newest.limit(size).offset((page - 1) * size)
        counted = sa.select(sa.func.count()).select_from(TASKS).where(*wanted)
        total = self._database.read(lambda connection: connection.scalar(counted) or 0)
        return self._tasks(self._database.read(lambda connection: connection.execute(shown).all())), total

    def totals(self) -> Mapping[TaskStatus, int]:
        """Return how many tasks have each status, those that none has included."""
        counted = sa.select(TASKS.c.status, sa.func.count()).group_by(TASKS.c.status)
        rows = self._database.read(lambda connection: connection.execute(counted).all())
        found = {row[0]: row[1] for row in rows}
        return {status: found.get(status, 0) for status in TASK_STATUSES}

    def results(self, task_id: str, *, page: int = 1, size: int = 100) -> Items:
        """Return one page of a task's items in the order of their texts, whatever has become of them yet."""
        return self.rows(task_id, (page - 1) * size - 1, size)

    def rows(self, task_id: str, after: int = -1, limit: int = 100) -> Items:
        """Return the items whose index is above `after`, in order, `limit` at most; none: that was all."""
        return self._database.read(lambda connection: list(items_of(connection, task_id, after + 1, limit)))

    def ended(self, task_ids: Collection[str]) -> set[str]:
        """Return those of these tasks that have ended, or are there no more."""
        going = sa.select(TASKS.c.task_id).where(TASKS.c.task_id.in_(task_ids), TASKS.c.status.in_(UNFINISHED))
        return {*task_ids} - {*self._database.read(lambda connection: connection.scalars(going).all())}

    def claim(self, lane: int, *, lanes: int | None = None) -> Claimed | None:
        """Return the item this lane has to ask now; `None`: there is none.

        First one that is running in it already, or in a lane of number `lanes` or above: there are so many now, and
        whoever worked there is gone. Then the next one of the task that was served longest ago.
        """
        return self._claimed(lane, lanes, begin=True)

    def claim_again(self, lane: int, *, lanes: int | None = None) -> Claimed | None:
        """Do as `claim` does, and begin no item: return only one that is running already."""
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
        """Keep an item's answer; `False`: the item ended otherwise, or is another attempt's, meanwhile."""
        return self._end(claimed, "completed", answer_values(content, metadata, sources, usage))

    def fail(self, claimed: Claimed, code: str, message: str, **said: Any) -> bool:
        """Have the item failed for good, with a code and a sentence of ours; `False` as in `complete`.

        `said` is what there was of an answer, by the names that `complete` has for it.
        """
        return self._end(claimed, "failed", {**answer_values(**said), **_error(code, message)})

    def retry(self, claimed: Claimed, after: float, code: str, message: str) -> bool:
        """Have the item asked again, as its next attempt, in `after` seconds; `False` as in `complete`.

        How often is the caller's business. Of items that may be asked, those that never were come first.
        """
        due = claims.micros(self._now() + timedelta(seconds=after))
        return self._settle(claimed, {"status": "pending", "due": due, **_error(code, message)})

    def wait(self, claimed: Claimed, after: float, code: str, message: str) -> bool:
        """Do as `retry` does, and count this attempt for nothing."""
        due = claims.micros(self._now() + timedelta(seconds=after))
        values = {"status": "pending", "due": due, **waits(claimed.waits + 1), **_error(code, message)}
        return self._settle(claimed, values)

    def cancel(self, task_id: str, owner: str | None = None) -> tuple[Task, Stopped]:
        """End a task; return it, and index and attempt of its items that were running: to be stopped.

        Raises:
            BatchUnknown, BatchFinished: there is none of this owner, or it has ended.
        """
        now = self._now()
        return self._database.transact(lambda c: steps.cancel(c, steps.owned(c, task_id, owner), now))

    def pause(self, task_id: str, owner: str | None = None) -> Task:
        """Have no more items claimed; those that run may end. Raises as `cancel` does."""
        now = self._now()
        return self._database.transact(lambda c: steps.pause(c, steps.owned(c, task_id, owner), now))

    def resume(self, task_id: str, owner: str | None = None) -> Task:
        """Have items claimed again. Raises as `cancel` does."""
        now = self._now()
        return self._database.transact(lambda c: steps.resume(c, steps.owned(c, task_id, owner), now))

    def runnable(self) -> tuple[bool, float | None]:
        """Tell whether a claim would find an item that waits, and if not, in how many seconds the first retry is due.

        What a lane holds already is not looked at: see `running_lanes`.
        """
        now = self._now()

        def look(connection: sa.Connection) -> tuple[bool, float | None]:
            found = claims.next_task(connection, claims.held(connection), now) is not None
            return found, None if found else claims.next_due(connection, now)

        return self._database.read(look)

    def running_lanes(self) -> frozenset[int]:
        """Return the lanes that have an item running: if nobody works one of them, somebody has to."""
        return frozenset(item.lane for item in self._database.read(claims.held))

    def unstored(self) -> TaskIds:
        """Return ended tasks that `stored` was not called for, the first that ended first."""
        missing = sa.select(TASKS.c.task_id).where(TASKS.c.stored == 0, TASKS.c.status.in_(ENDED))
        first = missing.where(TASKS.c.ended_at.is_not(None)).order_by(TASKS.c.ended_at).limit(UNSTORED_AT_ONCE)
        return [*self._database.read(lambda connection: connection.scalars(first).all())]

    def stored(self, task_id: str) -> bool:
        """Note that an ended task is seen to; `True` for whoever is the first to."""
        first = (TASKS.c.task_id == task_id, TASKS.c.status.in_(ENDED), TASKS.c.stored == 0)
        noted = TASKS.update().where(*first).values(stored=1)
        return bool(self._database.transact(lambda connection: connection.execute(noted).rowcount))

    def expire(self, days: float) -> int:
        """Remove tasks that ended more than so many days ago; return how many. One call removes a few at most."""
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
