"""Writes the log and the usage in one transaction, corrects sums by ratings, and deletes what is old.

The transaction that inserts a stream's row in `laibao_usage_streams`, or gives it its day, also adds to the sums: so a
stream is counted once. Those of a stream and of its ratings meet at that row: a rating is added once, whichever comes
first.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import fields
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import mysql, sqlite

from services.sql.database import SqlDatabase
from services.usage.records import Counts, Dimensions, Entry
from services.usage.tables import DAILY, DAYS, KEY, LOG, MONTHS, RATINGS, STREAMS, SUMS, sums_key

#: Rows deleted or changed in one transaction.
AT_ONCE = 500
#: Days for which a counted stream is kept after its end or its last rating: an answer can be rated for 7 days, and a
#: rating is delivered within one.
KEPT_DAYS = 9
#: The sums that a rating is added to.
RATED = {"like": "likes", "dislike": "dislikes"}

Sums = dict[str, Any]


class SqlUsageStore:
    """Owns the tables. Every method raises `StoreUnavailable` while the database is away.

    Timeouts are short: a thread that waits for SQL keeps its claim on streams, and rows shall not come late.
    """

    def __init__(self, url: str, *, clock: Callable[[], float] = time.time) -> None:
        self._database = SqlDatabase(url, pool_size=2, writes=True)
        self._clock = clock

    def check(self) -> None:
        """Check that the database answers."""
        self._database.check()

    def save(self, entries: Sequence[Entry], *, log: bool) -> int:
        """Count the streams that were not counted, and with `log` add their entries; return how many they were."""
        return self._database.transact(partial(_save, entries=entries, log=log, now=self._now(0)))

    def forget_words(self, before: datetime) -> int:
        """Remove the words of some questions that were asked before this time; return of how many."""
        return self._database.transact(partial(_forget_words, before=before))

    def delete_log(self, before: datetime) -> int:
        """Delete some rows of the log that are older; return how many."""
        return self._database.transact(partial(_delete, table=LOG, old=LOG.c.time < before))

    def delete_streams(self) -> int:
        """Delete some rows of streams that cannot be rated any more; return how many."""
        before = self._now(KEPT_DAYS)
        return self._database.transact(partial(_delete, table=STREAMS, old=STREAMS.c.kept_from < before))

    def forget_log(self, person: str, *, delete: bool) -> int:
        """Return how many questions of a person the log has, and `delete` them."""
        mine = LOG.c.person == person
        number = sa.select(sa.func.count()).select_from(LOG).where(mine)
        rows = self._database.read(lambda connection: connection.scalar(number)) or 0
        while delete and self._database.transact(partial(_delete, table=LOG, old=mine)):
            pass
        return rows

    def forget_usage(self, person: str, *, delete: bool) -> int:
        """Return how many sums a person has, and with `delete` add them to those of nobody in particular."""
        return self._database.transact(partial(_forget_usage, person=person, delete=delete))

    def close(self) -> None:
        self._database.close()

    def _now(self, days: float) -> datetime:
        """Return the time that was this many days ago."""
        return datetime.fromtimestamp(self._clock(), UTC) - timedelta(days=days)


def lock_counted(connection: sa.Connection, stream_id: str) -> sa.Row[Any]:
    """Return the row of a stream in `laibao_usage_streams`, locked; without a day for one that is not counted yet.

    A transaction that stores a rating calls this before it reads the rating that was there, and `add_rating` after it.
    """
    mine = sa.select(STREAMS).where(STREAMS.c.stream_id == stream_id).with_for_update()
    now = datetime.now(UTC)
    if (found := connection.execute(mine).first()) is None:
        # A concurrent insert makes `transact` retry.
        connection.execute(STREAMS.insert().values(stream_id=stream_id, kept_from=now))
        return connection.execute(mine).one()
    connection.execute(STREAMS.update().where(STREAMS.c.stream_id == stream_id).values(kept_from=now))
    return found


def add_rating(connection: sa.Connection, counted: sa.Row[Any], before: str | None, after: str | None) -> None:
    """Correct the sums of a stream for one person's rating, which was `before`: like, dislike, or None.

    A stream that is not counted yet gets all of its ratings when it is.
    """
    if counted.day is None or before == after:
        return
    changed = {RATED[kind]: step for kind, step in ((before, -1), (after, 1)) if kind in RATED}
    for table in (DAILY, DAYS, MONTHS):
        mine = [table.c[name] == value for name, value in sums_key(table, counted._asdict()).items()]
        added = {name: table.c[name] + step for name, step in changed.items()}
        connection.execute(table.update().where(*mine).values(added))


def _save(connection: sa.Connection, entries: Sequence[Entry], log: bool, now: datetime) -> int:
    by_id = {entry.stream_id: entry for entry in entries}
    known = _days(connection, by_id)
    fresh = [by_id[stream_id] for stream_id in sorted(by_id) if known.get(stream_id) is None]
    if not fresh:
        return 0
    rated = [entry.stream_id for entry in fresh if entry.stream_id in known]
    _mark(connection, fresh, rated, now)
    sums = _sums(fresh, _ratings(connection, rated))
    for table in (DAILY, DAYS, MONTHS):
        _add(connection, table, sums)
    if log:
        rows = [_log_row(entry) for entry in fresh]
        connection.execute(_ignoring_known(connection, LOG), rows)
    return len(fresh)


def _days(connection: sa.Connection, stream_ids: Iterable[str]) -> dict[str, date | None]:
    """Return the days of those streams that have a row, and lock the rows."""
    asked = sa.select(STREAMS.c.stream_id, STREAMS.c.day).where(STREAMS.c.stream_id.in_(sorted(stream_ids)))
    return {row.stream_id: row.day for row in connection.execute(asked.with_for_update())}


def _mark(connection: sa.Connection, entries: Sequence[Entry], rated: Collection[str], now: datetime) -> None:
    """Store the sums' key of each stream; those that are `rated` have a row already."""
    rows = {entry.stream_id: {"kept_from": now, **entry.dimensions._asdict()} for entry in entries}
    new = [{"stream_id": stream_id, **row} for stream_id, row in rows.items() if stream_id not in rated]
    if new:
        # A concurrent insert makes `transact` retry.
        connection.execute(STREAMS.insert(), new)
    for stream_id in rated:
        connection.execute(STREAMS.update().where(STREAMS.c.stream_id == stream_id).values(rows[stream_id]))


def _ratings(connection: sa.Connection, stream_ids: Collection[str]) -> Mapping[tuple[str, str], int]:
    """Return how many ratings of each kind the streams have."""
    if not stream_ids:
        return {}
    number = sa.func.count().label("number")
    asked = sa.select(RATINGS.c.stream_id, RATINGS.c.rating, number).where(RATINGS.c.stream_id.in_(stream_ids))
    rows = connection.execute(asked.group_by(RATINGS.c.stream_id, RATINGS.c.rating))
    return {(row.stream_id, row.rating): row.number for row in rows}


def _sums(entries: Sequence[Entry], ratings: Mapping[tuple[str, str], int]) -> dict[Dimensions, Sums]:
    sums: defaultdict[Dimensions, Sums] = defaultdict(lambda: {**dict.fromkeys(SUMS, 0), "price": Decimal(0)})
    for entry in entries:
        total, counts = sums[entry.dimensions], entry.counts
        total["questions"] += 1
        for kind, name in RATED.items():
            total[name] += ratings.get((entry.stream_id, kind), 0)
        for name in ("tokens", "prompt_tokens", "completion_tokens", "price", "seconds"):
            total[name] += getattr(counts, name) or 0
        total["unknown_tokens"] += counts.tokens is None
        total["unknown_prices"] += counts.price is None
    return sums


def _add(connection: sa.Connection, table: sa.Table, sums: Mapping[Dimensions, Sums]) -> None:
    """Add to the sums, in the order of their keys, so that concurrent transactions seldom wait for each other."""
    totals: dict[tuple[Any, ...], Sums] = {}
    for dimensions, added in sums.items():
        key = sums_key(table, dimensions._asdict())
        total = totals.setdefault(tuple(key.values()), {**key, **dict.fromkeys(SUMS, 0)})
        for name in SUMS:
            total[name] += added[name]
    rows = [totals[key] for key in sorted(totals)]
    if connection.dialect.name == "sqlite":
        insert = sqlite.insert(table)
        grown = {name: table.c[name] + insert.excluded[name] for name in SUMS}
        connection.execute(insert.on_conflict_do_update(index_elements=table.primary_key.columns, set_=grown), rows)
    else:
        upsert = mysql.insert(table)
        summed = {name: table.c[name] + upsert.inserted[name] for name in SUMS}
        connection.execute(upsert.on_duplicate_key_update(summed), rows)


def _ignoring_known(connection: sa.Connection, table: sa.Table) -> sa.Insert:
    """Return an INSERT that leaves a row that is there as it is."""
    if connection.dialect.name == "sqlite":
        return sqlite.insert(table).on_conflict_do_nothing()
    return mysql.insert(table).on_duplicate_key_update(stream_id=table.c.stream_id)


def _log_row(entry: Entry) -> dict[str, Any]:
    dimensions = {name: value for name, value in entry.dimensions._asdict().items() if name != "day"}
    counts = {each.name: getattr(entry.counts, each.name) for each in fields(Counts)}
    return {"stream_id": entry.stream_id, "time": entry.time, **dimensions, **counts, **entry.rest}


def _forget_words(connection: sa.Connection, before: datetime) -> int:
    old = sa.select(LOG.c.stream_id).where(LOG.c.has_words == 1, LOG.c.time < before)
    stream_ids = connection.scalars(old.limit(AT_ONCE)).all()
    if stream_ids:
        without = {"question": None, "answer": None, "files": None, "has_words": 0}
        connection.execute(LOG.update().where(LOG.c.stream_id.in_(stream_ids)).values(without))
    return len(stream_ids)


def _forget_usage(connection: sa.Connection, person: str, delete: bool) -> int:
    number = 0
    for table in (MONTHS, DAILY):
        mine = table.c.person == person
        rows = connection.execute(sa.select(table).where(mine).with_for_update()).all()
        number = len(rows)
        if rows and delete:
            keys = [Dimensions(*(getattr(row, name) for name in KEY))._replace(person="") for row in rows]
            sums = [{name: getattr(row, name) for name in SUMS} for row in rows]
            _add(connection, table, dict(zip(keys, sums, strict=True)))
            connection.execute(table.delete().where(mine))
    if number and delete:
        connection.execute(STREAMS.update().where(STREAMS.c.person == person).values(person=""))
    return number


def _delete(connection: sa.Connection, table: sa.Table, old: sa.ColumnElement[bool]) -> int:
    found = connection.scalars(sa.select(table.c.stream_id).where(old).limit(AT_ONCE)).all()
    if found:
        connection.execute(table.delete().where(table.c.stream_id.in_(found), old))
    return len(found)
