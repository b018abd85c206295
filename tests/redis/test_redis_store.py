"""Access to Redis: timeouts, one round trip for many calls, and one error and one log line per outage."""

from __future__ import annotations

import logging
import select
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from typing import Any

import pytest
import redis

from services import metrics
from services.errors import StoreUnavailable
from services.redis.calls import PACKAGES
from services.redis.store import Call, ScriptRunner, connect, redis_errors, script
from tests.support.servers.processes import FakeClock, RedisServer, free_port, wait_until
from tests.support.streams.turns import count_turns

LOGGER = "services.redis.outages"
OUTAGES, AWAY = "wechatlaibao_redis_outages_total", "wechatlaibao_redis_away"


def command(*words: str) -> Call:
    return Call(None, words)


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    """A client like the product's, with a longer timeout for a slow test machine."""
    client = connect(redis_url, pool_size=4, timeout=10.0)
    yield client
    client.close()


@pytest.fixture
def runner(client: redis.Redis) -> ScriptRunner:
    return ScriptRunner(client)


def test_a_client_connects_when_it_is_first_used() -> None:
    """Nothing connects to Redis while the process starts."""
    client = connect(f"redis://127.0.0.1:{free_port()}/1", pool_size=1)

    with pytest.raises(redis.ConnectionError):
        client.ping()


def test_many_calls_are_one_round_trip(client: redis.Redis, runner: ScriptRunner) -> None:
    """Scripts and plain commands go together, and replies come in call order."""
    runner.load()
    turns = count_turns(client)
    runner.ping()
    turns.clear()

    head = Call(script("head"), ("dify_stream:nobody",), ("",))
    replies = runner.run([command("SET", "k", "v"), head, command("GET", "k"), head])

    assert [bool(replies[0]), *replies[1:]] == [True, None, "v", None]
    assert turns.total() == 1


def test_a_redis_that_lost_its_scripts_gets_them_again(client: redis.Redis, runner: ScriptRunner) -> None:
    """A restart or SCRIPT FLUSH costs one more round trip and loses no reply."""
    runner.load()
    client.script_flush()
    enter = Call(script("enter"), ("dify_user:b:p",), ("100", "s1", 3, 60))

    replies = runner.run([command("SET", "k", "v"), enter, command("GET", "k")])

    assert replies[1:] == [1, "v"]
    assert client.zrange("dify_user:b:p", 0, -1) == ["s1"]


def test_load_loads_every_script(client: redis.Redis, runner: ScriptRunner) -> None:
    """Scripts are loaded before the first question needs them."""
    names = [path.stem for path in PACKAGES.glob("**/lua/*.lua") if path.stem != "prelude"]

    runner.load()

    assert len(names) > 5
    assert client.script_exists(*(script(name).sha for name in names)) == [True] * len(names)


def test_a_rejected_call_is_store_unavailable(client: redis.Redis, runner: ScriptRunner) -> None:
    """One rejected call makes `run` fail; the others may have been carried out."""
    client.lpush("list", "1")

    with pytest.raises(StoreUnavailable, match="WRONGTYPE"):
        runner.run([command("SET", "k", "v"), command("GET", "list")])

    assert client.get("k") == "v"


def test_a_wrongtype_error_can_be_returned_as_a_value(client: redis.Redis, runner: ScriptRunner) -> None:
    """With `mistyped` a WRONGTYPE error is returned as a value; other errors are still raised."""
    client.lpush("list", "1")

    replies = runner.run([command("GET", "list"), command("GET", "nothing")], mistyped=True)

    assert isinstance(replies[0], redis.ResponseError)
    assert replies[1] is None
    with pytest.raises(StoreUnavailable):
        runner.run([command("NONSENSE")], mistyped=True)


def test_each_call_has_its_own_outcome(client: redis.Redis, runner: ScriptRunner) -> None:
    """A rejected call has an error in its place, the others have their replies."""
    client.lpush("list", "1")

    first, refused, last = runner.run_each([command("SET", "k", "v"), command("GET", "list"), command("GET", "k")])

    assert (first, last) == (True, "v")
    assert isinstance(refused, StoreUnavailable)
    assert "WRONGTYPE" in str(refused)


def test_calls_to_a_redis_that_is_away_are_one_error() -> None:
    """Without any reply `run_each` raises; an empty run does not."""
    runner = ScriptRunner(connect(f"redis://127.0.0.1:{free_port()}/1", pool_size=1))

    with pytest.raises(StoreUnavailable, match="ConnectionError"):
        runner.run_each([command("GET", "a"), command("GET", "b")])

    assert runner.run_each([]) == []
    assert runner.run([]) == []


def test_a_call_that_is_sent_once_is_not_sent_again(redis_server: RedisServer, redis_url: str) -> None:
    """`run_each` does not retry by itself: its caller knows which calls may be sent twice."""
    with CuttingProxy(redis_server.port) as proxy:
        client = connect(proxy.url, pool_size=1, timeout=10.0)
        runner = ScriptRunner(client)
        runner.ping()

        proxy.cuts = 1
        with pytest.raises(StoreUnavailable):
            runner.run_each([command("GET", "k")])

        proxy.cuts = 1
        assert runner.run_each([command("GET", "k")], attempts=2) == [None]
        client.close()


@pytest.mark.parametrize(("seconds", "sent"), [(4.0, 2), (1.0, 1)], ids=["time is left", "none is left"])
def test_a_call_without_a_reply_is_sent_again_while_there_is_time(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, seconds: float, sent: int
) -> None:
    """A question of a client that waits is stored although Redis was silent for a moment; a callback has no time."""
    client, clock = connect(redis_url, pool_size=1), FakeClock()
    runner = ScriptRunner(client, clock=clock)
    exchange, exchanged = runner._target.exchange, []

    def silent_once(calls: Any) -> Any:
        exchanged.append(calls)
        replies = exchange(calls)
        if len(exchanged) == 1:
            replies.values[0] = redis.TimeoutError("Timeout reading from socket")
            clock.advance(0.9)
        return replies

    monkeypatch.setattr(runner._target, "exchange", silent_once)
    with pytest.raises(StoreUnavailable) if sent == 1 else nullcontext():
        runner.run_each([command("SET", "k", "v")], attempts=12, retry_seconds=seconds)

    assert len(exchanged) == sent
    client.close()


def test_a_primary_that_became_a_replica_is_looked_up_again() -> None:
    """READONLY is an outage; each connection is replaced, and so finds the present server of the name."""
    with RedisServer() as server:
        client = connect(server.url(), pool_size=1, timeout=10.0)
        runner = ScriptRunner(client)
        before = runner.run([command("CLIENT", "ID")])
        with server.client() as other:
            other.replicaof("127.0.0.1", str(free_port()))

        with pytest.raises(StoreUnavailable, match="ReadOnlyError"):
            runner.run([command("SET", "k", "v")])

        assert runner.run([command("CLIENT", "ID")]) != before
        client.close()


def test_text_cut_inside_a_character_loses_that_character(client: redis.Redis) -> None:
    """A poll reads a bounded number of bytes, which may cut a character."""
    client.set("k", "年假")

    assert client.getrange("k", 0, 3) == "年"


class CuttingProxy:
    """A proxy for Redis; while `cuts` is positive it closes a connection instead of forwarding its request."""

    def __init__(self, port: int) -> None:
        self.cuts = 0
        self._redis = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self._listener.getsockname()[1]}/1"

    def __enter__(self) -> CuttingProxy:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=self._serve, args=(self._listener.accept()[0],), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with suppress(OSError), client, socket.create_connection(self._redis) as server:
            while ready := select.select([client, server], [], [], 30.0)[0]:
                data = ready[0].recv(65536)
                if not data or (self.cuts and ready[0] is client):
                    self.cuts -= bool(data)
                    return
                (server if ready[0] is client else client).sendall(data)


def test_a_connection_that_breaks_is_tried_once_more(redis_url: str, redis_server: RedisServer) -> None:
    """A connection that breaks twice is an outage, and so is any for a call that must not be sent again."""
    with CuttingProxy(redis_server.port) as proxy:
        client = connect(proxy.url, pool_size=2, timeout=10.0)
        runner = ScriptRunner(client)
        runner.ping()

        proxy.cuts = 1
        assert runner.run([command("SET", "k", "v")])

        proxy.cuts = 2
        with pytest.raises(StoreUnavailable):
            runner.run([command("GET", "k")])

        proxy.cuts = 1
        with pytest.raises(StoreUnavailable):
            runner.run([command("GET", "k")], attempts=1)
        assert runner.run([command("GET", "k")]) == ["v"]
        client.close()


def test_every_wait_has_a_timeout() -> None:
    """A frozen Redis delays neither new nor open connections, nor threads that wait for one, beyond the timeout."""
    with RedisServer() as server:
        client = connect(server.url(), pool_size=1, timeout=0.3)
        runner = ScriptRunner(client)
        runner.ping()
        server.pause()
        seconds: list[float] = []

        def call() -> None:
            began = time.monotonic()
            with pytest.raises(StoreUnavailable):
                runner.run([command("PING")])
            seconds.append(time.monotonic() - began)

        threads = [threading.Thread(target=call, daemon=True) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60.0)
        server.resume()
        wait_until(lambda: answers(runner), timeout=30.0)
        client.close()

    assert len(seconds) == 4
    assert max(seconds) < 15.0


def answers(runner: ScriptRunner) -> bool:
    try:
        runner.ping()
    except StoreUnavailable:
        return False
    return True


def test_an_outage_is_one_log_line_and_its_end_another(clock: FakeClock, caplog: pytest.LogCaptureFixture) -> None:
    """An outage is logged once, however many calls and threads fail; no restart is needed after it."""
    with RedisServer() as server:
        client = connect(server.url(), pool_size=8, timeout=5.0)
        runner = ScriptRunner(client, clock=clock)
        runner.ping()
        server.stop()
        counted = metrics.REGISTRY.get_sample_value(OUTAGES) or 0.0
        with caplog.at_level(logging.INFO, LOGGER):
            threads = [threading.Thread(target=lambda: answers(runner), daemon=True) for _ in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(60.0)
            assert not answers(runner)
            after = metrics.REGISTRY.get_sample_value(OUTAGES) or 0.0
            while_away = metrics.REGISTRY.get_sample_value(AWAY)
            clock.advance(12.34)
            server.start()
            assert answers(runner)
            assert answers(runner)
        client.close()

    assert after - counted == 1
    assert (while_away, metrics.REGISTRY.get_sample_value(AWAY)) == (1, 0)
    away, back = caplog.records
    assert (away.message, away.levelname) == ("redis is away", "ERROR")
    assert vars(away)["cause"].startswith("redis: ConnectionError: ")
    assert (back.message, vars(back)["away_seconds"]) == ("redis is back", 12.3)


@pytest.mark.parametrize("foreign", [redis.TimeoutError("slow"), redis.ConnectionError("gone"), OSError("broken")])
def test_errors_of_the_client_library_are_store_unavailable(foreign: Exception) -> None:
    """The exception names the cause for the log; clients see only its code."""
    with pytest.raises(StoreUnavailable) as caught, redis_errors():
        raise foreign

    assert caught.value.code == "store_unavailable"
    assert str(caught.value) == f"redis: {type(foreign).__name__}: {foreign}"
    assert caught.value.__cause__ is foreign


def test_a_value_redis_cannot_take_is_not_an_outage(runner: ScriptRunner) -> None:
    """A wrong argument raises the library's error, and the connection stays usable."""
    with pytest.raises(redis.DataError):
        runner.run([Call(None, ("SET", "k", {}))])  # type: ignore[arg-type]

    assert runner.run([command("GET", "k")]) == [None]


def test_a_programming_error_is_not_an_outage() -> None:
    """Only errors of Redis and the network become `StoreUnavailable`."""
    with pytest.raises(KeyError), redis_errors():
        raise KeyError("k")
