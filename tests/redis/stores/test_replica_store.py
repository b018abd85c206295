"""The registry of replicas: each is listed while it notes itself, and forgotten soon after."""

from __future__ import annotations

from dataclasses import replace

import pytest
import redis

from services.ops.replica_store import KEY, LIFE_SECONDS, ReplicaStore, RunningReplica
from services.redis.store import ScriptRunner
from tests.support.servers.processes import FakeClock

pytestmark = pytest.mark.every_redis


class Noted:
    """A replica whose state a test sets."""

    def __init__(self, runner: ScriptRunner, clock: FakeClock, name: str) -> None:
        self.state = RunningReplica(name, "0.1.0", since=1.5, draining=False, answers=0, capacity=500)
        self.store = ReplicaStore(runner, lambda: self.state, now=lambda: str(clock()))


def test_a_replica_is_listed_until_its_note_is_over(
    runner: ScriptRunner, redis_client: redis.Redis, clock: FakeClock
) -> None:
    """The one that lists comes first, with the others as they were at their last note."""
    one, other = Noted(runner, clock, "pod-2:7"), Noted(runner, clock, "pod-1:7")
    other.state = replace(other.state, draining=True, answers=3)
    other.store.note()

    assert one.store.all() == [one.state, other.state]
    clock.advance(LIFE_SECONDS - 0.5)
    assert one.store.all() == [one.state, other.state]
    clock.advance(1.0)
    assert one.store.all() == [one.state]
    assert redis_client.hkeys(KEY) == ["pod-2:7"]
    assert 0 < int(str(redis_client.pttl(KEY))) <= 60_000


def test_a_note_of_another_version_is_read(runner: ScriptRunner, redis_client: redis.Redis, clock: FakeClock) -> None:
    """It may have further fields."""
    one = Noted(runner, clock, "pod-1:7")
    one.store.note()
    note = str(redis_client.hget(KEY, "pod-1:7"))
    redis_client.hset(KEY, "pod-2:7", note.replace("{", '{"zone": "a", '))

    assert one.store.all()[1] == replace(one.state, name="pod-2:7")
