"""The tables of batches, for MySQL, MariaDB and SQLite.

    laibao_batch_tasks   one row per task; `served` orders the queue of tasks that are worked on, `priority` is 1 for
                         high, 0 for normal and -1 for low, `runs` how often its failed items were asked again, `spent`
                         the sums of its usage once it has ended, and `hook_…` the state of its webhook's delivery
    laibao_batch_items   one row per text; `given` is the submitter's id of it, the other cells of its row and its own
                         inputs, `due` when it may be asked (again), `lane` the lane that asks it
    laibao_batch_gates   one row, `submit`: submissions update it, and so wait for each other

This is version 1 of the schema; a later version changes it by a migration.

`due`, `served` and `hook_due` are microseconds since 1970, `paused` is the sum of finished pauses in microseconds;
datetimes are in UTC.

A transaction that changes a task or one of its items locks the task's row first. Therefore an item is claimed once, the
last one ends the task once, and ended ones do not change. Counts are computed from the items, and stored only when the
task ends. In a cancelled task, items whose status is still `pending` count as cancelled, which saves an update of ten
thousand rows. Two statuses are never shown: `arriving`, some texts are still missing, and `expiring`, the rows are
being removed.
"""

from __future__ import annotations

import sqlalchemy as sa

from services.sql import columns
from services.sql.columns import BIG, ID, WORD, Exact, Json, ShortText, Utc, Words
from services.sql.columns import count as _count
from services.sql.columns import optional as _optional
from services.sql.columns import required as _required
from services.sql.columns import table as _table

METADATA = sa.MetaData()

TASKS = _table(
    "laibao_batch_tasks",
    METADATA,
    _required("task_id", ID, primary_key=True),
    _required("owner", Exact),
    _optional("idempotency_key", Exact),
    _required("digest", Exact),
    _required("name", ShortText),
    _required("description", ShortText),
    _required("options", Words),
    _required("credential", Words),
    _required("status", WORD),
    _count("priority"),
    _optional("max_concurrent", sa.Integer),
    _required("total", sa.Integer),
    _count("completed"),
    _count("failed"),
    _count("runs"),
    _optional("spent", Json),
    _required("served", BIG),
    _count("stored"),
    _count("paused", type_=BIG),
    _optional("paused_at", Utc),
    _required("created_at", Utc),
    _optional("started_at", Utc),
    _optional("ended_at", Utc),
    _required("error_message", Words),
    _required("hook_state", WORD, server_default="none"),
    _count("hook_due", type_=BIG),
    _count("hook_tries"),
    _optional("hook_error", WORD),
)
ITEMS = _table(
    "laibao_batch_items",
    METADATA,
    _required("task_id", ID, primary_key=True),
    _required("item_index", sa.Integer, primary_key=True),
    _required("question", Words),
    _required("status", WORD, server_default="pending"),
    _count("due", type_=BIG),
    _optional("lane", sa.Integer),
    _count("attempts"),
    _optional("started_at", Utc),
    _optional("ended_at", Utc),
    _optional("answer", Words),
    _optional("metadata", Json),
    _optional("sources", Json),
    _optional("spent", Json),
    _optional("error_code", WORD),
    _optional("error_message", Words),
    _optional("given", Json),
)
GATES = _table("laibao_batch_gates", METADATA, _required("name", WORD, primary_key=True), _required("passed", BIG))

#: In the order of creation.
TABLES = (TASKS, ITEMS, GATES)
#: In the order of creation.
INDEXES = (
    sa.Index("laibao_batch_tasks_key", TASKS.c.owner, TASKS.c.idempotency_key, unique=True),
    sa.Index("laibao_batch_tasks_line", TASKS.c.status, TASKS.c.served),
    sa.Index("laibao_batch_tasks_owner", TASKS.c.owner, TASKS.c.created_at),
    sa.Index("laibao_batch_tasks_created", TASKS.c.created_at),
    sa.Index("laibao_batch_tasks_ended", TASKS.c.ended_at),
    sa.Index("laibao_batch_tasks_stored", TASKS.c.stored, TASKS.c.ended_at),
    sa.Index("laibao_batch_tasks_hooks", TASKS.c.hook_state, TASKS.c.hook_due),
    sa.Index("laibao_batch_items_next", ITEMS.c.task_id, ITEMS.c.status, ITEMS.c.due, ITEMS.c.item_index),
    # Unique: a lane has one item at a time. Any number of items has NULL.
    sa.Index("laibao_batch_items_lane", ITEMS.c.lane, unique=True),
)


def statements(kind: str) -> list[str]:
    """Return the statements that create missing tables; `kind` is "mysql" or "sqlite"."""
    return columns.statements(kind, TABLES, INDEXES)
