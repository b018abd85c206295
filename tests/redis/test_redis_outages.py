"""When Redis may lack writes that were shown: a key's node is away, or a failover has just replaced it."""

from __future__ import annotations

import pytest
import redis

from services.errors import StoreUnavailable
from services.redis.outages import CROWD_SECONDS, FAILOVER_SECONDS, PAUSE_SECONDS, QUIET_SECONDS, Outages
from tests.support.servers.processes import FakeClock
from utils.running_time import MOST, RunningClock

AWAY = StoreUnavailable("gone")


def test_an_outage_concerns_its_node_until_it_is_back(clock: FakeClock) -> None:
    """The node stays of concern for QUIET_SECONDS more."""
    outages = Outages(clock)
    assert not outages.concern("a")

    outages.note({"a": AWAY}, lambda: ["a"])
    clock.advance(100.0)
    assert outages.concern("a")
    outages.note({"a": None}, lambda: ["a"])

    assert not outages.concern("a")


def test_a_success_right_after_a_failure_does_not_end_the_outage(clock: FakeClock) -> None:
    """A node that rejects writes still answers reads."""
    outages = Outages(clock)
    outages.note({"a": AWAY}, lambda: ["a"])

    clock.advance(QUIET_SECONDS / 2)
    outages.note({"a": None}, lambda: ["a"])

    assert outages.concern("a")


def test_a_nodes_outage_concerns_the_others_only_while_its_keys_may_move(clock: FakeClock) -> None:
    """A node that is away for hours does not affect readers of streams on other nodes."""
    outages = Outages(clock)

    outages.note({"a": AWAY, "b": None}, lambda: ["a", "b"])

    assert outages.concern("b")
    clock.advance(FAILOVER_SECONDS)
    assert not outages.concern("b")
    assert outages.concern("a")


def test_a_full_pool_is_no_outage_and_logged_once_a_period(clock: FakeClock, caplog: pytest.LogCaptureFixture) -> None:
    """Threads that wait for a connection are no sign of an outage; the period is CROWD_SECONDS."""
    outages = Outages(clock)

    for _ in range(5):
        outages.crowded()
    clock.advance(CROWD_SECONDS + 1)
    outages.crowded()

    assert caplog.messages == ["all connections to redis are in use"] * 2
    assert not outages.concern("a")


def test_what_times_out_because_this_process_was_stopped_is_no_outage(
    clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    """The time of a call ran on meanwhile; a Redis that does not answer is noted PAUSE_SECONDS after the pause."""
    running, late = RunningClock(clock), StoreUnavailable("late")
    late.__cause__ = redis.TimeoutError()
    outages = Outages(clock, running)
    running.tick()
    clock.advance(MOST + 60.0)
    outages.note({"a": late}, lambda: ["a"])
    running.tick()

    clock.advance(PAUSE_SECONDS / 2)
    outages.note({"a": late}, lambda: ["a"])
    assert (caplog.messages, outages.concern("a")) == ([], False)

    clock.advance(PAUSE_SECONDS / 2)
    outages.note({"a": late}, lambda: ["a"])
    assert (caplog.messages, outages.concern("a")) == (["redis is away"], True)


def test_another_failure_after_a_pause_is_an_outage(clock: FakeClock) -> None:
    """Redis may have lost writes that were shown: a pause says nothing of that."""
    running = RunningClock(clock)
    outages = Outages(clock, running)
    running.tick()
    clock.advance(MOST + 60.0)

    outages.note({"a": AWAY}, lambda: ["a"])

    assert outages.concern("a")
