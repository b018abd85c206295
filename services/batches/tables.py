"""The tables of batches, for MySQL, MariaDB and SQLite.

    laibao_batch_tasks   one row per task; `served` orders the queue of tasks that are worked on, `priority` is 1 for
                         high, 0 for normal and -1 for low, `runs` how often its failed items were asked again, `spent`
                         the sums of its usage once it has ended, and `hook_…` the state of its webhook's delivery
    laibao_batch_items   one row per text; `given` is the submitter's id of it, the other cells of its row and its own
                         inputs, `due` when it may be asked (again), `lane` the lane that asks it
    laibao_batch_gates   one row, `submit`: submissions update it, and so wait for each other

`due`, `served` and `hook_due` are microseconds since 1970, `paused` is the sum of finished pauses in microseconds;
datetimes are in UTC.

A transaction that changes a task or one of its items locks the task's row first. Therefore an item is claimed once, the
last one ends the task once, and ended ones do not change. Counts are computed from the items, and stored only when the
task ends. In a cancelled task, items whose status is still `pending` count as cancelled, which saves an update of ten
thousand rows. Two statuses are never shown: `arriving`, some texts are still missing, and `expiring`, the rows are
being removed.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from services.sql.schema import (
    BIG,
    ID,
    METADATA,
    WORD,
    Exact,
    Json,
    ShortText,
    Utc,
    Words,
    count,
    optional,
    required,
    table,
)

TASKS = table(
    "laibao_batch_tasks",
    METADATA,
    required("task_id", ID, primary_key=True),
    required("owner", Exact),
    optional("idempotency_key", Exact),
    required("digest", Exact),
    required("name", ShortText),
    required("description", ShortText),
    required("options", Words),
    required("credential", Words),
    required("status", WORD),
    count("priority"),
    optional("max_concurrent", sa.Integer),
    required("total", sa.Integer),
    count("completed"),
    count("failed"),
    count("runs"),
    optional("spent", Json),
    required("served", BIG),
    count("stored"),
    count("paused", type_=BIG),
    optional("paused_at", Utc),
    required("created_at", Utc),
    optional("started_at", Utc),
    optional("ended_at", Utc),
    required("error_message", Words),
    required("hook_state", WORD, server_default="none"),
    count("hook_due", type_=BIG),
    count("hook_tries"),
    optional("hook_error", WORD),
    sa.Index("laibao_batch_tasks_key", "owner", "idempotency_key", unique=True),
    sa.Index("laibao_batch_tasks_line", "status", "served"),
    sa.Index("laibao_batch_tasks_owner", "owner", "created_at"),
    sa.Index("laibao_batch_tasks_created", "created_at"),
    sa.Index("laibao_batch_tasks_ended", "ended_at"),
    sa.Index("laibao_batch_tasks_stored", "stored", "ended_at"),
    sa.Index("laibao_batch_tasks_hooks", "hook_state", "hook_due"),
)
ITEMS = table(
    "laibao_batch_items",
    METADATA,
    required("task_id", ID, primary_key=True),
    required("item_index", sa.Integer, primary_key=True),
    required("question", Words),
    required("status", WORD, server_default="pending"),
    count("due", type_=BIG),
    optional("lane", sa.Integer),
    count("attempts"),
    optional("started_at", Utc),
    optional("ended_at", Utc),
    optional("answer", Words),
    optional("metadata", Json),
    optional("sources", Json),
    optional("spent", Json),
    optional("error_code", WORD),
    optional("error_message", Words),
    optional("given", Json),
    sa.Index("laibao_batch_items_next", "task_id", "status", "due", "item_index"),
    # Unique: a lane has one item at a time. Any number of items has NULL.
    sa.Index("laibao_batch_items_lane", "lane", unique=True),
)
GATES = table("laibao_batch_gates", METADATA, required("name", WORD, primary_key=True), required("passed", BIG))


def by_status(asked: sa.Select[Any]) -> sa.Select[Any]:
    """Make MySQL read the items by the index of their status, also where its optimizer prefers another one."""
    return asked.with_hint(ITEMS, "FORCE INDEX (laibao_batch_items_next)")
