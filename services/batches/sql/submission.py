"""Submission of a batch task: it is hidden while many short transactions insert its texts; the last one shows it.

One transaction for all would lock an SQLite file, and block the process, for a second, and is more than some database
clusters accept. A task that never arrived, because its replica died, is removed by services/batches/sql/expiry.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import NamedTuple

import sqlalchemy as sa

from services.batches.records import PRIORITIES, UNFINISHED, BatchOptions, Given
from services.batches.sql.claims import micros
from services.batches.sql.rows import Row
from services.batches.sql.tables import GATES, ITEMS, TASKS
from services.errors import BatchConflict, BatchQueueFull, StoreUnavailable
from services.sql.database import SqlDatabase

#: Characters and rows of one portion of texts: below the smallest packet limit of servers, and short enough for other
#: writers to come between.
PORTION_CHARACTERS = 150_000
PORTION_ROWS = 500


@dataclass(frozen=True, slots=True)
class NewTask:
    """A task to be added."""

    task_id: str
    owner: str
    name: str
    description: str
    options: BatchOptions
    texts: Sequence[str] = field(repr=False)
    #: Empty, or an entry for each text.
    given: Sequence[Given] = field(repr=False)
    credential: str = field(repr=False)
    #: The client's idempotency key; "" for none.
    key: str
    #: The digest that submissions with the same key must share.
    digest: str


class Bounds(NamedTuple):
    """Limits of unfinished tasks: of all owners, and of one."""

    total: int
    per_owner: int


def submit(database: SqlDatabase, new: NewTask, bounds: Bounds, now: datetime) -> Row:
    """Add a task and return its row, or the row of the task that has its key already.

    Raises:
        BatchConflict: the key belongs to a task with another digest.
        BatchQueueFull: the limit of unfinished tasks is reached; code "batch_key_full": that of this owner.
    """
    # An early check before the texts are sent; `_admit` repeats it behind the gate.
    if seen := database.read(lambda connection: _look(connection, new, bounds)):
        return seen
    try:
        database.transact(lambda connection: _arrive(connection, new, now))
        for items in _portions(new):
            database.transact(partial(_add, items=items))
            # Let other greenlets run, also if the portions need no I/O.
            time.sleep(0)
        return database.transact(lambda connection: _admit(connection, new, bounds))
    finally:
        with suppress(StoreUnavailable):
            database.transact(lambda connection: _abandon(connection, new.task_id))


def pass_gate(connection: sa.Connection) -> None:
    """Wait for other submissions at their last step, and block others until this transaction ends."""
    # An update instead of a lock, because it conflicts over all nodes of a Galera cluster too.
    change = GATES.update().where(GATES.c.name == "submit").values(passed=GATES.c.passed + 1)
    if not connection.execute(change).rowcount:
        connection.execute(GATES.insert().values(name="submit", passed=0))


def _arrive(connection: sa.Connection, new: NewTask, now: datetime) -> None:
    connection.execute(TASKS.insert().values(_row(new, now)))


def _add(connection: sa.Connection, items: list[dict[str, object]]) -> None:
    connection.execute(ITEMS.insert(), items)


def _admit(connection: sa.Connection, new: NewTask, bounds: Bounds) -> Row:
    """Show a task whose texts have all arrived, if the limits allow it."""
    pass_gate(connection)
    if seen := _look(connection, new, bounds):
        return seen
    mine = TASKS.c.task_id == new.task_id
    connection.execute(TASKS.update().where(mine).values(status="pending", idempotency_key=new.key or None))
    return connection.execute(sa.select(TASKS).where(mine)).one()


def _look(connection: sa.Connection, new: NewTask, bounds: Bounds) -> Row | None:
    """Return the task that has the key, and raise as `submit` does; reliable only behind the gate."""
    named = sa.select(TASKS).where(TASKS.c.owner == new.owner, TASKS.c.idempotency_key == new.key)
    row = connection.execute(named).first() if new.key else None
    if row is not None:
        if row.digest != new.digest:
            raise BatchConflict("the key stands for another submission")
        return row
    check_bounds(connection, new.owner, bounds)
    return None


def check_bounds(connection: sa.Connection, owner: str, bounds: Bounds) -> None:
    """Raise `BatchQueueFull` if no further task may be unfinished; reliable only behind the gate."""
    unfinished = sa.select(sa.func.count()).select_from(TASKS).where(TASKS.c.status.in_(UNFINISHED))
    if (connection.scalar(unfinished.where(TASKS.c.owner == owner)) or 0) >= bounds.per_owner:
        raise BatchQueueFull(f"{bounds.per_owner} tasks of this owner are unfinished", code="batch_key_full")
    if (connection.scalar(unfinished) or 0) >= bounds.total:
        raise BatchQueueFull(f"{bounds.total} tasks are unfinished")


def _abandon(connection: sa.Connection, task_id: str) -> None:
    """Mark a task for removal unless it was admitted; an admitted one stays even if the reply was lost."""
    arriving = TASKS.update().where(TASKS.c.task_id == task_id, TASKS.c.status == "arriving")
    connection.execute(arriving.values(status="expiring"))


def _row(new: NewTask, now: datetime) -> dict[str, object]:
    return {
        "task_id": new.task_id,
        "owner": new.owner,
        "digest": new.digest,
        "name": new.name,
        "description": new.description,
        "options": new.options.to_json(),
        "credential": new.credential,
        "status": "arriving",
        "priority": PRIORITIES.index(new.options.priority) - 1,
        "hook_state": "pending" if new.options.webhook_url else "none",
        "max_concurrent": new.options.max_concurrent,
        "total": len(new.texts),
        "served": micros(now),
        "created_at": now,
        "error_message": "",
    }


def _portions(new: NewTask) -> Iterator[list[dict[str, object]]]:
    """Yield the rows of items that one transaction adds."""
    portion: list[dict[str, object]] = []
    characters = 0
    for index, text in enumerate(new.texts):
        given = new.given[index].to_json() if new.given else {}
        size = len(text) + (len(json.dumps(given, ensure_ascii=False)) if given else 0)
        if portion and (characters + size > PORTION_CHARACTERS or len(portion) == PORTION_ROWS):
            yield portion
            portion, characters = [], 0
        portion.append({"task_id": new.task_id, "item_index": index, "question": text, "given": given})
        characters += size
    yield portion
