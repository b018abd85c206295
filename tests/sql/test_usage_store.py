"""Log and usage in SQL: a stream is counted once, a rating too, and the log's end changes no sum."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Any

import pytest

from services.feedback.records import RatedAnswer, Rating
from services.feedback.sql_store import SqlFeedbackStore
from services.usage.sql_store import AT_ONCE, KEPT_DAYS, SqlUsageStore
from services.usage.tables import DAILY, STREAMS
from tests.support.batches.shelf import at_once
from tests.support.schema import migrated
from tests.support.servers.processes import FakeClock
from tests.support.usage import AT, DAY, entry, rows, total

ANSWER = RatedAnswer(True, "completed", "tag", "default", "wecom", "zhangsan", "zhangsan", "dify", "m1", "c1")


@pytest.fixture
def store(sql_url: str) -> Iterator[SqlUsageStore]:
    store = SqlUsageStore(migrated(sql_url))
    yield store
    store.close()


@pytest.fixture
def ratings(store: SqlUsageStore, sql_url: str) -> Iterator[SqlFeedbackStore]:
    ratings = SqlFeedbackStore(sql_url)
    yield ratings
    ratings.close()


def rates(ratings: SqlFeedbackStore, kind: str, version: int, *, person: str = "p1", stream_id: str = "s1") -> None:
    ratings.save(stream_id, ANSWER, [(person, version, Rating(kind, at=1_700_000_000))])  # type: ignore[arg-type]


def test_an_entry_is_a_row_and_a_sum(store: SqlUsageStore, sql_url: str) -> None:
    """Prices are exact, and texts in any script are kept as they are."""
    given: dict[str, Any] = {
        "question": "年假？😀",
        "answer": "五天",
        "files": ["a.pdf"],
        "has_words": 1,
        "first_text_seconds": 0.5,
    }
    store.save([entry(**given), entry("s2", price=Decimal("0.000000001"), person="")], log=True)

    (row, _) = rows(sql_url)
    assert {name: row[name] for name in given} == given
    assert (row["time"], row["price"], row["seconds"], row["person"]) == (AT, Decimal("0.001"), 2.5, "zhangsan")
    assert total(sql_url, "questions", "tokens", "price", "seconds") == (2, 60, Decimal("0.001000001"), 5.0)
    assert {row["day"] for row in rows(sql_url, DAILY)} == {DAY}


def test_a_stream_is_counted_once(store: SqlUsageStore, sql_url: str) -> None:
    """However often it comes, in one batch or in several, and without its row of the log too."""
    assert store.save([entry(), entry("s2")], log=True) == 2
    assert store.save([entry("s2"), entry("s3"), entry()], log=True) == 1
    store.delete_log(AT + timedelta(days=1))

    assert store.save([entry(), entry("s3")], log=True) == 0

    assert rows(sql_url) == []
    assert total(sql_url, "questions", "tokens") == (3, 90)


def test_concurrent_replicas_count_each_stream_once(store: SqlUsageStore, sql_url: str) -> None:
    """Eight of them store overlapping batches in different orders at once."""
    streams = [entry(f"s{n:02}", person=f"p{n % 7}", outcome="completed" if n % 3 else "cancelled") for n in range(40)]
    stores = [SqlUsageStore(sql_url) for _ in range(8)]
    saved = at_once([partial(one.save, random.sample(streams, 30), log=True) for one in stores])
    assert not [done for done in saved if isinstance(done, Exception)]
    store.save(streams, log=True)

    assert len(rows(sql_url)) == 40
    assert total(sql_url, "questions", "tokens") == (40, 1200)
    for one in stores:
        one.close()


def test_an_unknown_count_is_not_zero(store: SqlUsageStore, sql_url: str) -> None:
    """What no provider reported adds nothing, and is counted as unknown."""
    unknown = {"tokens": None, "prompt_tokens": None, "completion_tokens": None, "price": None, "currency": ""}
    store.save([entry(), entry("s2", **unknown)], log=True)

    assert [(row["tokens"], row["price"]) for row in rows(sql_url)] == [(30, Decimal("0.001")), (None, None)]
    assert total(sql_url, "questions", "tokens", "unknown_tokens", "unknown_prices") == (2, 30, 1, 1)


def test_a_rating_is_added_once_before_and_after_the_stream_is_counted(
    store: SqlUsageStore, ratings: SqlFeedbackStore, sql_url: str
) -> None:
    """The last rating of each person counts; a repeated or an earlier one changes nothing, nor does the log's end."""
    rates(ratings, "like", 1)
    rates(ratings, "dislike", 2, person="p2")
    store.save([entry()], log=True)
    assert total(sql_url, "likes", "dislikes") == (1, 1)

    rates(ratings, "like", 1)
    rates(ratings, "dislike", 3)
    rates(ratings, "like", 2)
    rates(ratings, "", 4, person="p2")
    store.delete_log(AT + timedelta(days=1))
    assert total(sql_url, "likes", "dislikes") == (0, 1)

    rates(ratings, "like", 5)
    rates(ratings, "like", 6, person="p3")
    assert total(sql_url, "likes", "dislikes") == (2, 0)


def test_ratings_and_counting_at_once_lose_no_rating(
    store: SqlUsageStore, ratings: SqlFeedbackStore, sql_url: str
) -> None:
    """Twelve people rate while two replicas count the stream."""
    stores = [SqlFeedbackStore(sql_url) for _ in range(12)]
    others = [SqlUsageStore(sql_url) for _ in range(2)]
    calls: list[Callable[[], Any]] = [partial(rates, s, "like", 1, person=f"p{n}") for n, s in enumerate(stores)]
    calls += [partial(one.save, [entry()], log=True) for one in others]
    random.shuffle(calls)

    assert not [done for done in at_once(calls) if isinstance(done, Exception)]

    store.save([entry()], log=True)
    assert total(sql_url, "questions", "likes") == (1, 12)
    for rating_store in stores:
        rating_store.close()
    for usage_store in others:
        usage_store.close()


def test_the_log_can_be_off(store: SqlUsageStore, sql_url: str) -> None:
    """The sums are the same without it."""
    store.save([entry()], log=False)

    assert rows(sql_url) == []
    assert total(sql_url, "questions", "tokens") == (1, 30)


def test_what_is_old_goes_some_at_a_time(store: SqlUsageStore, sql_url: str) -> None:
    """First the words, then the rows; later ones stay, and the sums do not change."""
    words = {"question": "年假", "answer": "五天", "files": [], "has_words": 1}
    old = [entry(f"o{n:04}", time=AT - timedelta(days=1), **words) for n in range(AT_ONCE + 1)]
    store.save([*old, entry("new", **words)], log=True)

    assert [store.forget_words(AT) for _ in range(3)] == [AT_ONCE, 1, 0]
    assert [row["stream_id"] for row in rows(sql_url) if row["question"]] == ["new"]
    assert [store.delete_log(AT) for _ in range(3)] == [AT_ONCE, 1, 0]

    assert [row["stream_id"] for row in rows(sql_url)] == ["new"]
    assert total(sql_url, "questions") == (AT_ONCE + 2,)


def test_counted_streams_are_kept_while_they_can_be_rated(
    store: SqlUsageStore, ratings: SqlFeedbackStore, sql_url: str, clock: FakeClock
) -> None:
    """A rating prolongs that; after it the rows go."""
    clock.now = datetime.now(UTC).timestamp() - (KEPT_DAYS + 1) * 86_400
    early = SqlUsageStore(sql_url, clock=lambda: clock.now)
    early.save([entry("s1"), entry("s2")], log=True)
    rates(ratings, "like", 1, stream_id="s2")

    assert [store.delete_streams(), store.delete_streams()] == [1, 0]

    assert [row["stream_id"] for row in rows(sql_url, STREAMS)] == ["s2"]
    rates(ratings, "dislike", 2, stream_id="s2")
    assert total(sql_url, "questions", "likes", "dislikes") == (2, 0, 1)
    early.close()


def test_names_that_are_too_long_are_cut(store: SqlUsageStore, sql_url: str) -> None:
    """At a whole character, so that no name stops the count."""
    store.save([entry(department="部" * 400, model="m" * 999, outcome="x" * 300, caller="k" * 999)], log=True)

    (row,) = rows(sql_url)
    assert (row["department"], len(row["model"]), len(row["caller"])) == ("部" * 85, 255, 255)
    assert total(sql_url, "questions") == (1,)
