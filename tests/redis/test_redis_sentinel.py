"""A master that Sentinels name: with some Sentinels away or behind, connections still find the right server in time."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from services.errors import StoreUnavailable
from services.redis.store import Call, ScriptRunner, connect
from tests.support.servers.processes import RedisServer, free_port, wait_until
from tests.support.servers.redis_setups import Sentinel, sentinel_url

#: The 2 seconds of a callback, and half a second for a slow test machine.
IN_TIME = 2.5
#: These tests need several real servers, so only `make test-all` runs them.
pytestmark = pytest.mark.full
PORT = Call(None, ("CONFIG", "GET", "port"))


@pytest.fixture(scope="module")
def master() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture(scope="module")
def sentinels(master: RedisServer) -> Iterator[list[Sentinel]]:
    """Three Sentinels that watch one master and never start a failover."""
    with ExitStack() as stack:
        yield [stack.enter_context(Sentinel(master.port, quorum=3)) for _ in range(3)]


def port(runner: ScriptRunner) -> int:
    """Return the port of the server that the runner uses."""
    return int(runner.run([PORT])[0][1])


@pytest.mark.parametrize("hung", [1, 2])
def test_hanging_sentinels_do_not_delay_the_first_contact(
    master: RedisServer, sentinels: list[Sentinel], hung: int
) -> None:
    """The answer of the other Sentinels is enough."""
    for sentinel in sentinels[:hung]:
        sentinel.pause()
    try:
        runner = ScriptRunner(connect(sentinel_url(*sentinels), pool_size=1, timeout=1.0))
        began = time.monotonic()

        found = port(runner)

        took = time.monotonic() - began
    finally:
        for sentinel in sentinels[:hung]:
            sentinel.resume()
    print(f"\n{hung} of 3 sentinels hang: the first contact took {took:.2f} s")
    assert found == master.port
    assert took < IN_TIME


def test_without_sentinels_the_last_known_master_serves(master: RedisServer, sentinels: list[Sentinel]) -> None:
    """New connections use the last known master: unreachable Sentinels do not mean that it is away."""
    client = connect(sentinel_url(*sentinels), pool_size=2, timeout=1.0)
    runner = ScriptRunner(client)
    wait_until(lambda: answers(runner))
    for sentinel in sentinels:
        sentinel.pause()
    try:
        client.connection_pool.disconnect()
        began = time.monotonic()

        found = [port(runner) for _ in range(3)]

        took = time.monotonic() - began
    finally:
        for sentinel in sentinels:
            sentinel.resume()
    assert found == [master.port] * 3
    assert took < IN_TIME


def answers(runner: ScriptRunner) -> bool:
    try:
        runner.ping()
    except StoreUnavailable:
        return False
    return True


def test_unreachable_sentinels_are_an_error() -> None:
    """The error comes in time, and names the service."""
    url = f"redis+sentinel://127.0.0.1:{free_port()},127.0.0.1:{free_port()}/main"
    began = time.monotonic()

    with pytest.raises(StoreUnavailable, match=r"no sentinel names a master of main: .*refused"):
        port(ScriptRunner(connect(url, pool_size=1)))

    assert time.monotonic() - began < IN_TIME


def test_an_unknown_service_is_an_error(sentinels: list[Sentinel]) -> None:
    """The error quotes the Sentinels."""
    url = sentinel_url(*sentinels).replace("/main/", "/other/")

    with pytest.raises(StoreUnavailable, match="no sentinel names a master of other: No such master"):
        port(ScriptRunner(connect(url, pool_size=1, timeout=10.0)))


def test_sentinels_have_a_password_of_their_own(master: RedisServer) -> None:
    """The Sentinels' password goes only to them; the master gets its own."""
    with Sentinel(master.port, lines=("requirepass fake-secret",)) as sentinel:
        url = sentinel_url(sentinel, query="?sentinel_password=fake-secret")

        assert port(ScriptRunner(connect(url, pool_size=1, timeout=10.0))) == master.port
        with pytest.raises(StoreUnavailable, match="no sentinel names a master of main: Authentication") as caught:
            port(ScriptRunner(connect(sentinel_url(sentinel), pool_size=1, timeout=10.0)))
        assert "fake-secret" not in str(caught.value)


def test_of_differing_sentinels_the_latest_failover_counts(master: RedisServer) -> None:
    """A Sentinel that was cut off names the former master."""
    with RedisServer() as newer, Sentinel(master.port, lines=("sentinel config-epoch main 3",)) as behind:
        epoch = "sentinel config-epoch main 4"
        with Sentinel(newer.port, lines=(epoch,)) as ahead:
            for order in ((behind, ahead), (ahead, behind)):
                runner = ScriptRunner(connect(sentinel_url(*order), pool_size=1, timeout=10.0))
                assert port(runner) == newer.port


def test_connections_to_the_former_master_are_replaced_at_once(master: RedisServer) -> None:
    """After one connection has found the new master, the others do not wait for the old one, which may hang."""
    with RedisServer() as old, RedisServer() as new, ExitStack() as stack:
        sentinel = stack.enter_context(Sentinel(old.port, lines=("sentinel config-epoch main 1",)))
        runner = ScriptRunner(connect(sentinel_url(sentinel), pool_size=8, timeout=1.0))
        busy(runner, 8)
        sentinel_port = sentinel.port
        sentinel.close()
        stack.enter_context(Sentinel(new.port, lines=("sentinel config-epoch main 2",), port=sentinel_port))
        old.pause()

        with pytest.raises(StoreUnavailable):
            port(runner)
        wait_until(lambda: answers(runner))
        began = time.monotonic()
        found = busy(runner, 8)
        took = time.monotonic() - began

        old.resume()
    assert found == [new.port] * 8
    assert took < IN_TIME


def busy(runner: ScriptRunner, count: int) -> list[int]:
    """Use `count` connections at once; return the ports of their servers."""
    ports: list[int] = []
    together = threading.Barrier(count, timeout=60.0)

    def use() -> None:
        together.wait()
        # Long enough for all connections to be in use at once.
        _, found = runner.run([Call(None, ("EVAL", BUSY, "0")), PORT])
        ports.append(int(found[1]))

    threads = [threading.Thread(target=use) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60.0)
    return ports


#: Keeps the server busy for 20 ms, so that the clients need separate connections.
BUSY = "local t = redis.call('TIME') repeat local n = redis.call('TIME') until (n[1]-t[1])*1000000+n[2]-t[2] > 20000"
