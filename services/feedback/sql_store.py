"""The table of ratings, for MySQL, MariaDB and SQLite.

    laibao_feedback   one row per answer and person: the person's last rating

`person` is the fingerprint that log lines show, `rating` is like, dislike or NULL (withdrawn; words and reasons are
then removed), `reasons` are WeCom's numbers, such as "2,4". `rated_at` is in UTC; `version` orders ratings of one
second.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import sqlalchemy as sa

from services.feedback.records import RatedAnswer, Rating
from services.sql.database import SqlDatabase
from services.sql.schema import BIG, METADATA, WORD, Exact, Utc, Words, optional, required, table
from services.usage.sql_store import add_rating, lock_counted

#: Days for which a row is kept after the person's last rating, and rows deleted in one transaction.
KEPT_DAYS = 365
DELETED_AT_ONCE = 500

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


class SqlFeedbackStore:
    """Owns the table above. Every method raises `StoreUnavailable` while the database is away.

    Timeouts are short: a delivery must end before its claim lapses.
    """

    def __init__(self, url: str, *, clock: Callable[[], float] = time.time) -> None:
        self._database = SqlDatabase(url, pool_size=1, writes=True)
        self._clock = clock

    def check(self) -> None:
        """Check that the database answers."""
        self._database.check()

    def save(self, stream_id: str, answer: RatedAnswer, ratings: Sequence[tuple[str, int, Rating]]) -> None:
        """Store the ratings of one answer in one transaction: of each its person, its version and itself.

        A row with a later rating stays as it is.
        """
        rows = [_row(stream_id, answer, *one) for one in ratings]
        self._database.transact(partial(_upsert, rows=rows))

    def expire(self) -> int:
        """Delete some rows that are older than `KEPT_DAYS`; return how many."""
        before = datetime.fromtimestamp(self._clock(), UTC) - timedelta(days=KEPT_DAYS)
        return self._database.transact(partial(_delete, before=before))

    def forget(self, people: Sequence[str], *, delete: bool) -> int:
        """Return how many ratings these people have given, and `delete` them. Sums of ratings do not change."""
        mine = FEEDBACK.c.person.in_(people)
        number = sa.select(sa.func.count()).select_from(FEEDBACK).where(mine)
        rows = self._database.read(lambda connection: connection.scalar(number)) or 0
        if rows and delete:
            self._database.transact(lambda connection: connection.execute(FEEDBACK.delete().where(mine)))
        return rows

    def close(self) -> None:
        self._database.close()


def _row(stream_id: str, answer: RatedAnswer, person: str, version: int, rating: Rating) -> dict[str, Any]:
    return {
        "stream_id": stream_id,
        "person": person,
        "bot": answer.bot,
        "channel": answer.channel,
        "provider": answer.provider,
        "message_id": answer.message_id,
        "conversation_id": answer.conversation_id,
        "rating": rating.kind or None,
        "content": rating.content or None if rating.kind else None,
        "reasons": ",".join(map(str, rating.reasons)) or None if rating.kind else None,
        "rated_at": datetime.fromtimestamp(rating.at, UTC),
        "version": version,
    }


def _upsert(connection: sa.Connection, rows: Sequence[dict[str, Any]]) -> None:
    for row in rows:
        _upsert_one(connection, row)


def _upsert_one(connection: sa.Connection, row: dict[str, Any]) -> None:
    """Update a row unless it has a later rating; insert a missing one. A concurrent insert makes `transact` retry.

    The usage counts the change in the same transaction.
    """
    counted = lock_counted(connection, row["stream_id"])
    mine = sa.and_(FEEDBACK.c.stream_id == row["stream_id"], FEEDBACK.c.person == row["person"])
    at, version = FEEDBACK.c.rated_at, FEEDBACK.c.version
    older = sa.or_(at < row["rated_at"], sa.and_(at == row["rated_at"], version < row["version"]))
    before = connection.execute(sa.select(FEEDBACK.c.rating).where(mine)).first()
    if before is None:
        connection.execute(FEEDBACK.insert().values(row))
    elif not connection.execute(FEEDBACK.update().where(mine, older).values(row)).rowcount:
        return
    add_rating(connection, counted, before.rating if before else None, row["rating"])


def _delete(connection: sa.Connection, before: datetime) -> int:
    old = sa.select(FEEDBACK.c.stream_id, FEEDBACK.c.person).where(FEEDBACK.c.rated_at < before)
    rows = connection.execute(old.limit(DELETED_AT_ONCE)).all()
    for row in rows:
        mine = (FEEDBACK.c.stream_id == row.stream_id, FEEDBACK.c.person == row.person)
        connection.execute(FEEDBACK.delete().where(*mine, FEEDBACK.c.rated_at < before))
    return len(rows)
