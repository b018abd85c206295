"""Removal of expired batch tasks: first they are hidden, then their rows are deleted, some at a time.

A removal that stops in the middle is repeated from its beginning, so no rows are left behind.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import partial

import sqlalchemy as sa

from services.batches.records import ENDED
from services.batches.sql.tables import ITEMS, TASKS
from services.sql.database import SqlDatabase

#: Maximal time for a submission to arrive; after that its replica must be gone.
ARRIVAL = timedelta(hours=1)
#: Rows deleted per transaction: with their answers they are long.
AT_ONCE = 200


def expire(database: SqlDatabase, before: datetime, now: datetime, limit: int) -> int:
    """Remove up to `limit` tasks that ended before `before` or never arrived; return how many were removed."""
    database.transact(lambda connection: hide(connection, before, limit))
    database.transact(lambda connection: _give_up(connection, now))
    hidden = sa.select(TASKS.c.task_id, TASKS.c.total).where(TASKS.c.status == "expiring").limit(limit)
    rows = database.read(lambda connection: connection.execute(hidden).all())
    return sum(remove(database, task_id, total) for task_id, total in rows)


def hide(connection: sa.Connection, before: datetime, limit: int) -> None:
    """Hide the tasks, and free their idempotency keys."""
    old = sa.select(TASKS.c.task_id).where(TASKS.c.ended_at < before, TASKS.c.status.in_(ENDED))
    task_ids = connection.scalars(old.order_by(TASKS.c.ended_at).limit(limit)).all()
    gone = {"status": "expiring", "idempotency_key": None}
    if task_ids:
        connection.execute(TASKS.update().where(TASKS.c.task_id.in_(task_ids)).values(gone))


def hide_task(connection: sa.Connection, task_id: str) -> None:
    """Hide a locked task, and free its idempotency key."""
    gone = {"status": "expiring", "idempotency_key": None, "credential": ""}
    connection.execute(TASKS.update().where(TASKS.c.task_id == task_id).values(gone))


def _give_up(connection: sa.Connection, now: datetime) -> None:
    lost = (TASKS.c.status == "arriving", TASKS.c.created_at < now - ARRIVAL)
    connection.execute(TASKS.update().where(*lost).values(status="expiring"))


def remove(database: SqlDatabase, task_id: str, total: int) -> int:
    """Remove a task; return 1 for the process that deleted its last row, else 0."""
    for first in range(0, total, AT_ONCE):
        database.transact(partial(_remove_items, task_id=task_id, first=first))
    gone = TASKS.delete().where(TASKS.c.task_id == task_id)
    return database.transact(lambda connection: connection.execute(gone).rowcount)


def _remove_items(connection: sa.Connection, task_id: str, first: int) -> None:
    some = (ITEMS.c.task_id == task_id, ITEMS.c.item_index >= first, ITEMS.c.item_index < first + AT_ONCE)
    connection.execute(ITEMS.delete().where(*some))
