"""Sums of days without the person, sums of months with it, and an index for the days of one person."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa
from alembic.operations import Operations

from services.sql.migrations.steps import create_index, create_table
from services.sql.schema import BIG, WORD, Money, Name, required, table

revision = "0004"
down_revision = "0003"

METADATA = sa.MetaData()
KEY = ("day", "bot", "provider", "model", "channel", "department", "person", "outcome", "currency")
SUMS = (
    *("questions", "likes", "dislikes", "tokens", "prompt_tokens", "completion_tokens"),
    *("unknown_tokens", "price", "unknown_prices", "seconds"),
)
_types: dict[str, Any] = {"day": sa.Date(), "channel": WORD, "currency": WORD, "price": Money(), "seconds": sa.Double()}


def _sums(name: str, key: Iterable[str]) -> sa.Table:
    return table(
        name,
        METADATA,
        *(required(part, _types.get(part, Name()), primary_key=True) for part in key),
        *(required(part, _types.get(part, BIG)) for part in SUMS),
        sqlite_with_rowid=False,
    )


DAILY = _sums("laibao_usage_daily", KEY)
PERSON = sa.Index("laibao_usage_daily_person", DAILY.c.person, DAILY.c.day)
DAYS = _sums("laibao_usage_days", (name for name in KEY if name != "person"))
MONTHS = _sums("laibao_usage_months", KEY)
#: The first day of a row's month.
MONTH = {"sqlite": "date(day, 'start of month')", "mysql": "SUBDATE(day, DAYOFMONTH(day) - 1)"}


def upgrade(op: Operations) -> None:
    create_index(op, PERSON)
    kind = "sqlite" if op.get_context().dialect.name == "sqlite" else "mysql"
    for each, day in ((DAYS, "day"), (MONTHS, MONTH[kind])):
        create_table(op, each)
        _add_up(op, each, day)


def _add_up(op: Operations, sums: sa.Table, day: str) -> None:
    """Fill a table from the daily sums; REPLACE writes the same rows again when it is repeated."""
    others = [name for name in KEY if name in sums.columns and name != "day"]
    columns = ", ".join(("day", *others, *SUMS))
    values = ", ".join((day, *others, *(f"SUM({name})" for name in SUMS)))
    grouped = ", ".join((day, *others))
    op.execute(
        f"REPLACE INTO {sums.name} ({columns}) "  # nosec B608 - constants
        f"SELECT {values} FROM laibao_usage_daily GROUP BY {grouped}"
    )
