"""The embedded Redis replies over a socket like a real one, for every command that this product uses."""

from __future__ import annotations

import hashlib
import threading
import time

import pytest
import redis

from demo.embedded_redis import EmbeddedRedis
from tests.support.servers.processes import redis_client_for, wait_until


def test_a_script_runs_by_its_digest_once_loaded(redis_client: redis.Redis) -> None:
    """EVALSHA of an unknown script is NOSCRIPT; after SCRIPT LOAD it runs."""
    script = "return {KEYS[1], ARGV[1], #ARGV}"
    digest = hashlib.sha1(script.encode()).hexdigest()

    with pytest.raises(redis.exceptions.NoScriptError):
        redis_client.evalsha(digest, 1, "k", "a")
    assert redis_client.script_load(script) == digest

    assert redis_client.evalsha(digest, 1, "k", "a", "b") == ["k", "a", 2]


def test_an_error_in_a_pipeline_leaves_the_replies_after_it(redis_client: redis.Redis) -> None:
    """NOSCRIPT and WRONGTYPE are replies among others; the connection stays usable."""
    redis_client.hset("h", mapping={"a": "1"})
    digest = hashlib.sha1(b"return 'a script nobody loaded'").hexdigest()

    with redis_client.pipeline(transaction=False) as pipe:
        pipe.set("k", "v")
        pipe.evalsha(digest, 0)
        pipe.get("h")
        pipe.get("k")
        done, no_script, wrong_type, value = pipe.execute(raise_on_error=False)

    assert (done, value) == (True, "v")
    assert isinstance(no_script, redis.exceptions.NoScriptError)
    assert isinstance(wrong_type, redis.ResponseError)
    assert str(wrong_type).startswith("WRONGTYPE")


def test_a_scripts_own_error_keeps_its_text(redis_client: redis.Redis) -> None:
    """An error that a script returns arrives with its code, and the connection stays usable."""
    with pytest.raises(redis.ResponseError, match=r"^STALE owner"):
        redis_client.eval("return redis.error_reply('STALE owner')", 0)

    assert redis_client.ping()


def test_a_script_reads_the_servers_time(redis_client: redis.Redis) -> None:
    """TIME inside a script is the server's clock in seconds and microseconds."""
    seconds, micros = redis_client.eval("return redis.call('TIME')", 0)

    assert abs(int(seconds) - time.time()) < 60
    assert 0 <= int(micros) < 1_000_000


def test_a_script_has_all_commands_of_a_stream(redis_client: redis.Redis) -> None:
    """Hashes, lists, strings, sorted sets and expiries work within one script."""
    script = """
    redis.call('HSET', KEYS[1], 'status', 'processing', 'epoch', 1)
    redis.call('HINCRBY', KEYS[1], 'epoch', 2)
    redis.call('RPUSH', KEYS[2], 'one', 'two')
    redis.call('APPEND', KEYS[3], ARGV[1])
    redis.call('ZADD', KEYS[4], '12.5', 'stream')
    for _, key in ipairs(KEYS) do redis.call('PEXPIRE', key, ARGV[2]) end
    return {redis.call('HGET', KEYS[1], 'epoch'), redis.call('LLEN', KEYS[2]),
            redis.call('GETRANGE', KEYS[3], 0, 2), redis.call('ZSCORE', KEYS[4], 'stream'),
            redis.call('PTTL', KEYS[1]), redis.call('HMGET', KEYS[1], 'status', 'none'),
            redis.call('LRANGE', KEYS[2], 0, -1), redis.call('STRLEN', KEYS[3]), redis.call('EXISTS', KEYS[1])}
    """

    epoch, length, head, score, ttl, fields, chunks, size, exists = redis_client.eval(
        script, 4, "h", "l", "t", "z", "年假", 60_000
    )

    assert (epoch, length, head, float(score)) == ("3", 2, "年", 12.5)
    assert 0 < ttl <= 60_000
    assert (fields, chunks, size, exists) == (["processing", None], ["one", "two"], 6, 1)


def test_commands_work_outside_scripts(redis_client: redis.Redis) -> None:
    """The same commands work singly and in a pipeline."""
    with redis_client.pipeline(transaction=False) as pipe:
        pipe.hset("h", mapping={"a": "1", "b": "二"})
        pipe.rpush("l", "x", "y")
        pipe.append("t", "abc")
        pipe.zadd("z", {"m": 1.5})
        pipe.pexpire("h", 5000)
        assert pipe.execute() == [2, 2, 3, 1, True]

    assert redis_client.hgetall("h") == {"a": "1", "b": "二"}
    assert (redis_client.lrange("l", 0, -1), redis_client.llen("l")) == (["x", "y"], 2)
    assert redis_client.getrange("t", 1, 5) == "bc"
    assert redis_client.zrangebyscore("z", "-inf", "(2") == ["m"]
    assert 0 < redis_client.pttl("h") <= 5000


def test_set_nx_px_is_a_lock(redis_client: redis.Redis) -> None:
    """SET NX PX sets a key once, with an expiry."""
    assert redis_client.set("lock", "a", nx=True, px=60_000) is True
    assert redis_client.set("lock", "b", nx=True, px=60_000) is None

    assert redis_client.get("lock") == "a"
    assert 0 < redis_client.pttl("lock") <= 60_000


def test_a_key_expires(redis_client: redis.Redis) -> None:
    """A key with a TTL of 50 ms is gone after it."""
    redis_client.set("k", "v", px=50)

    wait_until(lambda: redis_client.exists("k") == 0)


def test_scripts_are_atomic_between_connections(any_redis_url: str) -> None:
    """Concurrent increments by scripts over many connections are all counted."""
    script = "local n = tonumber(redis.call('GET', KEYS[1]) or '0') redis.call('SET', KEYS[1], n + 1) return n"

    def count() -> None:
        with redis_client_for(any_redis_url, socket_timeout=30.0) as client:
            for _ in range(20):
                client.eval(script, 1, "n")

    threads = [threading.Thread(target=count) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60.0)

    with redis_client_for(any_redis_url) as client:
        assert client.get("n") == "160"


def test_a_reply_larger_than_the_sockets_buffer_arrives_whole(redis_client: redis.Redis) -> None:
    """1 MB of Chinese text is returned unchanged from a string and from a list."""
    text = "年假怎么申请" * 180_000
    redis_client.set("t", text)
    redis_client.rpush("l", *[text[i : i + 100_000] for i in range(0, len(text), 100_000)])

    assert redis_client.get("t") == text
    assert "".join(str(piece) for piece in redis_client.lrange("l", 0, -1)) == text


@pytest.mark.parametrize("protocol", [2, 3])
def test_both_protocols_give_the_same_values(any_redis_url: str, protocol: int) -> None:
    """RESP2 and RESP3 clients read the same hash, score and nil."""
    with redis_client_for(any_redis_url, protocol=protocol) as client:
        client.hset("h", mapping={"a": "1"})
        client.zadd("z", {"m": 2})

        assert (client.hgetall("h"), client.zscore("z", "m"), client.get("none")) == ({"a": "1"}, 2.0, None)


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
    before = threading.active_count()
    server = EmbeddedRedis()
    server.start()
    client = redis_client_for(server.url)
    client.set("k", "v")

    server.close()

    with pytest.raises(redis.RedisError):
        client.get("k")
    client.close()
    assert threading.active_count() == before
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
