"""Leases of lanes: one holder each, free after lease and grace, and kept through an outage of Redis."""

from __future__ import annotations

import pytest
import redis

from services.batches.lanes_store import ANNOUNCED, LEASE, LIFE, BatchLanesStore
from services.redis.store import ScriptRunner

#: Seconds: longer than the lease, and longer than the grace.
LAPSED, RIPE = LEASE + 0.1, 3.1


@pytest.fixture
def lanes(runner: ScriptRunner) -> BatchLanesStore:
    return at(BatchLanesStore(runner, lanes=3, worker="one"), 1000.0)


def at(lanes: BatchLanesStore, now: float) -> BatchLanesStore:
    """Set the clock of the store's scripts to `now`, and return the store."""
    lanes.now = str(now)
    return lanes


def test_a_lane_has_one_holder(lanes: BatchLanesStore) -> None:
    """A second worker gets nothing; the holder, whose reply may have been lost, may take the lane again."""
    assert lanes.take(0, "a")

    assert not lanes.take(0, "b")
    assert lanes.take(0, "a")
    assert lanes.take(1, "b")


def test_a_released_lane_is_free_at_once(lanes: BatchLanesStore) -> None:
    """Only its holder can release it."""
    lanes.take(0, "a")

    assert lanes.release({0: "b"}) == 0
    assert not lanes.take(0, "b")
    assert lanes.release({0: "a", 1: "a"}) == 1

    assert lanes.take(0, "b")


def test_a_dead_holders_lane_is_free_after_lease_and_grace(lanes: BatchLanesStore) -> None:
    """The first take after the lease only marks the lane; a take succeeds when the mark is as old as the grace."""
    lanes.take(0, "a")

    assert not at(lanes, 1000.0 + LEASE - 0.1).take(0, "b")
    assert not at(lanes, 1000.0 + LAPSED).take(0, "b")
    assert not at(lanes, 1000.0 + LAPSED + 2.9).take(0, "b")
    assert at(lanes, 1000.0 + LAPSED + RIPE).take(0, "b")


def test_a_holder_that_outlived_an_outage_keeps_its_lane(lanes: BatchLanesStore) -> None:
    """Its first renewal clears the mark, and the next take after the lease sets a new one."""
    lanes.take(0, "a")
    assert not at(lanes, 1100.0).take(0, "b")

    assert at(lanes, 1102.0).renew({0: "a"}) == (1, [])

    assert not at(lanes, 1104.0).take(0, "b")
    assert not at(lanes, 1102.0 + LAPSED).take(0, "b")
    assert at(lanes, 1102.0 + LAPSED + RIPE).take(0, "b")


@pytest.mark.every_redis
def test_a_renewal_reports_a_lane_that_another_worker_took(lanes: BatchLanesStore) -> None:
    """The renewal of a lost lane changes nothing, and the worker's other lanes are renewed."""
    for lane in (0, 1, 2):
        lanes.take(lane, "a")
    at(lanes, 1020.0).take(1, "b")
    at(lanes, 1024.0).take(1, "b")

    assert lanes.renew({0: "a", 1: "a", 2: "a"}) == (1, [1])

    assert not lanes.take(0, "b")
    assert lanes.release({1: "a"}) == 0


def test_the_next_renewal_restores_a_lane_that_redis_lost(lanes: BatchLanesStore, redis_client: redis.Redis) -> None:
    """A lane without a known holder goes to the worker that renews it."""
    lanes.take(0, "a")
    for key in redis_client.keys("{dify_batch}*"):
        redis_client.delete(key)

    assert lanes.renew({0: "a"}) == (1, [])

    assert not lanes.take(0, "b")


def test_a_look_reports_free_held_and_suspect_lanes(lanes: BatchLanesStore) -> None:
    """A silent holder's lane counts as suspect until the grace is over, and then as free."""
    lanes.take(0, "a")
    at(lanes, 1005.0).take(2, "b")

    at(lanes, 1000.0 + LAPSED)
    assert [lanes.look().free, lanes.look().held, lanes.look().suspect] == [(1,), 1, 1]
    at(lanes, 1000.0 + LAPSED + RIPE)
    assert [lanes.look().free, lanes.look().held, lanes.look().suspect] == [(0, 1), 1, 0]

    assert lanes.take(0, "c")


def test_a_look_is_unsure_after_redis_lost_its_data(lanes: BatchLanesStore, redis_client: redis.Redis) -> None:
    """It is unsure for half a lease, the time in which every living holder renews."""
    for key in redis_client.keys("{dify_batch}*"):
        redis_client.delete(key)

    assert lanes.look().unsure
    at(lanes, 1000.0 + LEASE / 3).renew({})
    assert lanes.look().unsure
    at(lanes, 1000.1 + LEASE / 2)
    assert not lanes.look().unsure

    assert lanes.look().free == (0, 1, 2)


def test_workers_count_while_they_renew(lanes: BatchLanesStore, runner: ScriptRunner) -> None:
    """A worker without lanes counts too; one that leaves, or is silent for a lease, does not."""
    other = at(BatchLanesStore(runner, lanes=3, worker="two"), 1000.0)

    assert lanes.renew({})[0] == 1
    assert other.renew({})[0] == 2
    assert at(lanes, 1000.0 + LAPSED).renew({})[0] == 1
    at(other, 1011.0).renew({})
    assert lanes.look().workers == 2
    assert other.renew({}, leaving=True)[0] == 1

    assert lanes.look().workers == 1


def test_every_key_of_lanes_has_a_ttl(lanes: BatchLanesStore, redis_client: redis.Redis) -> None:
    """All four keys are in one hash slot, and expire within LIFE."""
    lanes.take(0, "a")
    lanes.renew({0: "a"})
    at(lanes, 1000.0 + LAPSED).look()

    keys = [str(key) for key in redis_client.keys("*batch*")]

    assert {key.partition(":")[0] for key in keys} == {"{dify_batch}"}
    assert len(keys) == 4
    assert all(0 < redis_client.pttl(key) <= LIFE * 1000 for key in keys)


def test_each_announcement_is_another_one(lanes: BatchLanesStore, redis_client: redis.Redis) -> None:
    """Every process reads the same one, and without any there is ""."""
    assert lanes.announced() == ""

    lanes.announce()
    first = lanes.announced()
    assert lanes.announced() == first
    lanes.announce()

    assert "" != lanes.announced() != first
    assert redis_client.ttl(ANNOUNCED) > 0
