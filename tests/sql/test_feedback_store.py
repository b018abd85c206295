"""The table of ratings on SQLite and MariaDB: one row per answer and person, the last state wins."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

import pytest
import sqlalchemy as sa

from services.feedback.records import RatedAnswer, Rating
from services.feedback.sql_store import DELETED_AT_ONCE, FEEDBACK, KEPT_DAYS, SqlFeedbackStore
from services.usage import log_store
from tests.support.batches.shelf import at_once
from tests.support.schema import migrated
from tests.support.servers.processes import FakeClock

AT = 1_700_000_000
ANSWER = RatedAnswer(True, "completed", "tag", "default", "wecom", "zhangsan", "zhangsan", "dify", "m1", "c1")


@pytest.fixture
def store(sql_url: str) -> Iterator[SqlFeedbackStore]:
    store = SqlFeedbackStore(migrated(sql_url))
    yield store
    store.close()


def rows(url: str) -> list[dict[str, Any]]:
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        found = [dict(row._mapping) for row in connection.execute(sa.select(FEEDBACK).order_by(FEEDBACK.c.person))]
    engine.dispose()
    return found


def said(kind: Any, version: int, at: int = AT, person: str = "p1", **words: Any) -> tuple[str, int, Rating]:
    return person, version, Rating(kind, at=at, **words)


def test_a_rating_is_a_row(store: SqlFeedbackStore, sql_url: str) -> None:
    """With the answer's ids, the words and the reasons; the person is a fingerprint."""
    store.save("s1", ANSWER, [said("dislike", 3, content="更具体 😀", reasons=(2, 4))])

    ids = {"bot": "default", "channel": "wecom", "provider": "dify", "message_id": "m1", "conversation_id": "c1"}
    words = {"rating": "dislike", "content": "更具体 😀", "reasons": "2,4"}
    at = {"rated_at": datetime.fromtimestamp(AT, UTC), "version": 3}
    assert rows(sql_url) == [{"stream_id": "s1", "person": "p1", **ids, **words, **at}]


def test_the_last_state_wins_in_any_order(store: SqlFeedbackStore, sql_url: str) -> None:
    """An earlier time loses, of one second the higher version wins, and a repetition changes nothing."""
    for one in (said("like", 2, AT + 5), said("dislike", 9, AT), said("dislike", 1, AT + 5), said("like", 2, AT + 5)):
        store.save("s1", ANSWER, [one])
    assert [(row["rating"], row["version"]) for row in rows(sql_url)] == [("like", 2)]

    store.save("s1", ANSWER, [said("dislike", 3, AT + 5), said("like", 4, person="p2")])

    assert [(row["person"], row["rating"]) for row in rows(sql_url)] == [("p1", "dislike"), ("p2", "like")]


def test_ratings_are_read_page_by_page(store: SqlFeedbackStore, sql_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest first; those of one second are neither lost nor repeated at a page's end; a withdrawn one is none."""
    monkeypatch.setattr(log_store, "PAGE", 2)
    answer = RatedAnswer(asked=True, status="completed", access="", bot="hr", channel="wecom")
    for stream_id in ("s1", "s2"):
        for person in ("p1", "p2"):
            store.save(stream_id, answer, [(person, 1, Rating("dislike", at=100))])
    store.save("s3", answer, [("p1", 1, Rating("like", at=99))])
    store.save("s4", answer, [("p1", 1, Rating("", at=101))])

    with closing(log_store.SqlLogStore(sql_url)) as log:
        found = [given.place[1:] for given, _ in log.ratings()]
        disliked = [given.place[1:] for given, _ in log.ratings(log_store.RatingFilter(bot="hr", rating="dislike"))]

    assert found == [("s2", "p2"), ("s2", "p1"), ("s1", "p2"), ("s1", "p1"), ("s3", "p1")]
    assert disliked == found[:4]


def test_a_withdrawal_removes_the_words(store: SqlFeedbackStore, sql_url: str) -> None:
    """The row stays, without rating, words and reasons, so that an earlier state cannot come back."""
    store.save("s1", ANSWER, [said("dislike", 1, content="机密", reasons=(1,))])
    store.save("s1", ANSWER, [said("", 2, AT + 1, content="机密", reasons=(1,))])
    store.save("s1", ANSWER, [said("dislike", 1, content="机密", reasons=(1,))])

    (row,) = rows(sql_url)
    assert (row["rating"], row["content"], row["reasons"], row["version"]) == (None, None, None, 2)


def test_concurrent_replicas_leave_one_row(store: SqlFeedbackStore, sql_url: str) -> None:
    """Eight of them save states of one person at once: the last one stays."""
    stores = [SqlFeedbackStore(sql_url) for _ in range(8)]
    saves = [
        lambda one=one, n=n: one.save("s1", ANSWER, [said("like" if n == 7 else "dislike", n)])
        for n, one in enumerate(stores)
    ]

    assert at_once(saves) == [None] * 8

    assert [(row["rating"], row["version"]) for row in rows(sql_url)] == [("like", 7)]
    for one in stores:
        one.close()


def test_rows_are_removed_after_a_year(sql_url: str, clock: FakeClock) -> None:
    """Some at a time, until none is left that is older."""
    clock.now = float(AT)
    store = SqlFeedbackStore(migrated(sql_url), clock=lambda: clock.now)
    store.save("s1", ANSWER, [said("like", 1, person=f"p{n}") for n in range(DELETED_AT_ONCE + 1)])
    store.save("s2", ANSWER, [said("like", 1, AT + 10)])

    clock.now = AT + KEPT_DAYS * 86_400 + 5.0
    removed = [store.expire() for _ in range(3)]

    assert removed == [DELETED_AT_ONCE, 1, 0]
    assert [row["stream_id"] for row in rows(sql_url)] == ["s2"]
    store.close()
