"""Webhooks of ended tasks: which one is due, who delivers it now, and what came of it.

Taking a webhook moves its time by the lease, in one update that only one process can make. So nothing is lost with a
process that dies while it delivers: the time comes again.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from services.batches.records import ENDED
from services.batches.sql.rows import Row
from services.batches.sql.tables import TASKS

#: Webhooks looked at; those that other processes take at the same moment are passed over.
LOOKED_AT = 20


def due(connection: sa.Connection, now: int) -> list[Row]:
    """Return webhooks of ended tasks whose time has come, in microseconds since 1970; the oldest first."""
    asked = sa.select(TASKS.c.task_id, TASKS.c.hook_due, TASKS.c.hook_tries)
    waiting = (TASKS.c.hook_state == "pending", TASKS.c.hook_due <= now, TASKS.c.status.in_(ENDED))
    return list(connection.execute(asked.where(*waiting).order_by(TASKS.c.hook_due).limit(LOOKED_AT)))


def take(connection: sa.Connection, found: Row, until: int) -> bool:
    """Begin the webhook's next attempt, which others leave alone until then; False if another process was faster."""
    same = (TASKS.c.task_id == found.task_id, TASKS.c.hook_due == found.hook_due)
    mine = TASKS.update().where(*same, TASKS.c.hook_tries == found.hook_tries, TASKS.c.hook_state == "pending")
    return bool(connection.execute(mine.values(hook_due=until, hook_tries=found.hook_tries + 1)).rowcount)


def settle(connection: sa.Connection, task_id: str, attempt: int, values: dict[str, Any]) -> bool:
    """Store the end of an attempt; False if a later one has begun, or the task was asked again."""
    mine = (TASKS.c.task_id == task_id, TASKS.c.hook_tries == attempt, TASKS.c.hook_state == "pending")
    return bool(connection.execute(TASKS.update().where(*mine).values(values)).rowcount)
