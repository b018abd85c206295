"""A lock has one holder, expires by itself, and only its holder can release it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import redis

from services.errors import StoreUnavailable
from services.redis.lock_store import LockStore
from services.redis.store import ScriptRunner
from tests.support.servers.processes import RedisServer, free_port, redis_client_for, wait_until


def test_a_lock_has_one_holder(runner: ScriptRunner) -> None:
    """A second caller gets None until the first releases the lock."""
    locks = LockStore(runner)

    token = locks.acquire("auth:zhangsan", 30.0)
    assert token
    assert locks.acquire("auth:zhangsan", 30.0) is None
    assert locks.release("auth:zhangsan", token)

    assert locks.acquire("auth:zhangsan", 30.0)


def test_locks_of_other_names_are_independent(runner: ScriptRunner, redis_client: redis.Redis) -> None:
    """A lock holds only its own name, under the documented key and with a TTL."""
    locks = LockStore(runner)

    assert locks.acquire("a", 30.0)
    assert locks.acquire("b", 30.0)

    assert 0 < redis_client.pttl("dify_lock:a") <= 30_000


def test_a_lock_expires(runner: ScriptRunner) -> None:
    """A dead holder's lock is free after its TTL."""
    locks = LockStore(runner)
    locks.acquire("a", 0.05)

    wait_until(lambda: locks.acquire("a", 30.0))


def test_a_late_holder_cannot_release_the_next_holders_lock(runner: ScriptRunner, redis_client: redis.Redis) -> None:
    """A release with another token returns False and changes nothing."""
    locks = LockStore(runner)
    token = locks.acquire("a", 30.0)

    assert not locks.release("a", "the token of one before")

    assert redis_client.get("dify_lock:a") == token


def test_a_value_is_made_once(runner: ScriptRunner) -> None:
    """Of concurrent callers one makes the value; the others wait and find it, or get None when their time is over."""
    locks, stored, made = LockStore(runner), list[str](), list[str]()

    def call(name: str, *, patient: bool) -> str | None:
        def make() -> str:
            made.append(name)
            assert call("impatient", patient=False) is None
            with ThreadPoolExecutor(1) as others:
                waiting = others.submit(call, "waiting", patient=True)
                wait_until(lambda: "waiting" in looks)
                stored.append(name)
                # The lock is released only after this returns: the value ends the wait.
                assert waiting.result(30.0) == name
            return name

        def load() -> str | None:
            looks.append(name)
            return stored[0] if stored else None

        return locks.once("a", load=load, make=make, ttl=30.0, over=lambda: not patient)

    looks: list[str] = []

    assert call("first", patient=True) == "first"
    assert made == ["first"]
    assert locks.acquire("a", 30.0), "the lock was released"


def test_a_release_survives_lost_scripts(runner: ScriptRunner, redis_client: redis.Redis) -> None:
    """A Redis without cached scripts, as after a failover, runs the release."""
    locks = LockStore(runner)

    for _ in range(2):
        token = locks.acquire("a", 30.0)
        assert token
        redis_client.script_flush()
        assert locks.release("a", token)


def test_no_redis_is_store_unavailable() -> None:
    """A refused connection raises our error, not redis-py's, and it does not contain the password."""
    with redis_client_for(f"redis://:obviously-fake@127.0.0.1:{free_port()}/0") as client:
        locks = LockStore(ScriptRunner(client))

        with pytest.raises(StoreUnavailable) as caught:
            locks.acquire("a", 30.0)
        with pytest.raises(StoreUnavailable):
            locks.release("a", "token")

    assert "obviously-fake" not in str(caught.value)


def test_a_redis_that_refuses_writes_is_store_unavailable() -> None:
    """A full Redis raises our error, without the command it refused."""
    with (
        RedisServer(options=("--maxmemory", "1", "--maxmemory-policy", "noeviction")) as server,
        server.client() as client,
        pytest.raises(StoreUnavailable, match="redis refused") as caught,
    ):
        LockStore(ScriptRunner(client)).acquire("obviously-fake", 30.0)

    assert "obviously-fake" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_a_frozen_redis_is_store_unavailable() -> None:
    """A Redis that accepts connections but never replies costs one timeout."""
    with RedisServer() as server, server.client(socket_timeout=0.2) as client:
        server.pause()

        with pytest.raises(StoreUnavailable, match="redis: "):
            LockStore(ScriptRunner(client)).acquire("a", 30.0)
