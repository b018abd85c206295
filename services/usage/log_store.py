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


#: The dimensions that questions are chosen by, that with the fewest questions of a value first; each has an index.
EQUAL = ("person", "department", "outcome", "bot", "channel")


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
    def indexed(self) -> LogFilter:
        """The part that an index finds without reading other rows: the time, and one of the dimensions."""
        named = next((name for name in EQUAL if getattr(self, name)), "")
        return LogFilter(self.since, self.until, **({named: getattr(self, named)} if named else {}))

    @property
    def clauses(self) -> list[sa.ColumnElement[bool]]:
        """The conditions on rows of the log."""
        equal = [(name, getattr(self, name)) for name in EQUAL]
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
        self,
        chosen: LogFilter = LogFilter(),
        *,
        oldest_first: bool = False,
        after: LogPlace | None = None,
        end: LogPlace | None = None,
        page: int = PAGE,
        columns: Sequence[str] = (),
    ) -> Iterator[tuple[Row, SaidOf]]:
        """Yield the questions with their ratings, by time and stream id. Rows that come meanwhile may be missing.

        The newest first, those after a place and up to an `end`. `page` rows are read at a time, with these columns;
        without any, with all.
        """
        clauses = [*chosen.clauses, *([_up_to(end)] if end else [])]
        asked = sa.select(*(LOG.c[name] for name in columns)) if columns else sa.select(LOG)
        last = after
        while found := self._page(asked.where(*clauses), last, oldest_first, page):
            ratings = self._ratings([row["stream_id"] for row in found])
            yield from ((row, ratings.get(row["stream_id"], SaidOf())) for row in found)
            if len(found) < page:
                return
            last = LogPlace(found[-1]["time"], found[-1]["stream_id"])

    def end(self, chosen: LogFilter, after: LogPlace | None, most: int) -> LogPlace | None:
        """Return the place of the last of `most` questions, the newest first, that the filter's index finds.

        None where there are fewer, and where every row that the index finds is one of the filter.
        """
        if chosen == chosen.indexed:
            return None
        asked = sa.select(LOG.c.time, LOG.c.stream_id).where(*chosen.indexed.clauses)
        found = self._page(asked, after, oldest_first=False, size=1, skip=most - 1)
        return LogPlace(found[0]["time"], found[0]["stream_id"]) if found else None

    def row(self, stream_id: str) -> tuple[Row, SaidOf] | None:
        """Return one question; None if the log does not have it."""
        found = self._read(sa.select(LOG).where(LOG.c.stream_id == stream_id))
        return (found[0], self._ratings([stream_id]).get(stream_id, SaidOf())) if found else None

    def ratings(
        self, chosen: RatingFilter = RatingFilter(), *, after: RatingPlace | None = None, page: int = PAGE
    ) -> Iterator[tuple[GivenRating, Row | None]]:
        """Yield the ratings, the newest first, each with its question; None where the log does not have that.

        `page` ratings are read at a time.
        """
        key = (RATINGS.c.rated_at, RATINGS.c.stream_id, RATINGS.c.person)
        asked = sa.select(RATINGS).where(*chosen.clauses).order_by(*(column.desc() for column in key)).limit(page)
        last = after
        while found := [_given(row) for row in self._read(asked.where(*(_rated_before(last) if last else [])))]:
            streams = sa.select(LOG).where(LOG.c.stream_id.in_([given.place.stream_id for given in found]))
            logged = {row["stream_id"]: row for row in self._read(streams)}
            yield from ((given, logged.get(given.place.stream_id)) for given in found)
            if len(found) < page:
                return
            last = found[-1].place

    def first_texts(self, since: datetime, until: datetime, most: int) -> list[float]:
        """Return the seconds to the first text of the newest answers that have one, `most` at most, the least first."""
        key = (LOG.c.time.desc(), LOG.c.stream_id.desc())
        of_span = (LOG.c.time >= since, LOG.c.time < until, LOG.c.first_text_seconds.is_not(None))
        asked = sa.select(LOG.c.first_text_seconds).where(*of_span).order_by(*key).limit(most)
        return sorted(self._database.read(lambda connection: list(connection.scalars(asked))))

    def close(self) -> None:
        self._database.close()

    def _page(
        self, asked: sa.Select[Any], last: LogPlace | None, oldest_first: bool, size: int, skip: int = 0
    ) -> list[Row]:
        key = (LOG.c.time, LOG.c.stream_id)
        order = key if oldest_first else tuple(column.desc() for column in key)
        after = [_after(last, oldest_first)] if last else []
        return self._read(asked.where(*after).order_by(*order).limit(size).offset(skip))

    def _ratings(self, stream_ids: Sequence[str]) -> dict[str, SaidOf]:
        chosen = sa.select(RATINGS).where(RATINGS.c.stream_id.in_(stream_ids), RATINGS.c.rating.is_not(None))
        found = self._read(chosen.order_by(RATINGS.c.rated_at, RATINGS.c.person))
        # The last one of an answer wins.
        return {row["stream_id"]: _said(row) for row in found}

    def _read(self, asked: sa.Select[Any]) -> list[Row]:
        def read(connection: sa.Connection) -> list[Row]:
            found = connection.execute(asked)
            names = tuple(found.keys())
            # A third of the time of `row._mapping`.
            return [dict(zip(names, row, strict=True)) for row in found]

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


def _up_to(end: LogPlace) -> sa.ColumnElement[bool]:
    """Return the condition of the rows up to one, the newest first."""
    time, stream_id = LOG.c.time, LOG.c.stream_id
    return sa.and_(time >= end.time, sa.or_(time > end.time, stream_id >= end.stream_id))


def _rated(rating: str) -> sa.ColumnElement[bool]:
    if rating == "none":
        return sa.not_(sa.exists().where(RATINGS.c.stream_id == LOG.c.stream_id, RATINGS.c.rating.is_not(None)))
    return sa.exists().where(RATINGS.c.stream_id == LOG.c.stream_id, RATINGS.c.rating == rating)
