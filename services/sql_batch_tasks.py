"""The life of a batch task as steps within a transaction: it is added, paused, resumed, cancelled and removed."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import sqlalchemy as sa

from services.batch_records import ENDED, UNFINISHED, BatchOptions, Task
from services.errors import BatchConflict, BatchFinished, BatchQueueFull, BatchUnknown
from services.sql_batch_claims import locked, micros
from services.sql_batch_rows import Row, by_status, count, tasks_of
from services.sql_batch_tables import GATES, ITEMS, TASKS

#: Texts are sent in portions of so many characters, or rows: below the smallest packet a server takes, and short
#: enough for other greenlets to run between them.
PORTION_CHARACTERS = 150_000
PORTION_ROWS = 500


class Seen(Exception):
    """The task exists already: what was written for it again is rolled back."""

    def __init__(self, row: Row) -> None:
        super().__init__()
        self.row = row


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


def add(connection: sa.Connection, new: Submission, max_unfinished: int, now: datetime) -> Row:
    """Add a task and return its row.

    Raises:
        Seen: its key stands for this task already.
        BatchConflict: its key stands for another one.
        BatchQueueFull: `max_unfinished` tasks are unfinished.
    """
    # The texts first: the gate is held for the rest only, whatever time they take.
    for portion in _portions(new.texts):
        rows = [{"task_id": new.task_id, "item_index": index, "question": text} for index, text in portion]
        connection.execute(ITEMS.insert(), rows)
        # Lets other greenlets run. On SQLite too: none of them can wait for the file inside SQLite.
        time.sleep(0)
    pass_gate(connection)
    look(connection, new, max_unfinished)
    connection.execute(TASKS.insert().values(_row(new, now)))
    return connection.execute(sa.select(TASKS).where(TASKS.c.task_id == new.task_id)).one()


def look(connection: sa.Connection, new: Submission, max_unfinished: int) -> None:
    """Raise as `add` does; it is sure only for whoever has passed the gate."""
    named = sa.select(TASKS).where(TASKS.c.owner == new.owner, TASKS.c.idempotency_key == new.key)
    row = connection.execute(named).first() if new.key else None
    if row is not None:
        raise Seen(row) if row.digest == new.digest else BatchConflict("the key stands for another submission")
    unfinished = sa.select(sa.func.count()).select_from(TASKS).where(TASKS.c.status.in_(UNFINISHED))
    if (connection.scalar(unfinished) or 0) >= max_unfinished:
        raise BatchQueueFull(f"{max_unfinished} tasks are unfinished")


def pass_gate(connection: sa.Connection) -> None:
    """Wait for whoever adds a task now, and have the others wait until the transaction ends."""
    # An update and no mere lock: it is one over all nodes of a Galera cluster too.
    change = GATES.update().where(GATES.c.name == "submit").values(passed=GATES.c.passed + 1)
    if not connection.execute(change).rowcount:
        connection.execute(GATES.insert().values(name="submit", passed=0))


def owned(connection: sa.Connection, task_id: str, owner: str | None) -> Row:
    """Return a task, locked, that has not ended.

    Raises:
        BatchUnknown: there is none, or it is another owner's.
        BatchFinished: it has ended.
    """
    row = visible(locked(connection, task_id), owner)
    if row.status in ENDED:
        raise BatchFinished(f"the task is {row.status}")
    return row


def visible(row: Row | None, owner: str | None) -> Row:
    """Return the row if it is one that `owner` may know of; `None` may know of all. Raises BatchUnknown."""
    if row is None or row.status not in (*UNFINISHED, *ENDED) or (owner is not None and row.owner != owner):
        raise BatchUnknown("no such task")
    return row


def set_status(connection: sa.Connection, row: Row, status: str, now: datetime) -> Task:
    """Give a locked task another status, and return it."""
    return _changed(connection, row.task_id, {"status": status}, now)


def cancel(connection: sa.Connection, row: Row, now: datetime) -> tuple[Task, list[tuple[int, int]]]:
    """End a locked task; return it, and index and attempt of what was running."""
    running = by_status(sa.select(ITEMS.c.item_index, ITEMS.c.attempts))
    found = connection.execute(running.where(ITEMS.c.task_id == row.task_id, ITEMS.c.status == "running"))
    stopped = sorted((index, attempt) for index, attempt in found)
    theirs = (ITEMS.c.task_id == row.task_id, ITEMS.c.item_index.in_([index for index, _ in stopped]))
    connection.execute(ITEMS.update().where(*theirs).values(status="cancelled", lane=None, ended_at=now))
    counts = count(connection, [row.task_id])
    done = {name: counts[row.task_id, name] for name in ("completed", "failed")}
    return _changed(connection, row.task_id, {"status": "cancelled", "ended_at": now, **done}, now), stopped


def _changed(connection: sa.Connection, task_id: str, values: dict[str, object], now: datetime) -> Task:
    mine = TASKS.c.task_id == task_id
    connection.execute(TASKS.update().where(mine).values(values))
    return tasks_of(connection, connection.execute(sa.select(TASKS).where(mine)).all(), now)[0]


def _row(new: Submission, now: datetime) -> dict[str, object]:
    return {
        "task_id": new.task_id,
        "owner": new.owner,
        "idempotency_key": new.key or None,
        "digest": new.digest,
        "name": new.name,
        "description": new.description,
        "options": new.options.to_json(),
        "credential": new.credential,
        "status": "pending",
        "max_concurrent": new.options.max_concurrent,
        "total": len(new.texts),
        "served": micros(now),
        "created_at": now,
        "error_message": "",
    }


def _portions(texts: Sequence[str]) -> Iterator[list[tuple[int, str]]]:
    portion: list[tuple[int, str]] = []
    characters = 0
    for index, text in enumerate(texts):
        if portion and (characters + len(text) > PORTION_CHARACTERS or len(portion) == PORTION_ROWS):
            yield portion
            portion, characters = [], 0
        portion.append((index, text))
        characters += len(text)
    if portion:
        yield portion
