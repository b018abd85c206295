"""Reads the daily sums, added up by any of their dimensions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import sqlalchemy as sa

from services.sql.database import SqlDatabase
from services.usage.tables import DAILY, DAYS, MONTHS, SUMS

#: What sums can be made by, and chosen by.
BY = ("month", "day", "bot", "provider", "model", "channel", "department", "person", "outcome")
CHOSEN_BY = ("bot", "provider", "model", "channel", "department", "person")
#: Seconds for the reply to one query.
READ_SECONDS = 60.0


@dataclass(slots=True)
class Total:
    """The sums of one group. Tokens and prices are those of the questions for which they are known."""

    questions: int = 0
    answers: int = 0
    cancelled: int = 0
    #: By the error's code.
    failures: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    likes: int = 0
    dislikes: int = 0
    tokens: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    #: Questions whose tokens, and whose price, the provider did not report.
    unknown_tokens: int = 0
    unknown_prices: int = 0
    #: By currency, without the questions that cost nothing.
    prices: defaultdict[str, Decimal] = field(default_factory=lambda: defaultdict(Decimal))
    seconds: float = 0.0

    def add(self, row: Mapping[str, Any]) -> None:
        """Add the sums of one outcome and currency."""
        questions = int(row["questions"])
        for name in ("questions", "likes", "dislikes", "tokens", "prompt_tokens", "completion_tokens"):
            setattr(self, name, getattr(self, name) + int(row[name]))
        self.unknown_tokens += int(row["unknown_tokens"])
        self.unknown_prices += int(row["unknown_prices"])
        self.seconds += float(row["seconds"])
        if row["price"]:
            self.prices[row["currency"]] += row["price"]
        match row["outcome"]:
            case "completed":
                self.answers += questions
            case "cancelled":
                self.cancelled += questions
            case code:
                self.failures[code] += questions

    def documented(self) -> dict[str, Any]:
        """Return the sums by their documented names; None for what is not known."""
        is_known = self.unknown_tokens < self.questions
        price, currency = self._price()
        return {
            "questions": self.questions,
            "answers": self.answers,
            "failures": sum(self.failures.values()),
            "cancelled": self.cancelled,
            "tokens": self.tokens if is_known or not self.questions else None,
            "price": price,
            "currency": currency,
            "likes": self.likes,
            "dislikes": self.dislikes,
            "seconds": round(self.seconds, 3),
            "unknown_tokens": self.unknown_tokens,
            "unknown_prices": self.unknown_prices,
            "prompt_tokens": self.prompt_tokens if is_known else None,
            "completion_tokens": self.completion_tokens if is_known else None,
            "prices": dict(sorted(self.prices.items())),
            "failures_by_code": dict(sorted(self.failures.items())),
        }

    def _price(self) -> tuple[Decimal | int | None, str | None]:
        """Return the price and its currency; nothing where it is unknown, and where there are several currencies."""
        if len(self.prices) == 1:
            ((currency, price),) = self.prices.items()
            return price, currency or None
        return (0 if not self.prices and self.unknown_prices < self.questions else None), None


class TooManySums(ValueError):
    """Sums of more rows than were to be read."""


class SqlSumsStore:
    """Reads one database's sums. Every method raises `StoreUnavailable` while the database is away."""

    def __init__(self, url: str, *, pool_size: int = 1, read_timeout: float = READ_SECONDS) -> None:
        self._database = SqlDatabase(url, pool_size=pool_size, read_timeout=read_timeout)

    def totals(
        self, since: date, until: date, *, by: Sequence[str], chosen: Mapping[str, str] = {}, most: int | None = None
    ) -> list[tuple[tuple[Any, ...], Total]]:
        """Return the sums of the days from `since` to `until`, both included, by the values of the dimensions `by`.

        Raises:
            TooManySums: they are of more than `most` rows of the database.
        """
        columns = list(dict.fromkeys("day" if name == "month" else name for name in by))
        grouped = list(dict.fromkeys((*columns, "outcome", "currency")))
        rows: list[Mapping[str, Any]] = []
        for table, first, last in _parts(since, until, {*by, *chosen}):
            rows += self._rows(table, first, last, grouped, chosen, most)
            if most is not None and len(rows) > most:
                raise TooManySums(most)
        totals: defaultdict[tuple[Any, ...], Total] = defaultdict(Total)
        for row in rows:
            totals[tuple(_value(row, name) for name in by)].add(row)
        return sorted(totals.items(), key=lambda item: item[0])

    def people(self, day: date) -> int:
        """Return how many known persons asked on a day."""
        asked = sa.select(sa.func.count(DAILY.c.person.distinct())).where(DAILY.c.day == day, DAILY.c.person != "")
        return self._database.read(lambda connection: connection.scalar(asked)) or 0

    def _rows(
        self,
        table: sa.Table,
        first: date,
        last: date,
        grouped: Sequence[str],
        chosen: Mapping[str, str],
        most: int | None,
    ) -> list[Mapping[str, Any]]:
        asked = (
            sa.select(*(table.c[name] for name in grouped), *(sa.func.sum(table.c[name]).label(name) for name in SUMS))
            .where(table.c.day.between(first, last), *(table.c[name] == value for name, value in chosen.items()))
            .group_by(*(table.c[name] for name in grouped))
            .limit(None if most is None else most + 1)
        )

        def read(connection: sa.Connection) -> list[Mapping[str, Any]]:
            found = connection.execute(asked)
            names = tuple(found.keys())
            return [dict(zip(names, row, strict=True)) for row in found]

        return self._database.read(read)

    def close(self) -> None:
        self._database.close()


def _parts(since: date, until: date, dimensions: Collection[str]) -> Iterator[tuple[sa.Table, date, date]]:
    """Yield the tables with the days of each, from the smallest tables that have the dimensions.

    Sums of persons are those of whole months and of the days before and after these.
    """
    if "person" not in dimensions:
        yield DAYS, since, until
        return
    months = since if since.day == 1 else _next_month(since)
    days = (until + timedelta(days=1)).replace(day=1)
    if "day" in dimensions or months >= days:
        yield DAILY, since, until
        return
    yield MONTHS, months, days - timedelta(days=1)
    for first, last in ((since, months - timedelta(days=1)), (days, until)):
        if first <= last:
            yield DAILY, first, last


def _next_month(day: date) -> date:
    return (day.replace(day=28) + timedelta(days=4)).replace(day=1)


def _value(row: Mapping[str, Any], name: str) -> str:
    return str(row["day"])[:7] if name == "month" else str(row[name])
