"""Entries of the question log for tests, and the rows of its tables."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import sqlalchemy as sa

from services.usage.records import Counts, Dimensions, Entry
from services.usage.tables import DAILY, DAYS, LOG, MONTHS

AT = datetime(2026, 1, 31, 15, 59, tzinfo=UTC)
DAY = date(2026, 1, 31)
REST = {
    **dict.fromkeys(("caller", "name", "message_id", "conversation_id", "task_id", "run_id", "clicked", "replica"), ""),
    **dict.fromkeys(("first_text_seconds", "question", "answer", "files")),
    **dict.fromkeys(("bytes", "sources", "takeovers", "has_words"), 0),
    "chat_kind": "single",
    "asks": 1,
}


def entry(stream_id: str = "s1", **changes: Any) -> Entry:
    """Return an entry of one answer with 30 tokens and a price, changed in fields of any of its parts."""
    given = {
        **{"day": DAY, "bot": "default", "provider": "dify", "model": "", "channel": "wecom", "department": "研发部"},
        **{"person": "zhangsan", "outcome": "completed", "currency": "USD", "seconds": 2.5},
        **{"tokens": 30, "prompt_tokens": 20, "completion_tokens": 10, "price": Decimal("0.001")},
        **REST,
        **changes,
    }
    time = given.pop("time", AT)
    dimensions = Dimensions(*(given.pop(name) for name in Dimensions._fields))
    counts = Counts(*(given.pop(name) for name in Counts.__slots__))
    return Entry(stream_id, time, dimensions, counts, given)


def rows(url: str, table: sa.Table = LOG) -> list[dict[str, Any]]:
    """Return the rows of a table by their key."""
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        found = connection.execute(sa.select(table).order_by(*table.primary_key.columns))
        made = [dict(row._mapping) for row in found]
    engine.dispose()
    return made


def total(url: str, *names: str) -> tuple[Any, ...]:
    """Return the sums of all days, which the sums without persons and those of months equal."""
    found = [[row[name] for row in rows(url, table) for name in names] for table in (DAILY, DAYS, MONTHS)]
    daily, *others = (tuple(sum(values[n :: len(names)]) for n in range(len(names))) for values in found)
    assert others == [daily, daily]
    return daily
