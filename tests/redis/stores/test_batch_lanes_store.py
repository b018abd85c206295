"""A lane has one holder; a dead one's is free after lease and grace; who outlives an outage of Redis keeps its own."""

from __future__ import annotations

import pytest
import redis

from services.batches.lanes_store import LEASE, LIFE, BatchLanesStore
from services.redis.store import ScriptRunner

#: More than a lease, more than the grace.
LAPSED, RIPE = LEASE + 0.1, 3.1


@pytest.fixture
def lanes(runner: ScriptRunner) -> BatchLanesStore:
    return at(BatchLanesStore(runner, lanes=3, worker="one"), 1000.0)


def at(lanes: BatchLanesStore, now: float) -> BatchLanesStore:
    """Have it be so late by the clock of the steps in Redis."""
    lanes.now = str(now)
    return lanes


def test_a_lane_has_one_holder(lanes: BatchLanesStore) -> None:
    """A second taker gets nothing; the holder, whose reply may have been lost, may take it again."""
    assert lanes.take(0, "a")

    assert not lanes.take(0, "b")
    assert lanes.take(0, "a")
    assert lanes.take(1, "b")


def test_a_lane_that_is_given_back_is_free_at_once(lanes: BatchLanesStore) -> None:
    """Only its holder gives it back."""
    lanes.take(0, "a")

    assert lanes.release({0: "b"}) == 0
    assert not lanes.take(0, "b")
    assert lanes.release({0: "a", 1: "a"}) == 1

    assert lanes.take(0, "b")


def test_a_dead_holders_lane_is_free_after_lease_and_grace(lanes: BatchLanesStore) -> None:
    """Whoever finds the lease over only marks the lane; the mark must be as old as the grace."""
    lanes.take(0, "a")

    assert not at(lanes, 1000.0 + LEASE - 0.1).take(0, "b")
    assert not at(lanes, 1000.0 + LAPSED).take(0, "b")
    assert not at(lanes, 1000.0 + LAPSED + 2.9).take(0, "b")
    assert at(lanes, 1000.0 + LAPSED + RIPE).take(0, "b")


def test_a_holder_that_outlived_an_outage_keeps_its_lane(lanes: BatchLanesStore) -> None:
    """Its first renewal takes the mark away, and the next who finds the lease over begins to count anew."""
    lanes.take(0, "a")
    assert not at(lanes, 1100.0).take(0, "b")

    assert at(lanes, 1102.0).renew({0: "a"}) == (1, [])

    assert not at(lanes, 1104.0).take(0, "b")
    assert not at(lanes, 1102.0 + LAPSED).take(0, "b")
    assert at(lanes, 1102.0 + LAPSED + RIPE).take(0, "b")


@pytest.mark.every_redis
def test_a_holder_learns_that_its_lane_is_anothers(lanes: BatchLanesStore) -> None:
    """Paused for too long, it is told with its next renewal, which changes nothing; its other lanes stay its own."""
    for lane in (0, 1, 2):
        lanes.take(lane, "a")
    at(lanes, 1020.0).take(1, "b")
    at(lanes, 1024.0).take(1, "b")

    assert lanes.renew({0: "a", 1: "a", 2: "a"}) == (1, [1])

    assert not lanes.take(0, "b")
    assert lanes.release({1: "a"}) == 0


def test_what_redis_lost_is_known_again_with_the_next_renewal(
    lanes: BatchLanesStore, redis_client: redis.Redis
) -> None:
    """A lane nobody is known to hold is its holder's."""
    lanes.take(0, "a")
    for key in redis_client.keys("{dify_batch}*"):
        redis_client.delete(key)

    assert lanes.renew({0: "a"}) == (1, [])

    assert not lanes.take(0, "b")


def test_a_look_tells_what_is_free_held_and_suspect(lanes: BatchLanesStore) -> None:
    """A silent holder's lane is counted as suspect at first, and as free when the grace is over."""
    lanes.take(0, "a")
    at(lanes, 1005.0).take(2, "b")

    at(lanes, 1000.0 + LAPSED)
    assert [lanes.look().free, lanes.look().held, lanes.look().suspect] == [(1,), 1, 1]
    at(lanes, 1000.0 + LAPSED + RIPE)
    assert [lanes.look().free, lanes.look().held, lanes.look().suspect] == [(0, 1), 1, 0]

    assert lanes.take(0, "c")


def test_a_look_tells_that_holders_may_be_unknown_yet(lanes: BatchLanesStore, redis_client: redis.Redis) -> None:
    """Until half a lease is over since Redis lost everything; by then who lives has renewed."""
    for key in redis_client.keys("{dify_batch}*"):
        redis_client.delete(key)

    assert lanes.look().unsure
    at(lanes, 1000.0 + LEASE / 3).renew({})
    assert lanes.look().unsure
    at(lanes, 1000.1 + LEASE / 2)
    assert not lanes.look().unsure

    assert lanes.look().free == (0, 1, 2)


def test_workers_count_while_they_renew(lanes: BatchLanesStore, runner: ScriptRunner) -> None:
    """One without lanes counts too; one that leaves, or is silent for a lease, does not."""
    other = at(BatchLanesStore(runner, lanes=3, worker="two"), 1000.0)

    assert lanes.renew({})[0] == 1
    assert other.renew({})[0] == 2
    assert at(lanes, 1000.0 + LAPSED).renew({})[0] == 1
    at(other, 1011.0).renew({})
    assert lanes.look().workers == 2
    assert other.renew({}, leaving=True)[0] == 1

    assert lanes.look().workers == 1


def test_nothing_is_left_of_lanes_nobody_works(lanes: BatchLanesStore, redis_client: redis.Redis) -> None:
    """Every key has a life, and all of them lie in one slot."""
    lanes.take(0, "a")
    lanes.renew({0: "a"})
    at(lanes, 1000.0 + LAPSED).look()

    keys = [str(key) for key in redis_client.keys("*batch*")]

    assert {key.partition(":")[0] for key in keys} == {"{dify_batch}"}
    assert len(keys) == 4
    assert all(0 < redis_client.pttl(key) <= LIFE * 1000 for key in keys)
