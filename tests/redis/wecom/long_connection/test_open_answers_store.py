"""The open answers of a bot: kept until they are sent completely, and changed by the holder of its connection only."""

from __future__ import annotations

from typing import Any

import pytest
import redis

from services.redis.client import PoolCrowded
from services.redis.store import ScriptRunner
from services.wecom.long_connection.lease_store import LeaseStore
from services.wecom.long_connection.open_answers_store import MOST_OPEN, FenceRefused, OpenAnswer, OpenAnswersStore
from tests.support.servers.processes import FakeClock

BOT, TTL = "hr", 1800.0
NEW = OpenAnswer(BOT, "s1", "sealed")


def store_at(runner: ScriptRunner, seconds: float = 0.0) -> OpenAnswersStore:
    return OpenAnswersStore(runner, ttl=TTL, now=str(1_700_000_000.0 + seconds))


@pytest.fixture
def store(runner: ScriptRunner) -> OpenAnswersStore:
    return store_at(runner)


@pytest.fixture
def fence(runner: ScriptRunner) -> int:
    """The fence of the bot's lease."""
    return LeaseStore(runner).take(BOT, "a")


@pytest.mark.every_redis
def test_an_answer_is_open_until_it_is_closed(store: OpenAnswersStore, runner: ScriptRunner, fence: int) -> None:
    """The oldest is served first; a message that comes again changes nothing, also after its answer was sent."""
    assert store_at(runner, 1.0).add(BOT, "s2", "sealed 2")
    assert store.add(BOT, "s1", "sealed")
    assert store.add(BOT, "s1", "of another delivery")
    assert store.open(BOT, fence) == (["s1", "s2"], 0)
    assert store.read(BOT, "s1") == NEW

    store.close(BOT, "s1")
    store.add(BOT, "s1", "of another delivery")

    assert store.open(BOT, fence) == (["s2"], 0)
    assert store.read(BOT, "unknown") is None
    assert "sealed" not in repr(NEW)


@pytest.mark.every_redis
def test_what_has_left_is_read_by_the_next_holder(store: OpenAnswersStore, fence: int) -> None:
    """The finish frame's state, and the message that was claimed last."""
    store.add(BOT, "s1", "sealed")

    sent = store.mark_finish(fence, NEW, "sent")
    assert (store.read(BOT, "s1"), sent.finish) == (sent, "sent")
    claimed = store.mark_messages(fence, store.mark_finish(fence, sent, "done"), 2, unsure=True)
    assert store.read(BOT, "s1") == claimed
    assert store.read(BOT, "s1") == OpenAnswer(BOT, "s1", "sealed", "done", 2, unsure=True)
    known = store.mark_messages(fence, claimed, 2, unsure=False)

    assert (store.read(BOT, "s1"), known.unsure) == (known, False)


@pytest.mark.every_redis
def test_a_former_holder_writes_and_lists_nothing(store: OpenAnswersStore, runner: ScriptRunner, fence: int) -> None:
    """A replica that was paused finds another fence in the lease."""
    store.add(BOT, "s1", "sealed")
    leases = LeaseStore(runner)
    leases.give_back(BOT, "a", fence)
    assert leases.take(BOT, "b") > fence

    with pytest.raises(FenceRefused):
        store.mark_finish(fence, NEW, "sent")
    with pytest.raises(FenceRefused):
        store.mark_messages(fence, NEW, 1, unsure=True)
    with pytest.raises(FenceRefused):
        store.open(BOT, fence)
    assert store.read(BOT, "s1") == NEW


def test_records_expire(store: OpenAnswersStore, runner: ScriptRunner, redis_client: redis.Redis, fence: int) -> None:
    """An answer that nobody could send is counted once; a record that has expired is not written again."""
    store.add(BOT, "s1", "sealed")
    (record,) = redis_client.keys("*:answer:s1")
    assert 0 < redis_client.ttl(record) <= TTL

    redis_client.delete(record)
    with pytest.raises(FenceRefused):
        store.mark_finish(fence, NEW, "sent")
    later = store_at(runner, TTL + 1)

    assert later.open(BOT, fence) == ([], 1)
    assert later.open(BOT, fence) == ([], 0)
    assert not redis_client.exists(record)


def test_a_message_waits_for_a_crowded_pool(
    store: OpenAnswersStore, runner: ScriptRunner, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three waits of half a second found no free connection, while other workers started beside this one."""
    exchange, crowded = runner._target.exchange, [0.5, 0.5, 0.5]

    def exchanged(calls: Any) -> Any:
        replies = exchange(calls)
        if crowded:
            clock.advance(crowded.pop())
            replies.values[0] = PoolCrowded("all connections to redis are in use")
        return replies

    monkeypatch.setattr(runner, "_clock", clock)
    monkeypatch.setattr(runner._target, "exchange", exchanged)

    assert store.add(BOT, "s1", "sealed")
    assert crowded == []


def test_open_answers_are_bounded(store: OpenAnswersStore, redis_client: redis.Redis, fence: int) -> None:
    """A message beyond the bound is not noted; a known one is."""
    store.add(BOT, "s1", "sealed")
    (key,) = redis_client.keys("*:open")
    redis_client.zadd(key, {f"other {number}": 1_700_000_000.0 for number in range(MOST_OPEN - 1)})

    assert not store.add(BOT, "s2", "sealed")
    assert store.add(BOT, "s1", "sealed")
    assert len(store.open(BOT, fence)[0]) == MOST_OPEN
