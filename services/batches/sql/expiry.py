"""Remove batch tasks whose time is over: first they are seen no more, then their rows go, a few at a time.

Whoever is stopped in the middle is followed by the next, from the beginning: nothing is left behind.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import partial

import sqlalchemy as sa

from services.batches.records import ENDED
from services.batches.sql.tables import ITEMS, TASKS
from services.sql.database import SqlDatabase

#: The longest that a task may take to arrive: its replica is gone.
ARRIVAL = timedelta(hours=1)
#: Rows removed at once: with their answers they are long.
AT_ONCE = 200


def expire(database: SqlDatabase, before: datetime, now: datetime, limit: int) -> int:
    """Remove tasks that ended before then, or never arrived, `limit` at most; return how many it has removed."""
    database.transact(lambda connection: hide(connection, before, limit))
    database.transact(lambda connection: _give_up(connection, now))
    hidden = sa.select(TASKS.c.task_id, TASKS.c.total).where(TASKS.c.status == "expiring").limit(limit)
    rows = database.read(lambda connection: connection.execute(hidden).all())
    return sum(_remove(database, task_id, total) for task_id, total in rows)


def hide(connection: sa.Connection, before: datetime, limit: int) -> None:
    """Let them be seen no more, and their keys be used again."""
    old = sa.select(TASKS.c.task_id).where(TASKS.c.ended_at < before, TASKS.c.status.in_(ENDED))
    task_ids = connection.scalars(old.order_by(TASKS.c.ended_at).limit(limit)).all()
    gone = {"status": "expiring", "idempotency_key": None}
    if task_ids:
        connection.execute(TASKS.update().where(TASKS.c.task_id.in_(task_ids)).values(gone))


def _give_up(connection: sa.Connection, now: datetime) -> None:
    lost = (TASKS.c.status == "arriving", TASKS.c.created_at < now - ARRIVAL)
    connection.execute(TASKS.update().where(*lost).values(status="expiring"))


def _remove(database: SqlDatabase, task_id: str, total: int) -> int:
    """Remove a task; return 1 for whoever removed the last of it."""
    for first in range(0, total, AT_ONCE):
        database.transact(partial(_remove_items, task_id=task_id, first=first))
    gone = TASKS.delete().where(TASKS.c.task_id == task_id)
    return database.transact(lambda connection: connection.execute(gone).rowcount)


def _remove_items(connection: sa.Connection, task_id: str, first: int) -> None:
    some = (ITEMS.c.task_id == task_id, ITEMS.c.item_index >= first, ITEMS.c.item_index < first + AT_ONCE)
    connection.execute(ITEMS.delete().where(*some))
