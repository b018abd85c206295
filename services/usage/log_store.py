"""Reads the question log, newest first or oldest first, in pages: a log of any length needs the memory of one page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import sqlalchemy as sa

from services.sql.database import SqlDatabase
from services.usage.tables import LOG, RATINGS

#: Rows of one page; words can make a row 64 KiB.
PAGE = 500
#: Seconds for the reply to one page.
READ_SECONDS = 60.0

Row = Mapping[str, Any]
#: The members of a documented question in their order.
NAMES = (
    *("stream_id", "time", "channel", "bot", "person", "name", "department", "outcome", "seconds"),
    *("first_text_seconds", "tokens", "price", "currency", "provider", "rating", "question", "answer"),
    *("prompt_tokens", "completion_tokens", "model", "bytes", "sources", "rating_reasons", "rating_comment", "clicked"),
    *("chat_kind", "caller", "message_id", "conversation_id", "task_id", "run_id", "replica", "takeovers", "asks"),
    "files",
)


@dataclass(frozen=True, slots=True)
class LogFilter:
    """Which questions; "" and None are all."""

    since: datetime | None = None
    #: Exclusive.
    until: datetime | None = None
    bot: str = ""
    channel: str = ""
    #: A checked person (`records.Dimensions.person`).
    person: str = ""
    #: The main department.
    department: str = ""
    outcome: str = ""
    #: like or dislike: somebody's last rating of the answer; none: nobody has rated it.
    rating: str = ""
    #: Text in the question or the answer, in any case.
    words: str = ""

    @property
    def clauses(self) -> list[sa.ColumnElement[bool]]:
        """The conditions on rows of the log."""
        equal = [(name, getattr(self, name)) for name in ("bot", "channel", "person", "department", "outcome")]
        made = [LOG.c[name] == value for name, value in equal if value]
        made += [LOG.c.time >= self.since] if self.since else []
        made += [LOG.c.time < self.until] if self.until else []
        made += [_rated(self.rating)] if self.rating else []
        if self.words:
            columns = (sa.func.lower(LOG.c.question), sa.func.lower(LOG.c.answer))
            found = (column.contains(self.words.lower(), autoescape=True) for column in columns)
            made += [LOG.c.has_words == 1, sa.or_(*found)]
        return made


@dataclass(frozen=True, slots=True)
class SaidOf:
    """The last rating of an answer that nobody withdrew."""

    rating: str | None = None
    #: WeCom's numbers of reasons, and the person's words.
    reasons: tuple[int, ...] = ()
    comment: str | None = None
    at: datetime | None = field(default=None, compare=False)


class LogPlace(NamedTuple):
    """Where a page ends: the question after which the next one begins."""

    time: datetime
    stream_id: str


@dataclass(frozen=True, slots=True)
class RatingFilter:
    """Which ratings; "" and None are all. `until` is exclusive."""

    since: datetime | None = None
    until: datetime | None = None
    bot: str = ""
    channel: str = ""
    rating: str = ""

    @property
    def clauses(self) -> list[sa.ColumnElement[bool]]:
        """The conditions on rows of the ratings that nobody withdrew."""
        equal = [(name, getattr(self, name)) for name in ("bot", "channel", "rating")]
        made = [RATINGS.c[name] == value for name, value in equal if value]
        made += [RATINGS.c.rated_at >= self.since] if self.since else []
        made += [RATINGS.c.rated_at < self.until] if self.until else []
        return [*made, RATINGS.c.rating.is_not(None)]


class RatingPlace(NamedTuple):
    """Where a page of ratings ends."""

    rated_at: datetime
    stream_id: str
    #: The fingerprint of who rated.
    person: str


class GivenRating(NamedTuple):
    """One person's rating of an answer."""

    place: RatingPlace
    said: SaidOf
    bot: str
    channel: str


class SqlLogStore:
    """Reads one database's log. Every method raises `StoreUnavailable` while the database is away."""

    def __init__(self, url: str, *, pool_size: int = 1, read_timeout: float = READ_SECONDS) -> None:
        self._database = SqlDatabase(url, pool_size=pool_size, read_timeout=read_timeout)

    def rows(
        self, chosen: LogFilter = LogFilter(), *, oldest_first: bool = False, after: LogPlace | None = None
    ) -> Iterator[tuple[Row, SaidOf]]:
        """Yield the questions with their ratings, by time and stream id. Rows that come meanwhile may be missing."""
        last = after
        while page := self._page(chosen.clauses, last, oldest_first):
            ratings = self._ratings([row["stream_id"] for row in page])
            yield from ((row, ratings.get(row["stream_id"], SaidOf())) for row in page)
            if len(page) < PAGE:
                return
            last = LogPlace(page[-1]["time"], page[-1]["stream_id"])

    def row(self, stream_id: str) -> tuple[Row, SaidOf] | None:
        """Return one question; None if the log does not have it."""
        found = self._read(sa.select(LOG).where(LOG.c.stream_id == stream_id))
        return (found[0], self._ratings([stream_id]).get(stream_id, SaidOf())) if found else None

    def ratings(
        self, chosen: RatingFilter = RatingFilter(), *, after: RatingPlace | None = None
    ) -> Iterator[tuple[GivenRating, Row | None]]:
        """Yield the ratings, the newest first, each with its question; None where the log does not have that."""
        key = (RATINGS.c.rated_at, RATINGS.c.stream_id, RATINGS.c.person)
        asked = sa.select(RATINGS).where(*chosen.clauses).order_by(*(column.desc() for column in key)).limit(PAGE)
        last = after
        while page := [_given(row) for row in self._read(asked.where(*(_rated_before(last) if last else [])))]:
            streams = sa.select(LOG).where(LOG.c.stream_id.in_([given.place.stream_id for given in page]))
            logged = {row["stream_id"]: row for row in self._read(streams)}
            yield from ((given, logged.get(given.place.stream_id)) for given in page)
            if len(page) < PAGE:
                return
            last = page[-1].place

    def first_texts(self, since: datetime, until: datetime, most: int) -> list[float]:
        """Return the seconds to the first text of the newest answers that have one, `most` at most, the least first."""
        key = (LOG.c.time.desc(), LOG.c.stream_id.desc())
        of_span = (LOG.c.time >= since, LOG.c.time < until, LOG.c.first_text_seconds.is_not(None))
        asked = sa.select(LOG.c.first_text_seconds).where(*of_span).order_by(*key).limit(most)
        return sorted(self._database.read(lambda connection: list(connection.scalars(asked))))

    def close(self) -> None:
        self._database.close()

    def _page(self, clauses: Sequence[sa.ColumnElement[bool]], last: LogPlace | None, oldest_first: bool) -> list[Row]:
        key = (LOG.c.time, LOG.c.stream_id)
        order = key if oldest_first else tuple(column.desc() for column in key)
        after = [_after(last, oldest_first)] if last else []
        return self._read(sa.select(LOG).where(*clauses, *after).order_by(*order).limit(PAGE))

    def _ratings(self, stream_ids: Sequence[str]) -> dict[str, SaidOf]:
        chosen = sa.select(RATINGS).where(RATINGS.c.stream_id.in_(stream_ids), RATINGS.c.rating.is_not(None))
        found = self._read(chosen.order_by(RATINGS.c.rated_at, RATINGS.c.person))
        # The last one of an answer wins.
        return {row["stream_id"]: _said(row) for row in found}

    def _read(self, asked: sa.Select[Any]) -> list[Row]:
        def read(connection: sa.Connection) -> list[Row]:
            return [dict(row._mapping) for row in connection.execute(asked)]

        return self._database.read(read)


def documented(row: Row, said: SaidOf, zone: ZoneInfo) -> dict[str, Any]:
    """Return a question's JSON object: every name of `NAMES`, null where it is unknown."""
    given = {
        **row,
        "time": row["time"].astimezone(zone).isoformat(timespec="milliseconds"),
        "rating": said.rating,
        "rating_reasons": list(said.reasons) or None,
        "rating_comment": said.comment,
        "files": (row["files"] or []) if row["has_words"] else None,
    }
    return {name: None if given[name] == "" and name not in ("question", "answer") else given[name] for name in NAMES}


def _said(row: Row) -> SaidOf:
    reasons = tuple(int(number) for number in (row["reasons"] or "").split(",") if number)
    return SaidOf(row["rating"], reasons, row["content"], row["rated_at"])


def _given(row: Row) -> GivenRating:
    place = RatingPlace(row["rated_at"], row["stream_id"], row["person"])
    return GivenRating(place, _said(row), row["bot"], row["channel"])


def _rated_before(last: RatingPlace) -> list[sa.ColumnElement[bool]]:
    """Return the conditions of the ratings after a page, as `_after` makes them."""
    at, stream_id, person = RATINGS.c.rated_at, RATINGS.c.stream_id, RATINGS.c.person
    same = sa.and_(stream_id == last.stream_id, person < last.person)
    return [at <= last.rated_at, sa.or_(at < last.rated_at, stream_id < last.stream_id, same)]


def _after(last: LogPlace, oldest_first: bool) -> sa.ColumnElement[bool]:
    """Return the condition of the rows after one. MariaDB uses an index for `time` alone, not for a pair."""
    time, stream_id = LOG.c.time, LOG.c.stream_id
    if oldest_first:
        return sa.and_(time >= last.time, sa.or_(time > last.time, stream_id > last.stream_id))
    return sa.and_(time <= last.time, sa.or_(time < last.time, stream_id < last.stream_id))


def _rated(rating: str) -> sa.ColumnElement[bool]:
    if rating == "none":
        return sa.not_(sa.exists().where(RATINGS.c.stream_id == LOG.c.stream_id, RATINGS.c.rating.is_not(None)))
    return sa.exists().where(RATINGS.c.stream_id == LOG.c.stream_id, RATINGS.c.rating == rating)
