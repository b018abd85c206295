"""The tables of the log and the usage, for MySQL, MariaDB and SQLite.

    laibao_question_log     one row per question, by its stream; deleted after QUESTION_LOG_DAYS
    laibao_usage_daily      sums by day and dimensions (`records.Dimensions`); never deleted
    laibao_usage_days       the same without the person, so that sums of a year are a few thousand rows
    laibao_usage_months     the same by month, with the person; its day is the month's first
    laibao_usage_streams    one row per counted stream, with the sum that it was added to; as long as it can be rated

A row of `laibao_usage_streams` without a day was written by a rating that came before its stream was counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import sqlalchemy as sa

from services.sql.schema import (
    BIG,
    METADATA,
    WORD,
    Exact,
    Json,
    Money,
    Name,
    Utc,
    Words,
    count,
    optional,
    required,
    table,
)


def _by_time(name: str) -> sa.Index:
    return sa.Index(f"laibao_question_log_{name}", name, "time", "stream_id")


LOG = table(
    "laibao_question_log",
    METADATA,
    required("stream_id", WORD),
    required("time", Utc),
    required("channel", WORD),
    required("bot", Name),
    required("person", Name),
    required("caller", Name),
    required("name", Name),
    required("department", Name),
    required("chat_kind", WORD),
    required("outcome", Name),
    required("seconds", sa.Double),
    optional("first_text_seconds", sa.Double),
    required("bytes", BIG),
    optional("tokens", BIG),
    optional("prompt_tokens", BIG),
    optional("completion_tokens", BIG),
    optional("price", Money),
    required("currency", WORD),
    required("provider", Name),
    required("model", Name),
    *(required(name, Name) for name in ("message_id", "conversation_id", "task_id", "run_id")),
    count("sources"),
    required("clicked", WORD),
    required("replica", Name),
    count("takeovers"),
    count("asks"),
    optional("question", Words),
    optional("answer", Words),
    optional("files", Json),
    count("has_words"),
    # InnoDB keeps rows in the order of this key: those of a week lie together. A stream has one time.
    sa.PrimaryKeyConstraint("time", "stream_id"),
    sa.Index("laibao_question_log_stream", "stream_id", unique=True),
    *(_by_time(name) for name in ("person", "department", "bot", "channel", "outcome", "has_words")),
)
#: The columns of `laibao_usage_daily` that make its key.
KEY = ("day", "bot", "provider", "model", "channel", "department", "person", "outcome", "currency")
#: Its sums; `unknown_tokens` and `unknown_prices` count questions.
SUMS = (
    *("questions", "likes", "dislikes", "tokens", "prompt_tokens", "completion_tokens"),
    *("unknown_tokens", "price", "unknown_prices", "seconds"),
)
_key_types: dict[str, Any] = {"day": sa.Date(), "channel": WORD, "currency": WORD}
_sum_types: dict[str, Any] = {"price": Money(), "seconds": sa.Double()}


def _sums(name: str, key: Iterable[str], *indexes: sa.Index) -> sa.Table:
    return table(
        name,
        METADATA,
        *(required(part, _key_types.get(part, Name()), primary_key=True) for part in key),
        *(required(part, _sum_types.get(part, BIG)) for part in SUMS),
        *indexes,
        # In the order of its key, as InnoDB keeps it: sums of days are read three times as fast.
        sqlite_with_rowid=False,
    )


DAILY = _sums("laibao_usage_daily", KEY, sa.Index("laibao_usage_daily_person", "person", "day"))
DAYS = _sums("laibao_usage_days", (name for name in KEY if name != "person"))
MONTHS = _sums("laibao_usage_months", KEY)
STREAMS = table(
    "laibao_usage_streams",
    METADATA,
    required("stream_id", WORD, primary_key=True),
    required("kept_from", Utc),
    *(optional(name, _key_types.get(name, Name())) for name in KEY),
    sa.Index("laibao_usage_streams_kept", "kept_from"),
)
#: The columns of the table of ratings that are read here. Its owner, services/feedback, imports this package.
RATINGS = sa.table(
    "laibao_feedback",
    *(sa.column("stream_id", WORD), sa.column("person", WORD), sa.column("rating", WORD)),
    *(sa.column("content", Words), sa.column("reasons", WORD), sa.column("rated_at", Utc)),
    *(sa.column("bot", Exact), sa.column("channel", WORD)),
)


def sums_key(sums: sa.Table, dimensions: Mapping[str, Any]) -> dict[str, Any]:
    """Return the key of the row that dimensions have in a table of sums."""
    key = {column.name: dimensions[column.name] for column in sums.primary_key}
    return {**key, "day": key["day"].replace(day=1)} if sums is MONTHS else key
