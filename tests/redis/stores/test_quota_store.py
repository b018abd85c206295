"""The counters of quotas: a question is taken and settled once, and never beyond a limit."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from zoneinfo import ZoneInfo

import pytest

from services.redis.store import Call, ScriptRunner
from services.rules.quota_store import KEPT_SECONDS, Place, QuotaStore, Used
from services.rules.quotas import Counter, period

NOW = 1_700_000_000.0
COUNTER = Counter("person", '["zhangsan"]', "day", questions=3, tokens=100)


@pytest.fixture
def store(runner: ScriptRunner) -> QuotaStore:
    return QuotaStore(runner, secret=b"s", stream_ttl=1800.0, now=str(NOW))


@pytest.fixture
def place(store: QuotaStore) -> Place:
    return place_of(store)


def place_of(store: QuotaStore, counter: Counter = COUNTER) -> Place:
    return store.place(counter, period(counter.unit, NOW, ZoneInfo("Asia/Shanghai")))


def takes(store: QuotaStore, place: Place, *stream_ids: str) -> list[int]:
    return [reply[0] for reply in store.run([store.take_call(place, one) for one in stream_ids])]


def settles(store: QuotaStore, place: Place, stream_id: str, *, asked: bool = True, tokens: int = 0) -> int:
    reply: int = store.run([store.settle_call(place.key, stream_id, asked=asked, tokens=tokens)])[0]
    return reply


def count(store: QuotaStore, place: Place) -> tuple[int, int, int]:
    """Return questions, tokens, and streams that hold a question."""
    (used,) = store.used([place])
    return used.questions, used.tokens, used.held


def test_a_stream_takes_and_settles_once(store: QuotaStore, place: Place) -> None:
    """Also where the call is sent again, and where the message is delivered again after the end."""
    assert takes(store, place, "s1", "s1") == [1, 2]
    assert [settles(store, place, "s1", tokens=40) for _ in range(2)] == [1, 0]
    assert takes(store, place, "s1") == [2]
    assert count(store, place) == (1, 40, 0)


def test_a_question_that_was_not_asked_is_counted_no_more(store: QuotaStore, place: Place) -> None:
    takes(store, place, "s1", "s2")

    assert [settles(store, place, "s1", asked=False) for _ in range(2)] == [1, 0]
    assert count(store, place) == (1, 0, 1)


def test_a_full_counter_refuses(store: QuotaStore, place: Place) -> None:
    """By its questions, running ones included; by its tokens, once they are used."""
    assert takes(store, place, "s1", "s2", "s3", "s4") == [1, 1, 1, 0]
    settles(store, place, "s1", asked=False)
    assert takes(store, place, "s5") == [1]

    tokens = place_of(store, Counter("person", "x", "day", tokens=100))
    assert takes(store, tokens, "s1", "s2") == [1, 1]
    settles(store, tokens, "s1", tokens=150)
    assert takes(store, tokens, "s3") == [0]
    settles(store, tokens, "s2", tokens=7)
    assert store.used([tokens]) == [Used(2, 157, None, 100, 0)]


def test_a_limit_of_none_refuses_everything(store: QuotaStore) -> None:
    assert takes(store, place_of(store, Counter("person", "x", "day", questions=0)), "s1") == [0]


def test_a_hundred_at_once_are_not_one_too_many(runner: ScriptRunner, store: QuotaStore) -> None:
    place = place_of(store, Counter("total", "x", "minute", questions=10))

    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda at: takes(store, place, f"s{at}")[0], range(100)))

    assert (replies.count(1), replies.count(0), count(store, place)) == (10, 90, (10, 0, 10))


def test_what_nobody_settles_stays_counted_but_is_held_no_longer(runner: ScriptRunner, store: QuotaStore) -> None:
    """So that a limit is not exceeded where a question was asked and all of its owners were lost."""
    place = place_of(store)
    takes(store, place, "s1")
    store.now = str(NOW + 1861.0)

    assert takes(store, place, "s2") == [1]
    assert count(store, place) == (2, 0, 1)
    assert settles(store, place, "s1") == 0


def test_keys_live_until_a_day_after_the_period(runner: ScriptRunner, store: QuotaStore, place: Place) -> None:
    takes(store, place, "s1")
    settles(store, place, "s1")

    names = [f"{{dify_quota:{place.key}}}:{part}" for part in ("used", "held")]
    left = runner.run([Call(None, ("PTTL", name)) for name in names])
    wanted = 1000 * (place.period.end + KEPT_SECONDS - NOW)
    assert all(wanted - 60_000 < ms <= wanted for ms in left)
