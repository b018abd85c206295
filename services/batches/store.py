"""Batch tasks and their items in SQL, for any number of replicas and workers; `tables.py` has the tables.

The store keeps no state between calls. Every method raises `StoreUnavailable` while the database is away.

**Submission.** A task is hidden while many short transactions insert its texts; the last one shows it. One transaction
for all would lock an SQLite file, and block the process, for a second, and is more than some database clusters accept.
A task whose replica died before that is removed by `expire`.

**Removal.** Tasks are hidden first, then their rows are deleted, some at a time. A removal that stops in the middle is
repeated from its beginning, so no rows are left behind.

**Webhooks.** Taking a webhook moves its time by the lease, in one update that only one process can make. So nothing is
lost with a process that dies while it delivers: the time comes again.
"""

from __future__ import annotations

import json
import math
import time
import uuid
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import cycle
from typing import Any

import sqlalchemy as sa

from services.batches import claims
from services.batches.claims import Row, count, locked, micros, spent, waits, waits_of
from services.batches.records import (
    ENDED,
    PRIORITIES,
    TASK_STATUSES,
    UNFINISHED,
    BatchOptions,
    Claimed,
    Given,
    Item,
    ItemStatus,
    Priority,
    Task,
    TaskStatus,
    Webhook,
)
from services.batches.tables import GATES, ITEMS, TASKS, by_status
from services.errors import (
    BatchConflict,
    BatchFinished,
    BatchQueueFull,
    BatchUnfinished,
    BatchUnknown,
    StoreUnavailable,
)
from services.identity.callers import ANONYMOUS, owner_of
from services.sql.database import SqlDatabase
from utils.citations import typed_source

#: Characters and rows of one portion of texts: below the smallest packet limit of servers, and short enough for other
#: writers to come between.
PORTION_CHARACTERS = 150_000
PORTION_ROWS = 500
#: Items that `all_rows` reads at a time.
READ_AT_ONCE = 200
#: Maximal time for a submission to arrive; after that its replica must be gone.
ARRIVAL = timedelta(hours=1)
#: How often a claim is retried after another worker was faster.
TRIES = 50
#: Numbers of attempts that one run of a task may use, and runs after which they begin again: an INT holds all of them.
ATTEMPTS_OF_RUN = 1_000_000
RUNS = 2_000
#: Webhooks looked at; those that other processes take at the same moment are passed over.
LOOKED_AT = 20
#: Characters of the cause of a failed webhook that are kept.
MOST_ERROR = 64
#: Maximal number of tasks that one call of `expire` removes, and that one of `unstored` returns.
EXPIRED_AT_ONCE = 20
UNSTORED_AT_ONCE = 100
#: Items deleted per transaction: with their answers they are long.
DELETED_AT_ONCE = 200
# Inside the class `list` is a method.
Tasks = list[Task]
Stopped = list[tuple[int, int]]
TaskIds = list[str]
Items = list[Item]


class SqlBatchStore:
    """Tasks, their items, and which lane has which item, in MySQL or SQLite."""

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
        """Take the limits of unfinished tasks, of all and of one owner (None: none), and timeouts as in `SqlDatabase`.

        `clock` returns seconds since 1970.
        """
        self._database = SqlDatabase(
            url,
            pool_size=pool_size,
            pool_timeout=pool_timeout,
            connect_timeout=connect_timeout,
            read_timeout=read_timeout,
            writes=True,
        )
        self.max_unfinished = max_unfinished
        self._max_per_owner = max_per_owner or max_unfinished
        self._clock = clock
        #: The lowest priority that takes part in the next claim of this process.
        self._lowest = cycle(claims.LOWEST)

    def check(self) -> None:
        """Check that the database answers."""
        self._database.check()

    def close(self) -> None:
        """Close the idle connections."""
        self._database.close()

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
        task_id: str = "",
    ) -> tuple[Task, bool]:
        """Add a task; return it, and whether it is new. Without a `task_id`, which is a new UUID, it gets its own.

        `given` is empty, or has an entry for each text. `key` is the owner's idempotency key: with the same `digest` it
        returns the existing task.

        Raises:
            BatchConflict: the key belongs to a task with another digest.
            BatchQueueFull: the limit of unfinished tasks is reached; code "batch_key_full": that of this owner.
            ValueError: there are no texts.
        """
        if not texts:
            raise ValueError("a task has at least one text")
        options = options or BatchOptions()
        now = self._now()
        new: dict[str, Any] = {
            "task_id": task_id or str(uuid.uuid4()),
            "owner": owner,
            "digest": digest,
            "name": name,
            "description": description,
            "options": options.to_json(),
            "credential": credential,
            "status": "arriving",
            "priority": PRIORITIES.index(options.priority) - 1,
            "max_concurrent": options.max_concurrent,
            "total": len(texts),
            "served": micros(now),
            "created_at": now,
            "error_message": "",
            "hook_state": "pending" if options.webhook_url else "none",
        }
        # An early check before the texts are sent; `_admit` repeats it behind the gate.
        row = self._database.read(lambda connection: self._known(connection, new, key))
        if row is None:
            row = self._submit(new, _portions(new["task_id"], texts, given), key)
        return self._tasks([row])[0], row.task_id == new["task_id"]

    def get(self, task_id: str, owner: str | None = None) -> Task:
        """Return a task of this owner, or of any owner if `None`.

        Raises:
            BatchUnknown: there is no such task, or it has another owner.
        """
        asked = sa.select(TASKS).where(TASKS.c.task_id == task_id)
        row = self._database.read(lambda connection: connection.execute(asked).first())
        return self._tasks([_visible(row, owner)])[0]

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

    def ended(self, task_ids: Collection[str]) -> set[str]:
        """Return those of the tasks that have ended or no longer exist."""
        going = sa.select(TASKS.c.task_id).where(TASKS.c.task_id.in_(task_ids), TASKS.c.status.in_(UNFINISHED))
        return {*task_ids} - {*self._database.read(lambda connection: connection.scalars(going).all())}

    def rows(
        self, task_id: str, after: int = -1, limit: int = 100, *, status: ItemStatus | None = None, skip: int = 0
    ) -> Items:
        """Return up to `limit` items with an index above `after`, in order; none at the end.

        With a `status`, only items of it, without the first `skip` of them.
        """
        return self._database.read(lambda c: _items(c, task_id, after + 1, limit, status=status, skip=skip))

    def all_rows(
        self,
        task_id: str,
        *,
        first: int = 0,
        limit: int | None = None,
        status: ItemStatus | None = None,
        page: int = READ_AT_ONCE,
    ) -> Iterator[Item]:
        """Yield a task's items in order, or those of a status, from number `first` on; at most `limit`."""
        left, after = math.inf if limit is None else limit, -1
        if not status:
            after, first = first - 1, 0
        while left > 0 and (items := self.rows(task_id, after, int(min(page, left)), status=status, skip=first)):
            yield from items
            after, left, first = items[-1].index, left - len(items), 0

    def cancel(self, task_id: str, owner: str | None = None) -> tuple[Task, Stopped]:
        """Cancel a task; return it, and (index, attempt) of its running items, which the caller stops.

        Raises:
            BatchUnknown, BatchFinished: the owner has no such task, or it has ended.
        """
        now = self._now()

        def cancel(connection: sa.Connection) -> tuple[Task, Stopped]:
            _unfinished(connection, task_id, owner)
            running = by_status(sa.select(ITEMS.c.item_index, ITEMS.c.attempts))
            found = connection.execute(running.where(ITEMS.c.task_id == task_id, ITEMS.c.status == "running"))
            stopped = sorted((index, attempt) for index, attempt in found)
            theirs = (ITEMS.c.task_id == task_id, ITEMS.c.item_index.in_([index for index, _ in stopped]))
            connection.execute(ITEMS.update().where(*theirs).values(status="cancelled", lane=None, ended_at=now))
            counts = count(connection, [task_id])
            done = {name: counts[task_id, name] for name in ("completed", "failed")}
            end = {"status": "cancelled", "ended_at": now, "credential": "", "spent": spent(connection, task_id)}
            return _changed(connection, task_id, {**end, **done}, now), stopped

        return self._database.transact(cancel)

    def pause(self, task_id: str, owner: str | None = None) -> Task:
        """Claim no more items of a task; running ones may end. Raises as `cancel` does."""
        now = self._now()

        def pause(connection: sa.Connection) -> Task:
            row = _unfinished(connection, task_id, owner)
            since = row.paused_at or (now if row.started_at else None)
            return _changed(connection, task_id, {"status": "paused", "paused_at": since}, now)

        return self._database.transact(pause)

    def resume(self, task_id: str, owner: str | None = None) -> Task:
        """Continue a paused task. Raises as `cancel` does."""
        now = self._now()

        def resume(connection: sa.Connection) -> Task:
            row = _unfinished(connection, task_id, owner)
            status = "running" if row.started_at else "pending"
            paused = row.paused + max(0, micros(now) - micros(row.paused_at)) if row.paused_at else row.paused
            return _changed(connection, task_id, {"status": status, "paused": paused, "paused_at": None}, now)

        return self._database.transact(resume)

    def retry_failed(self, task_id: str, owner: str | None = None, *, credential: str = "") -> Task:
        """Ask the failed items of an ended task again, with the submitter's present `credential`.

        The time since its end counts as a pause.

        Raises:
            BatchUnknown, BatchUnfinished: the owner has no such task, or it has not ended.
            BatchFinished: it was cancelled; code "batch_nothing_failed": no item failed.
            BatchQueueFull: the limit of unfinished tasks is reached, in total or for this owner.
        """
        now = self._now()

        def again(connection: sa.Connection) -> Task:
            _pass_gate(connection)
            row = _ended(connection, task_id, owner)
            self._check_room(connection, row.owner)
            if row.status == "cancelled":
                raise BatchFinished("the task is cancelled")
            if not _reset_failed(connection, row):
                raise BatchFinished("nothing failed", code="batch_nothing_failed")
            hook = row.hook_state if row.hook_state == "none" else "pending"
            paused = row.paused + max(0, micros(now) - micros(row.ended_at))
            begun = {"status": "running", "runs": row.runs + 1, "served": micros(now), "credential": credential}
            pauses = {"paused": paused, "paused_at": None}
            blank = {"ended_at": None, "stored": 0, "spent": None, "error_message": ""}
            webhook = {"hook_state": hook, "hook_due": 0, "hook_tries": 0}
            return _changed(connection, task_id, {**begun, **pauses, **blank, **webhook}, now)

        return self._database.transact(again)

    def purge(self, task_id: str, owner: str | None = None) -> None:
        """Remove an ended task with its results; it is hidden at once. Raises `BatchUnknown`, `BatchUnfinished`."""

        def hide(connection: sa.Connection) -> int:
            row = _ended(connection, task_id, owner)
            gone = {"status": "expiring", "idempotency_key": None, "credential": ""}
            connection.execute(TASKS.update().where(TASKS.c.task_id == task_id).values(gone))
            return int(row.total)

        total = self._database.transact(hide)
        # Rows that an outage leaves behind are removed with the expired tasks.
        with suppress(StoreUnavailable):
            self._remove(task_id, total)

    def claim(self, lane: int, *, lanes: int | None = None) -> Claimed | None:
        """Return the item that this lane must ask now, `None` if there is none.

        First an item that is already running in the lane, or in a lane of number `lanes` or above, which no longer
        exists and has no worker. Then the next item of the task that was served longest ago, among those whose priority
        takes part in this claim (`LOWEST` of `claims.py`).
        """
        return self._claimed(lane, lanes, lowest=next(self._lowest))

    def claim_again(self, lane: int, *, lanes: int | None = None) -> Claimed | None:
        """Do as `claim` does, but return only an item that is already running."""
        return self._claimed(lane, lanes, lowest=None)

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
        return self._end(claimed, "completed", _answer(content, metadata, sources, usage))

    def fail(self, claimed: Claimed, code: str, message: str, **answer: Any) -> bool:
        """Mark the item as failed, with a code and a sentence for the user; `False` as in `complete`.

        `answer` is the partial answer, with the keywords of `complete`.
        """
        return self._end(claimed, "failed", {**_answer(**answer), **_error(code, message)})

    def retry(self, claimed: Claimed, after: float, code: str, message: str) -> bool:
        """Ask the item again in `after` seconds, as its next attempt; `False` as in `complete`.

        The caller limits the number of attempts. Items that were never asked come before those to be asked again.
        """
        due = micros(self._now() + timedelta(seconds=after))
        return self._settle(claimed, {"status": "pending", "due": due, **_error(code, message)})

    def wait(self, claimed: Claimed, after: float, code: str, message: str) -> bool:
        """Do as `retry` does, without counting this attempt."""
        due = micros(self._now() + timedelta(seconds=after))
        values = {"status": "pending", "due": due, **waits(claimed.waits + 1), **_error(code, message)}
        return self._settle(claimed, values)

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

    def take_webhook(self, lease: float) -> tuple[str, int] | None:
        """Begin an attempt to deliver the webhook that is due; return its task's id and its number, None if none is.

        No other call returns it within `lease` seconds, or ever if `settle_webhook` is called in that time.
        """
        now = self._now()
        until = micros(now + timedelta(seconds=lease))
        for due in self._database.read(lambda connection: due_webhooks(connection, micros(now))):
            if self._database.transact(partial(begin_delivery, due=due, until=until)):
                return due.task_id, due.hook_tries + 1
        return None

    def settle_webhook(self, task_id: str, attempt: int, *, delivered: bool, again: float | None, error: str) -> None:
        """Store the end of an attempt: `again` is in how many seconds the next one begins, None for no next one.

        Nothing is stored if a later attempt has begun, or the task was asked again.
        """
        due = micros(self._now() + timedelta(seconds=again or 0.0))
        state = "pending" if again is not None else "delivered" if delivered else "failed"
        mine = (TASKS.c.task_id == task_id, TASKS.c.hook_tries == attempt, TASKS.c.hook_state == "pending")
        values = {"hook_state": state, "hook_due": due, "hook_error": error[:MOST_ERROR] or None}
        self._database.transact(lambda connection: connection.execute(TASKS.update().where(*mine).values(values)))

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
        """Remove some tasks that ended more than `days` ago or never arrived; return how many, 0 when none is left."""
        now = self._now()
        self._database.transact(lambda connection: hide_ended(connection, now - timedelta(days=days)))
        lost = (TASKS.c.status == "arriving", TASKS.c.created_at < now - ARRIVAL)
        given_up = TASKS.update().where(*lost).values(status="expiring")
        self._database.transact(lambda connection: connection.execute(given_up))
        hidden = sa.select(TASKS.c.task_id, TASKS.c.total).where(TASKS.c.status == "expiring").limit(EXPIRED_AT_ONCE)
        rows = self._database.read(lambda connection: connection.execute(hidden).all())
        return sum(self._remove(task_id, total) for task_id, total in rows)

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock(), UTC)

    def _tasks(self, rows: Sequence[Row]) -> Tasks:
        return self._database.read(lambda connection: _tasks(connection, rows, self._now()))

    def _submit(self, new: Mapping[str, Any], portions: Iterable[Sequence[Mapping[str, Any]]], key: str) -> Row:
        """Add a task with its items and return its row, or the row of the task that got its key meanwhile."""
        try:
            self._database.transact(lambda connection: connection.execute(TASKS.insert().values(new)))
            for items in portions:
                self._database.transact(lambda connection, items=items: connection.execute(ITEMS.insert(), items))  # type: ignore[misc]
                # Let other greenlets run, also if the portions need no I/O.
                time.sleep(0)
            return self._database.transact(lambda connection: self._admit(connection, new, key))
        finally:
            # Not an admitted one, also if the reply to its admission was lost.
            arriving = TASKS.update().where(TASKS.c.task_id == new["task_id"], TASKS.c.status == "arriving")
            with suppress(StoreUnavailable):
                self._database.transact(lambda connection: connection.execute(arriving.values(status="expiring")))

    def _admit(self, connection: sa.Connection, new: Mapping[str, Any], key: str) -> Row:
        """Show a task whose texts have all arrived, if the limits allow it."""
        _pass_gate(connection)
        if known := self._known(connection, new, key):
            return known
        mine = TASKS.c.task_id == new["task_id"]
        connection.execute(TASKS.update().where(mine).values(status="pending", idempotency_key=key or None))
        return connection.execute(sa.select(TASKS).where(mine)).one()

    def _known(self, connection: sa.Connection, new: Mapping[str, Any], key: str) -> Row | None:
        """Return the task that has the key, and raise as `create` does; reliable only behind the gate."""
        named = sa.select(TASKS).where(TASKS.c.owner == new["owner"], TASKS.c.idempotency_key == key)
        row = connection.execute(named).first() if key else None
        if row is None:
            self._check_room(connection, new["owner"])
        elif row.digest != new["digest"]:
            raise BatchConflict("the key stands for another submission")
        return row

    def _check_room(self, connection: sa.Connection, owner: str) -> None:
        """Raise `BatchQueueFull` if no further task may be unfinished; reliable only behind the gate."""
        unfinished = sa.select(sa.func.count()).select_from(TASKS).where(TASKS.c.status.in_(UNFINISHED))
        if (connection.scalar(unfinished.where(_of_same_credential(owner))) or 0) >= self._max_per_owner:
            raise BatchQueueFull(f"{self._max_per_owner} tasks of this owner are unfinished", code="batch_key_full")
        if (connection.scalar(unfinished) or 0) >= self.max_unfinished:
            raise BatchQueueFull(f"{self.max_unfinished} tasks are unfinished")

    def _claimed(self, lane: int, lanes: int | None, *, lowest: Priority | None) -> Claimed | None:
        for _ in range(TRIES):
            look = partial(claims.candidate, lane=lane, lanes=lanes, now=self._now(), lowest=lowest)
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

    def _remove(self, task_id: str, total: int) -> int:
        """Remove a hidden task; return 1 for the process that deleted its last row, else 0."""
        for first in range(0, total, DELETED_AT_ONCE):
            some = (ITEMS.c.item_index >= first, ITEMS.c.item_index < first + DELETED_AT_ONCE)
            items = ITEMS.delete().where(ITEMS.c.task_id == task_id, *some)
            self._database.transact(lambda connection, items=items: connection.execute(items))  # type: ignore[misc]
        gone = TASKS.delete().where(TASKS.c.task_id == task_id)
        return self._database.transact(lambda connection: connection.execute(gone).rowcount)


def hide_ended(connection: sa.Connection, before: datetime) -> None:
    """Hide some tasks that ended before a time, and free their idempotency keys."""
    old = sa.select(TASKS.c.task_id).where(TASKS.c.ended_at < before, TASKS.c.status.in_(ENDED))
    task_ids = connection.scalars(old.order_by(TASKS.c.ended_at).limit(EXPIRED_AT_ONCE)).all()
    gone = {"status": "expiring", "idempotency_key": None}
    if task_ids:
        connection.execute(TASKS.update().where(TASKS.c.task_id.in_(task_ids)).values(gone))


def due_webhooks(connection: sa.Connection, now: int) -> list[Row]:
    """Return webhooks of ended tasks whose time has come, in microseconds since 1970; the oldest first."""
    asked = sa.select(TASKS.c.task_id, TASKS.c.hook_due, TASKS.c.hook_tries)
    waiting = (TASKS.c.hook_state == "pending", TASKS.c.hook_due <= now, TASKS.c.status.in_(ENDED))
    return list(connection.execute(asked.where(*waiting).order_by(TASKS.c.hook_due).limit(LOOKED_AT)))


def begin_delivery(connection: sa.Connection, due: Row, until: int) -> bool:
    """Begin a webhook's next attempt, which others leave alone until then; False if another process was faster."""
    same = (TASKS.c.task_id == due.task_id, TASKS.c.hook_due == due.hook_due)
    mine = TASKS.update().where(*same, TASKS.c.hook_tries == due.hook_tries, TASKS.c.hook_state == "pending")
    return bool(connection.execute(mine.values(hook_due=until, hook_tries=due.hook_tries + 1)).rowcount)


def _pass_gate(connection: sa.Connection) -> None:
    """Wait for other submissions at their last step, and block others until this transaction ends."""
    # An update instead of a lock, because it conflicts over all nodes of a Galera cluster too.
    change = GATES.update().where(GATES.c.name == "submit").values(passed=GATES.c.passed + 1)
    if not connection.execute(change).rowcount:
        connection.execute(GATES.insert().values(name="submit", passed=0))


def _portions(task_id: str, texts: Sequence[str], given: Sequence[Given]) -> Iterator[list[dict[str, object]]]:
    """Yield the rows of items that one transaction inserts."""
    portion: list[dict[str, object]] = []
    characters = 0
    for index, text in enumerate(texts):
        beside = given[index].to_json() if given else {}
        size = len(text) + (len(json.dumps(beside, ensure_ascii=False)) if beside else 0)
        if portion and (characters + size > PORTION_CHARACTERS or len(portion) == PORTION_ROWS):
            yield portion
            portion, characters = [], 0
        portion.append({"task_id": task_id, "item_index": index, "question": text, "given": beside})
        characters += size
    yield portion


def _of_same_credential(owner: str) -> sa.ColumnElement[bool]:
    """Select the tasks of this owner and, as it may name itself as it likes, of all visitors without a credential."""
    root = owner_of(owner)
    # "0" is the character after "/".
    visitors = sa.and_(TASKS.c.owner > f"{root}/", TASKS.c.owner < f"{root}0")
    return sa.or_(TASKS.c.owner == root, visitors) if root == ANONYMOUS else TASKS.c.owner == owner


def _unfinished(connection: sa.Connection, task_id: str, owner: str | None) -> Row:
    """Return a task that has not ended, and lock it; raises `BatchUnknown`, `BatchFinished`."""
    row = _visible(locked(connection, task_id), owner)
    if row.status in ENDED:
        raise BatchFinished(f"the task is {row.status}")
    return row


def _ended(connection: sa.Connection, task_id: str, owner: str | None) -> Row:
    """Return a task that has ended, and lock it; raises `BatchUnknown`, `BatchUnfinished`."""
    row = _visible(locked(connection, task_id), owner)
    if row.status not in ENDED:
        raise BatchUnfinished(f"the task is {row.status}")
    return row


def _visible(row: Row | None, owner: str | None) -> Row:
    """Return the row if `owner` may see it; `None` may see all. Raises BatchUnknown."""
    if row is None or row.status not in TASK_STATUSES or (owner is not None and row.owner != owner):
        raise BatchUnknown("no such task")
    return row


def _reset_failed(connection: sa.Connection, row: Row) -> int:
    """Let the failed items of a locked task wait for their next run; return how many there are."""
    failed = (ITEMS.c.task_id == row.task_id, ITEMS.c.status == "failed")
    # Attempts have numbers that were not used before: an earlier one's stream may still exist.
    used = (row.runs + 1) % RUNS * ATTEMPTS_OF_RUN
    blank = {**_answer(), **_error(), "started_at": None, "ended_at": None}
    again = {**blank, "status": "pending", "due": 0, "attempts": used, **waits(used)}
    return connection.execute(ITEMS.update().where(*failed).values(again)).rowcount


def _changed(connection: sa.Connection, task_id: str, values: Mapping[str, object], now: datetime) -> Task:
    """Change a locked task, and return it."""
    mine = TASKS.c.task_id == task_id
    connection.execute(TASKS.update().where(mine).values(values))
    return _tasks(connection, connection.execute(sa.select(TASKS).where(mine)).all(), now)[0]


def _answer(
    content: str = "",
    metadata: Mapping[str, Any] | None = None,
    sources: Sequence[Mapping[str, Any]] = (),
    usage: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the columns of an answer, which may be partial."""
    return {"answer": content, "metadata": dict(metadata or {}), "sources": [*sources], "spent": dict(usage or {})}


def _error(code: str | None = None, message: str | None = None) -> dict[str, str | None]:
    return {"error_code": code, "error_message": message}


def _tasks(connection: sa.Connection, rows: Collection[Row], now: datetime) -> list[Task]:
    """Return tasks as they are now; items of unfinished tasks are counted."""
    counts = count(connection, [row.task_id for row in rows if row.status not in ENDED])
    return [_task(row, counts, now) for row in rows]


def _task(row: Row, counts: Counter[tuple[str, str]], now: datetime) -> Task:
    ended = row.status in ENDED
    completed = row.completed if ended else counts[row.task_id, "completed"]
    failed = row.failed if ended else counts[row.task_id, "failed"]
    cancelled = row.status == "cancelled"
    return Task(
        task_id=row.task_id,
        owner=row.owner,
        name=row.name,
        description=row.description,
        status=row.status,
        options=BatchOptions.from_json(row.options),
        total=row.total,
        created_at=row.created_at,
        seen_at=now,
        completed=completed,
        failed=failed,
        cancelled=row.total - completed - failed if cancelled else 0,
        running=0 if ended else counts[row.task_id, "running"],
        started_at=row.started_at,
        completed_at=None if cancelled else row.ended_at,
        cancelled_at=row.ended_at if cancelled else None,
        paused=_paused(row, now),
        error_message=row.error_message,
        credential=row.credential,
        usage=tuple(row.spent) if ended else (),
        webhook=Webhook(row.hook_state, row.hook_tries, row.hook_error or ""),
    )


def _paused(row: Row, now: datetime) -> timedelta:
    """Return the total time of a task's pauses, also of one that it is in or ended in."""
    present = (row.ended_at or now) - row.paused_at if row.paused_at else timedelta()
    return timedelta(microseconds=row.paused) + max(present, timedelta())


def _items(
    connection: sa.Connection, task_id: str, first: int, size: int, *, status: ItemStatus | None, skip: int
) -> list[Item]:
    """Return up to `size` items from index `first` on, in order; none if the task is being removed."""
    of_task = connection.scalar(sa.select(TASKS.c.status).where(TASKS.c.task_id == task_id))
    if of_task not in TASK_STATUSES:
        return []
    cancelled = of_task == "cancelled"
    asked = sa.select(ITEMS).where(ITEMS.c.task_id == task_id, ITEMS.c.item_index >= first).order_by(ITEMS.c.item_index)
    if status:
        asked = by_status(asked).where(ITEMS.c.status.in_(_stored(status, cancelled))).limit(size).offset(skip)
    else:
        asked = asked.where(ITEMS.c.item_index < first + size)
    return [_item(row, cancelled) for row in connection.execute(asked)]


def _stored(status: ItemStatus, cancelled: bool) -> tuple[str, ...]:
    """Return the statuses of rows whose items are shown with a status."""
    if not cancelled or status not in ("pending", "cancelled"):
        return (status,)
    return ("pending", "cancelled") if status == "cancelled" else ()


def _item(row: Row, cancelled: bool) -> Item:
    unspent = waits_of(row)
    return Item(
        index=row.item_index,
        text=row.question,
        status="cancelled" if cancelled and row.status == "pending" else row.status,
        attempts=row.attempts - unspent,
        content=row.answer or "",
        metadata={} if unspent else row.metadata,
        sources=tuple(map(typed_source, row.sources)),
        usage=row.spent,
        error={"code": row.error_code, "message": row.error_message or ""} if row.error_code else None,
        started_at=row.started_at,
        completed_at=row.ended_at,
        given=Given.from_json(row.given),
    )
