"""The lease of a bot's long connection: one holder, a fence that only grows, handover and eviction."""

from __future__ import annotations

import pytest
import redis

from services.errors import StoreUnavailable
from services.redis.store import ScriptRunner, connect
from services.wecom.long_connection.lease_store import LEASE, LOOKED, PAUSED, HeldLease, LeaseStore, lease_key
from tests.support.servers.processes import RedisServer, wait_until

NOW = 1_700_000_000.0


class Clock:
    """Leases of one bot at times after NOW."""

    def __init__(self, runner: ScriptRunner) -> None:
        self._runner = runner

    def at(self, seconds: float) -> LeaseStore:
        return LeaseStore(self._runner, now=f"{NOW + seconds:.3f}")


@pytest.fixture
def clock(runner: ScriptRunner) -> Clock:
    return Clock(runner)


def test_a_lease_has_one_holder_until_it_ends(clock: Clock) -> None:
    """A second replica gets the lease when its holder has not renewed it, with a greater fence."""
    first = clock.at(0).take("hr", "a")

    assert first
    assert not clock.at(0).take("hr", "b")
    assert clock.at(2).renew("hr", "a", first)
    assert not clock.at(LEASE + 1).take("hr", "b")
    assert clock.at(LEASE + 2).take("hr", "b") > first


def test_bots_have_leases_of_their_own(clock: Clock) -> None:
    """The lease of one bot says nothing about another bot."""
    assert clock.at(0).take("hr", "a")
    assert clock.at(0).take("it", "b")


def test_a_holder_that_was_paused_changes_nothing(clock: Clock) -> None:
    """After another replica took the lease, the former holder neither renews it nor gives it back."""
    first = clock.at(0).take("hr", "a")
    second = clock.at(LEASE).take("hr", "b")

    assert not clock.at(LEASE).renew("hr", "a", first, subscribed="1")
    assert not clock.at(LEASE).give_back("hr", "a", first, evicted="evicted")

    state = clock.at(LEASE).look("hr")
    assert (state.holder, state.fence, state.is_held) == ("b", second, True)
    assert (state.subscribed, state.evicted) == (False, "")


def test_a_late_renewal_keeps_a_lease_that_nobody_took(clock: Clock) -> None:
    """Over an outage of Redis the holder keeps its lease, and its connection."""
    fence = clock.at(0).take("hr", "a")

    assert clock.at(100).renew("hr", "a", fence)

    assert not clock.at(101).take("hr", "b")


def test_the_lease_of_a_leaving_holder_is_free(clock: Clock) -> None:
    """A successor takes it at once and is not taken for leaving itself."""
    first = clock.at(0).take("hr", "a")
    clock.at(1).renew("hr", "a", first, leaving="1", subscribed="1")

    assert clock.at(1).take("hr", "b") > first

    state = clock.at(1).look("hr")
    assert (state.holder, state.leaving, state.subscribed) == ("b", False, False)


def test_a_lease_that_was_given_back_is_free(clock: Clock) -> None:
    """The next start subscribes at once."""
    first = clock.at(0).take("hr", "a")

    assert clock.at(1).give_back("hr", "a", first, problem="853000")

    state = clock.at(1).look("hr")
    assert (state.is_held, state.problem) == (False, "853000")
    assert clock.at(1).take("hr", "b") > first


@pytest.mark.parametrize(("retry", "free"), [(0.0, False), (59.0, True), (61.0, False)])
def test_an_evicted_bot_is_not_taken_before_its_time(clock: Clock, retry: float, free: bool) -> None:
    """After an eviction the lease is free once `retry` seconds have passed; 0 stands for never."""
    fence = clock.at(0).take("hr", "a")
    assert clock.at(1).give_back("hr", "a", fence, evicted="evicted")

    assert not clock.at(2).take("hr", "b", retry=retry)
    assert bool(clock.at(61).take("hr", "b", retry=retry)) is free
    assert clock.at(61).look("hr").evicted == ("" if free else "evicted")


def test_an_evicted_bot_is_taken_after_its_resume(clock: Clock) -> None:
    """`resume` frees the lease, and the new holder can be evicted again."""
    fence = clock.at(0).take("hr", "a")
    clock.at(1).give_back("hr", "a", fence, evicted="evicted")

    clock.at(2).resume("hr")

    assert clock.at(2).take("hr", "b") > fence
    assert clock.at(2).look("hr").evicted == ""


def test_a_lease_that_redis_lost_is_written_again(clock: Clock, redis_client: redis.Redis) -> None:
    """The holder's renewal restores holder, fence and fields, so that no other replica takes the lease."""
    fence = clock.at(0).take("hr", "a")
    redis_client.delete(lease_key("hr"))
    clock.at(1).look("hr", stands_by=True)

    assert clock.at(1).renew("hr", "a", fence, subscribed="1")

    state = clock.at(1).look("hr")
    assert (state.holder, state.fence, state.subscribed) == ("a", fence, True)
    assert not clock.at(2).take("hr", "b")


def test_a_fence_grows_over_a_redis_that_lost_it(clock: Clock, redis_client: redis.Redis) -> None:
    """Also with a clock that was set back: then the fence that the taker has seen is the measure."""
    first = clock.at(0).take("hr", "a")
    redis_client.delete(lease_key("hr"))

    second = clock.at(0.001).take("hr", "b")
    redis_client.delete(lease_key("hr"))

    assert first < second < clock.at(-3600).take("hr", "c", after=second)


def test_an_evicted_lease_that_redis_lost_is_not_restored(clock: Clock, redis_client: redis.Redis) -> None:
    """Without the lease it is unknown which program evicted the other: the replica does not stop the bot."""
    fence = clock.at(0).take("hr", "a")
    redis_client.delete(lease_key("hr"))

    assert not clock.at(1).give_back("hr", "a", fence, evicted="evicted")


def test_a_lease_from_before_the_clock_was_set_back_is_free(clock: Clock) -> None:
    """A holder that died with an end far in the future does not keep the bot away for hours."""
    first = clock.at(3600).take("hr", "a")

    assert clock.at(0).take("hr", "b") > first


def test_a_look_shows_whether_a_successor_waits(clock: Clock) -> None:
    """Only a replica that could take the lease counts, for some seconds after its last look."""
    clock.at(0).take("hr", "a")
    clock.at(1).look("hr")
    assert not clock.at(1).look("hr").has_successor

    clock.at(1).look("hr", stands_by=True)

    assert clock.at(LOOKED).look("hr").has_successor
    assert not clock.at(LOOKED + 1).look("hr").has_successor


def test_a_holder_that_ended_while_it_connected_may_come_back(clock: Clock) -> None:
    """For an hour, also where the lease has gone on to a third replica, and unless it was done with connecting."""
    first = clock.at(0).take("hr", "a")
    clock.at(1).renew("hr", "a", first, connecting="1")
    second = clock.at(LEASE + 2).take("hr", "b")
    assert clock.at(LEASE + 2).look("hr").has_paused_holder

    clock.at(LEASE + 2).renew("hr", "b", second, connecting="1")
    clock.at(LEASE + 2).give_back("hr", "b", second, connecting="")
    third = clock.at(LEASE + 3).take("hr", "c")
    assert clock.at(PAUSED).look("hr").has_paused_holder
    assert not clock.at(PAUSED + LEASE + 3).look("hr").has_paused_holder

    clock.at(LEASE + 3).renew("hr", "c", third, paused="")
    assert not clock.at(LEASE + 3).look("hr").has_paused_holder


class TestHeldLease:
    def test_it_is_renewed_until_it_is_given_back(self, runner: ScriptRunner) -> None:
        """Fields are written soon and stay; after `give_back` nothing renews the lease."""
        store = LeaseStore(runner)
        lease = HeldLease(store, "hr", "a", store.take("hr", "a"), renewal=0.02)
        lease.start()
        ends = store.look("hr").expires

        lease.note(subscribed="1")
        wait_until(lambda: store.look("hr").subscribed)
        wait_until(lambda: store.look("hr").expires > ends)

        assert lease.give_back()
        assert not lease.give_back()
        assert not lease.confirm()
        assert not store.look("hr").is_held

    def test_it_is_gone_when_another_replica_has_it(self, runner: ScriptRunner, redis_client: redis.Redis) -> None:
        """The renewal that is refused says so, and a former holder writes no lease that Redis has lost."""
        store = LeaseStore(runner)
        lease = HeldLease(store, "hr", "a", store.take("hr", "a"))
        lease.start()
        lease.note(leaving="1")
        wait_until(lambda: store.look("hr").leaving)

        assert store.take("hr", "b")

        assert not lease.confirm()
        assert lease.gone.is_set()

        redis_client.delete("dify_long_connection:hr")
        assert not lease.confirm()
        assert not redis_client.exists("dify_long_connection:hr")

    def test_it_outlives_an_outage_of_redis(self) -> None:
        """The holder is told nothing while Redis is away, and renews once it answers."""
        with RedisServer() as server:
            client = connect(server.url(), pool_size=2)
            store = LeaseStore(ScriptRunner(client))
            lease = HeldLease(store, "hr", "a", store.take("hr", "a"), renewal=0.02)
            lease.start()

            server.pause()
            lease.note(subscribed="1")
            with pytest.raises(StoreUnavailable):
                lease.confirm()
            assert not lease.gone.is_set()
            server.resume()

            wait_until(lambda: store.look("hr").subscribed)
            assert lease.give_back()
            client.close()
