"""The embedded Redis as a server; that it replies like a real one is shown by the tests marked `every_redis`."""

from __future__ import annotations

import threading

import pytest
import redis

from demo.embedded_redis import EmbeddedRedis
from tests.support.servers.processes import redis_client_for, wait_until


def test_connections_are_bounded() -> None:
    """A client beyond the limit is rejected, and is accepted once another has disconnected."""
    with EmbeddedRedis(max_connections=2) as server:
        first, second, third = (redis_client_for(server.url) for _ in range(3))
        assert first.ping()
        assert second.ping()

        with pytest.raises(redis.RedisError):
            third.ping()
        first.close()

        assert wait_until(lambda: _pings(third))
        second.close()
        third.close()


def test_a_closed_server_leaves_nothing_behind() -> None:
    """Closing drops open connections, ends every thread and frees the port."""
    before = set(threading.enumerate())
    server = EmbeddedRedis()
    server.start()
    client = redis_client_for(server.url)
    client.set("k", "v")

    server.close()

    with pytest.raises(redis.RedisError):
        client.get("k")
    client.close()
    assert set(threading.enumerate()) <= before
    with EmbeddedRedis(port=server.port) as again:
        assert again.port == server.port


def test_a_server_that_never_started_closes() -> None:
    """Closing before start raises nothing."""
    EmbeddedRedis().close()


def _pings(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False
