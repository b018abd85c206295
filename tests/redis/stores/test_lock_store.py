"""A lock has one holder, ends by itself, and only its holder gives it back."""

from __future__ import annotations

import pytest
import redis

from services.errors import StoreUnavailable
from services.redis.lock_store import LockStore
from services.redis.store import ScriptRunner
from tests.support.servers.processes import RedisServer, free_port, redis_client_for, wait_until


def test_a_lock_has_one_holder(runner: ScriptRunner) -> None:
    """A second caller gets nothing until the first gives it back."""
    locks = LockStore(runner)

    token = locks.acquire("auth:zhangsan", 30.0)
    assert token
    assert locks.acquire("auth:zhangsan", 30.0) is None
    assert locks.release("auth:zhangsan", token)

    assert locks.acquire("auth:zhangsan", 30.0)


def test_locks_of_other_names_are_free(runner: ScriptRunner, redis_client: redis.Redis) -> None:
    """A lock holds its own name only, under the documented key and with a life."""
    locks = LockStore(runner)

    assert locks.acquire("a", 30.0)
    assert locks.acquire("b", 30.0)

    assert 0 < redis_client.pttl("dify_lock:a") <= 30_000


def test_a_lock_ends_by_itself(runner: ScriptRunner) -> None:
    """A dead holder's lock is free after its life."""
    locks = LockStore(runner)
    locks.acquire("a", 0.05)

    wait_until(lambda: locks.acquire("a", 30.0))


def test_a_late_holder_does_not_free_the_next_ones_lock(runner: ScriptRunner, redis_client: redis.Redis) -> None:
    """Releasing with another's token changes nothing and says so."""
    locks = LockStore(runner)
    token = locks.acquire("a", 30.0)

    assert not locks.release("a", "the token of one before")

    assert redis_client.get("dify_lock:a") == token


def test_a_release_survives_lost_scripts(runner: ScriptRunner, redis_client: redis.Redis) -> None:
    """A Redis that forgot its scripts, as after a failover, runs the release all the same."""
    locks = LockStore(runner)

    for _ in range(2):
        token = locks.acquire("a", 30.0)
        assert token
        redis_client.script_flush()
        assert locks.release("a", token)


def test_no_redis_is_store_unavailable() -> None:
    """A refused connection is our error, not redis-py's."""
    with redis_client_for(f"redis://:obviously-fake@127.0.0.1:{free_port()}/0") as client:
        locks = LockStore(ScriptRunner(client))

        with pytest.raises(StoreUnavailable) as caught:
            locks.acquire("a", 30.0)
        with pytest.raises(StoreUnavailable):
            locks.release("a", "token")

    assert "obviously-fake" not in str(caught.value)


def test_a_redis_that_refuses_writes_is_store_unavailable() -> None:
    """A full Redis is our error, without the command it refused."""
    with (
        RedisServer(options=("--maxmemory", "1", "--maxmemory-policy", "noeviction")) as server,
        server.client() as client,
        pytest.raises(StoreUnavailable, match="redis refused") as caught,
    ):
        LockStore(ScriptRunner(client)).acquire("obviously-fake", 30.0)

    assert "obviously-fake" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_a_frozen_redis_is_store_unavailable() -> None:
    """A Redis that accepts and never answers costs one timeout."""
    with RedisServer() as server, server.client(socket_timeout=0.2) as client:
        client.ping()
        server.pause()

        with pytest.raises(StoreUnavailable, match="redis: "):
            LockStore(ScriptRunner(client)).acquire("a", 30.0)
