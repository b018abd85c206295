"""The tables of batches, for MySQL, MariaDB and SQLite.

    laibao_batch_tasks   one row per task; `served` orders the queue of tasks that are worked on
    laibao_batch_items   one row per text; `due` is when it may be asked (again), `lane` the lane that asks it
    laibao_batch_gates   one row, `submit`: submissions update it, and so wait for each other
    laibao_batch_rows    what was given beside a text: its id, the other cells of its row, its own inputs; no row if
                         nothing was
    laibao_batch_extras  a task's priority, how often its failed items were asked again, the sums of its usage once it
                         has ended, and how its webhook stands; no row if there is none of them

This is version 1 of the schema. Replicas of two versions may share the tables. So a table never changes: what a later
version adds is in a new table, which the earlier one does not know, and which may lack a row.

`due` and `served` are microseconds since 1970, `paused` is the sum of finished pauses in microseconds; datetimes are in
UTC.

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
    _optional("max_concurrent", sa.Integer),
    _required("total", sa.Integer),
    _count("completed"),
    _count("failed"),
    _required("served", BIG),
    _count("stored"),
    _count("paused", type_=BIG),
    _optional("paused_at", Utc),
    _required("created_at", Utc),
    _optional("started_at", Utc),
    _optional("ended_at", Utc),
    _required("error_message", Words),
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
)
GATES = _table("laibao_batch_gates", METADATA, _required("name", WORD, primary_key=True), _required("passed", BIG))
ROWS = _table(
    "laibao_batch_rows",
    METADATA,
    _required("task_id", ID, primary_key=True),
    _required("item_index", sa.Integer, primary_key=True),
    _required("given", Json),
)

EXTRAS = _table(
    "laibao_batch_extras",
    METADATA,
    _required("task_id", ID, primary_key=True),
    _count("priority"),
    _count("runs"),
    _optional("spent", Json),
    _required("hook_state", WORD, server_default="none"),
    _count("hook_due", type_=BIG),
    _count("hook_tries"),
    _optional("hook_error", WORD),
)

#: In the order of creation.
TABLES = (TASKS, ITEMS, GATES, ROWS, EXTRAS)


#: In the order of creation.
INDEXES = (
    sa.Index("laibao_batch_tasks_key", TASKS.c.owner, TASKS.c.idempotency_key, unique=True),
    sa.Index("laibao_batch_tasks_line", TASKS.c.status, TASKS.c.served),
    sa.Index("laibao_batch_tasks_owner", TASKS.c.owner, TASKS.c.created_at),
    sa.Index("laibao_batch_tasks_created", TASKS.c.created_at),
    sa.Index("laibao_batch_tasks_ended", TASKS.c.ended_at),
    sa.Index("laibao_batch_tasks_stored", TASKS.c.stored, TASKS.c.ended_at),
    sa.Index("laibao_batch_items_next", ITEMS.c.task_id, ITEMS.c.status, ITEMS.c.due, ITEMS.c.item_index),
    sa.Index("laibao_batch_extras_priority", EXTRAS.c.priority),
    sa.Index("laibao_batch_extras_hooks", EXTRAS.c.hook_state, EXTRAS.c.hook_due),
    # Unique: a lane has one item at a time. Any number of items has NULL.
    sa.Index("laibao_batch_items_lane", ITEMS.c.lane, unique=True),
)


def statements(kind: str) -> list[str]:
    """Return the statements that create missing tables; `kind` is "mysql" or "sqlite"."""
    return columns.statements(kind, TABLES, INDEXES)
