"""The tables of batches and of ratings, as the first version has them.

A database whose tables exist already, complete, is taken over with its rows.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic.operations import Operations

from services.sql.migrations.steps import create_table
from services.sql.schema import BIG, ID, WORD, Exact, Json, ShortText, Utc, Words, count, optional, required, table

revision = "0001"
down_revision = None

METADATA = sa.MetaData()
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
FEEDBACK = table(
    "laibao_feedback",
    METADATA,
    required("stream_id", WORD, primary_key=True),
    required("person", WORD, primary_key=True),
    required("bot", Exact),
    required("channel", WORD),
    required("provider", Exact),
    required("message_id", Exact),
    required("conversation_id", Exact),
    optional("rating", WORD),
    optional("content", Words),
    optional("reasons", WORD),
    required("rated_at", Utc),
    required("version", BIG),
    sa.Index("laibao_feedback_rated", "rated_at"),
)


def upgrade(op: Operations) -> None:
    for each in (TASKS, ITEMS, GATES, FEEDBACK):
        create_table(op, each)
