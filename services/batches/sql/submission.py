"""A batch task comes in: unseen while its texts arrive, in many short transactions; the last lets it be seen.

One transaction for all would hold an SQLite file, and the process with it, for a second, and is more than some clusters
take. A task that never arrived, because its replica died, is removed by services/batches/sql/expiry.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import NamedTuple

import sqlalchemy as sa

from services.batches.records import UNFINISHED, BatchOptions
from services.batches.sql.claims import micros
from services.batches.sql.rows import Row
from services.batches.sql.tables import GATES, ITEMS, TASKS
from services.errors import BatchConflict, BatchQueueFull, StoreUnavailable
from services.sql.database import SqlDatabase

#: Texts are sent in portions of so many characters, or rows: below the smallest packet a server takes, and short
#: enough for others to write between them.
PORTION_CHARACTERS = 150_000
PORTION_ROWS = 500


@dataclass(frozen=True, slots=True)
class Submission:
    """A task as somebody wants it."""

    task_id: str
    owner: str
    name: str
    description: str
    options: BatchOptions
    texts: Sequence[str] = field(repr=False)
    credential: str = field(repr=False)
    #: The client's own name for this submission; "" for none.
    key: str
    #: What a submission of the same name must share to be the same.
    digest: str


class Bounds(NamedTuple):
    """How many tasks may be unfinished: of all owners, and of one."""

    total: int
    per_owner: int


def submit(database: SqlDatabase, new: Submission, bounds: Bounds, now: datetime) -> Row:
    """Add a task and return its row, or that of the task its key stands for already.

    Raises:
        BatchConflict: the key stands for a task with another digest.
        BatchQueueFull: so many tasks are unfinished as `bounds` allows; "batch_key_full": so many of this owner.
    """
    # Before the texts are sent, though it is not sure yet.
    if seen := database.read(lambda connection: _look(connection, new, bounds)):
        return seen
    try:
        database.transact(lambda connection: connection.execute(TASKS.insert().values(_row(new, now))))
        for portion in _portions(new):
            database.transact(partial(_add, rows=portion))
            # Others may run, whatever the portions are made of.
            time.sleep(0)
        return database.transact(lambda connection: _admit(connection, new, bounds))
    finally:
        with suppress(StoreUnavailable):
            database.transact(lambda connection: _abandon(connection, new.task_id))


def pass_gate(connection: sa.Connection) -> None:
    """Wait for whoever adds a task now, and have the others wait until the transaction ends."""
    # An update and no mere lock: it is one over all nodes of a Galera cluster too.
    change = GATES.update().where(GATES.c.name == "submit").values(passed=GATES.c.passed + 1)
    if not connection.execute(change).rowcount:
        connection.execute(GATES.insert().values(name="submit", passed=0))


def _add(connection: sa.Connection, rows: list[dict[str, object]]) -> None:
    connection.execute(ITEMS.insert(), rows)


def _admit(connection: sa.Connection, new: Submission, bounds: Bounds) -> Row:
    """Let a task that is here whole be seen, if there is room for it."""
    pass_gate(connection)
    if seen := _look(connection, new, bounds):
        return seen
    mine = TASKS.c.task_id == new.task_id
    connection.execute(TASKS.update().where(mine).values(status="pending", idempotency_key=new.key or None))
    return connection.execute(sa.select(TASKS).where(mine)).one()


def _look(connection: sa.Connection, new: Submission, bounds: Bounds) -> Row | None:
    """Return the task its key stands for, and raise as `submit` does; sure only for whoever has passed the gate."""
    named = sa.select(TASKS).where(TASKS.c.owner == new.owner, TASKS.c.idempotency_key == new.key)
    row = connection.execute(named).first() if new.key else None
    if row is not None:
        if row.digest != new.digest:
            raise BatchConflict("the key stands for another submission")
        return row
    unfinished = sa.select(sa.func.count()).select_from(TASKS).where(TASKS.c.status.in_(UNFINISHED))
    if (connection.scalar(unfinished.where(TASKS.c.owner == new.owner)) or 0) >= bounds.per_owner:
        raise BatchQueueFull(f"{bounds.per_owner} tasks of this owner are unfinished", code="batch_key_full")
    if (connection.scalar(unfinished) or 0) >= bounds.total:
        raise BatchQueueFull(f"{bounds.total} tasks are unfinished")
    return None


def _abandon(connection: sa.Connection, task_id: str) -> None:
    """Have a task that was not admitted removed; one that was stays, also when nobody heard of it."""
    arriving = TASKS.update().where(TASKS.c.task_id == task_id, TASKS.c.status == "arriving")
    connection.execute(arriving.values(status="expiring"))


def _row(new: Submission, now: datetime) -> dict[str, object]:
    return {
        "task_id": new.task_id,
        "owner": new.owner,
        "digest": new.digest,
        "name": new.name,
        "description": new.description,
        "options": new.options.to_json(),
        "credential": new.credential,
        "status": "arriving",
        "max_concurrent": new.options.max_concurrent,
        "total": len(new.texts),
        "served": micros(now),
        "created_at": now,
        "error_message": "",
    }


def _portions(new: Submission) -> Iterator[list[dict[str, object]]]:
    portion: list[dict[str, object]] = []
    characters = 0
    for index, text in enumerate(new.texts):
        if portion and (characters + len(text) > PORTION_CHARACTERS or len(portion) == PORTION_ROWS):
            yield portion
            portion, characters = [], 0
        portion.append({"task_id": new.task_id, "item_index": index, "question": text})
        characters += len(text)
    yield portion
