"""Steps within a transaction that pause, resume and cancel a batch task, or ask its failed items again."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa

from services.batches.records import ENDED, TASK_STATUSES, Task
from services.batches.sql.claims import locked, micros, spent
from services.batches.sql.rows import Row, answer_values, by_status, count, tasks_of, waits
from services.batches.sql.tables import ITEMS, TASKS
from services.errors import BatchFinished, BatchUnfinished, BatchUnknown

#: Numbers of attempts that one run of a task may use, and runs after which they begin again: an INT holds all of them.
ATTEMPTS_OF_RUN = 1_000_000
RUNS = 2_000


def owned(connection: sa.Connection, task_id: str, owner: str | None) -> Row:
    """Return a task that has not ended, and lock it.

    Raises:
        BatchUnknown: there is no such task, or it has another owner.
        BatchFinished: it has ended.
    """
    row = visible(locked(connection, task_id), owner)
    if row.status in ENDED:
        raise BatchFinished(f"the task is {row.status}")
    return row


def visible(row: Row | None, owner: str | None) -> Row:
    """Return the row if `owner` may see it; `None` may see all. Raises BatchUnknown."""
    if row is None or row.status not in TASK_STATUSES or (owner is not None and row.owner != owner):
        raise BatchUnknown("no such task")
    return row


def pause(connection: sa.Connection, row: Row, now: datetime) -> Task:
    """Pause a locked task, and return it."""
    since = row.paused_at or (now if row.started_at else None)
    return _changed(connection, row.task_id, {"status": "paused", "paused_at": since}, now)


def resume(connection: sa.Connection, row: Row, now: datetime) -> Task:
    """Resume a locked task, and return it."""
    status = "running" if row.started_at else "pending"
    paused = row.paused + max(0, micros(now) - micros(row.paused_at)) if row.paused_at else row.paused
    return _changed(connection, row.task_id, {"status": status, "paused": paused, "paused_at": None}, now)


def cancel(connection: sa.Connection, row: Row, now: datetime) -> tuple[Task, list[tuple[int, int]]]:
    """Cancel a locked task; return it, and (index, attempt) of its running items."""
    running = by_status(sa.select(ITEMS.c.item_index, ITEMS.c.attempts))
    found = connection.execute(running.where(ITEMS.c.task_id == row.task_id, ITEMS.c.status == "running"))
    stopped = sorted((index, attempt) for index, attempt in found)
    theirs = (ITEMS.c.task_id == row.task_id, ITEMS.c.item_index.in_([index for index, _ in stopped]))
    connection.execute(ITEMS.update().where(*theirs).values(status="cancelled", lane=None, ended_at=now))
    counts = count(connection, [row.task_id])
    done = {name: counts[row.task_id, name] for name in ("completed", "failed")}
    end = {"status": "cancelled", "ended_at": now, "credential": "", "spent": spent(connection, row.task_id), **done}
    return _changed(connection, row.task_id, end, now), stopped


def ended(connection: sa.Connection, task_id: str, owner: str | None) -> Row:
    """Return a task that has ended, and lock it.

    Raises:
        BatchUnknown: there is no such task, or it has another owner.
        BatchUnfinished: it has not ended.
    """
    row = visible(locked(connection, task_id), owner)
    if row.status not in ENDED:
        raise BatchUnfinished(f"the task is {row.status}")
    return row


def retry(connection: sa.Connection, row: Row, credential: str, now: datetime) -> Task:
    """Let a locked, ended task ask its failed items again, and return it. The time since its end is a pause.

    Raises:
        BatchFinished: it was cancelled; code "batch_nothing_failed": none of its items failed.
    """
    if row.status == "cancelled":
        raise BatchFinished("the task is cancelled")
    failed = (ITEMS.c.task_id == row.task_id, ITEMS.c.status == "failed")
    # Attempts have numbers that were not used before: an earlier one's stream may still exist.
    used = (row.runs + 1) % RUNS * ATTEMPTS_OF_RUN
    blank = {**answer_values(), "error_code": None, "error_message": None, "started_at": None, "ended_at": None}
    again = {**blank, "status": "pending", "due": 0, "attempts": used, **waits(used)}
    if not connection.execute(ITEMS.update().where(*failed).values(again)).rowcount:
        raise BatchFinished("nothing failed", code="batch_nothing_failed")
    hook = {"hook_state": row.hook_state if row.hook_state == "none" else "pending", "hook_due": 0, "hook_tries": 0}
    paused = row.paused + max(0, micros(now) - micros(row.ended_at))
    values = {"status": "running", "ended_at": None, "paused": paused, "paused_at": None, "stored": 0}
    begun = {"runs": row.runs + 1, "spent": None, "served": micros(now), "error_message": "", "credential": credential}
    return _changed(connection, row.task_id, {**values, **begun, **hook}, now)


def _changed(connection: sa.Connection, task_id: str, values: dict[str, object], now: datetime) -> Task:
    mine = TASKS.c.task_id == task_id
    connection.execute(TASKS.update().where(mine).values(values))
    return tasks_of(connection, connection.execute(sa.select(TASKS).where(mine)).all(), now)[0]
