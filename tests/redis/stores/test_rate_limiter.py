"""Rates are counted over all replicas, clients are hashed in the keys, and an outage of Redis refuses no request."""

from __future__ import annotations

import pytest
import redis

from services.identity.rate_limiter import RateLimiter
from services.redis.store import ScriptRunner
from tests.support.servers.processes import free_port, redis_client_for, wait_until

SECRET = b"obviously fake"
IP = "203.0.113.7"


def limiter(
    runner: ScriptRunner, *, user: str = "", key: str = "", ip: str = "", secret: bytes = SECRET
) -> RateLimiter:
    return RateLimiter(runner, user=user, key=key, ip=ip, secret=secret)


def test_a_users_questions_are_limited_on_all_replicas(runner: ScriptRunner) -> None:
    """The third question of two a minute is refused, on another replica too; another user has a count of their own."""
    here, there = limiter(runner, user="2/minute"), limiter(runner, user="2/minute")

    assert [here.question("user:E1001", "a"), there.question("user:E1001", "b")] == [True, True]

    assert not here.question("user:E1001", "a")
    assert not there.question("user:E1001", "c")
    assert here.question("user:E2002", "a")


@pytest.mark.parametrize("principal", ["key:0123456789abcdef", "anonymous"])
def test_a_shared_credential_has_a_count_for_each_client_id(runner: ScriptRunner, principal: str) -> None:
    """An API key and an anonymous caller name no person, so each client id is counted by itself."""
    rates = limiter(runner, user="1/minute")

    assert rates.question(principal, "a")
    assert rates.question(principal, "b")
    assert not rates.question(principal, "a")


def test_a_key_has_a_rate_for_all_its_users(runner: ScriptRunner) -> None:
    """Whatever `user` or address; another key, and a user with a token, have their own counts."""
    rates = limiter(runner, user="2/minute", key="3/minute")

    asked = [rates.question("key:a/ann", ""), rates.question("key:a/bob", ""), rates.question("key:a", "10.0.0.1")]

    assert asked == [True, True, True]
    assert not rates.question("key:a/eve", "")
    assert not rates.question("key:a", "10.0.0.2")
    assert rates.question("key:b/ann", "")
    assert rates.question("user:a/ann", "")


def test_a_question_refused_to_a_user_does_not_count_for_the_key(runner: ScriptRunner) -> None:
    """A person who goes on asking does not use up the rate of the others."""
    rates = limiter(runner, user="1/minute", key="2/minute")

    assert [rates.question("key:a/ann", "") for _ in range(4)] == [True, False, False, False]

    assert rates.question("key:a/bob", "")


@pytest.mark.every_redis
def test_several_rates_all_count(runner: ScriptRunner, redis_client: redis.Redis) -> None:
    """Any full window refuses, and a question that a short window refuses is not counted by a longer one."""
    rates = limiter(runner, user="5/hour;1/minute")

    assert [rates.question("user:E1001", "") for _ in range(4)] == [True, False, False, False]
    counts = {key.rpartition("/")[2]: redis_client.get(key) for key in map(str, redis_client.scan_iter())}
    assert counts == {"minute": "4", "hour": "1"}
    assert [limiter(runner, user="2/hour").question("user:E2002", "") for _ in range(3)] == [True, True, False]


def test_a_window_begins_with_its_first_question_and_ends(runner: ScriptRunner, redis_client: redis.Redis) -> None:
    """The count expires one window after the first question, and counting starts again."""
    rates = limiter(runner, user="1/minute")
    assert rates.question("user:E1001", "")
    (key,) = redis_client.keys()
    assert 0 < redis_client.pttl(key) <= 60_000
    redis_client.pexpire(key, 1)

    wait_until(lambda: rates.question("user:E1001", ""), timeout=30.0)


@pytest.mark.parametrize(("left", "ttl"), [(60, 60), (None, 3600)])
def test_a_refused_question_does_not_prolong_the_window(
    runner: ScriptRunner, redis_client: redis.Redis, left: int | None, ttl: int
) -> None:
    """A client that asks again after a refusal waits no longer; a count that lost its TTL gets one."""
    rates = limiter(runner, user="1/hour")
    rates.question("user:E1001", "")
    (key,) = redis_client.keys()
    redis_client.expire(key, left) if left else redis_client.persist(key)

    rates.question("user:E1001", "")

    assert 0 < redis_client.ttl(key) <= ttl


def test_an_addresss_requests_are_limited(runner: ScriptRunner) -> None:
    """Each address has a count of its own, separate from those of users."""
    rates = limiter(runner, user="1/minute", ip="2/minute")

    assert [rates.address(IP) for _ in range(3)] == [True, True, False]
    assert rates.address("203.0.113.8")
    assert rates.question(IP, "")


@pytest.mark.parametrize(
    ("one", "other", "is_allowed"),
    [
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", False),
        ("2001:DB8:1:2::1", "2001:db8:1:2:0::1%eth0", False),
        ("203.0.113.7", "::ffff:203.0.113.7", False),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", True),
        *((odd, odd, False) for odd in ("unix:", "not an address", "\udce9")),
        ("", "", True),
    ],
)
def test_addresses_of_one_client_share_a_count(runner: ScriptRunner, one: str, other: str, is_allowed: bool) -> None:
    """An IPv6 /64 network is one client, and an IPv4 address is the same in both spellings.

    A string that is no IP address is counted by its own value. Behind a Unix socket no address is known, and none is
    counted: a common count would make all clients one.
    """
    rates = limiter(runner, ip="1/minute")

    assert rates.address(one)
    assert rates.address(other) is is_allowed


def test_without_a_rate_nothing_is_counted(runner: ScriptRunner, redis_client: redis.Redis) -> None:
    """Every request is allowed, and Redis gets no key."""
    rates = limiter(runner)

    assert all(rates.question("user:E1001", "") and rates.address(IP) for _ in range(50))
    assert redis_client.keys() == []


@pytest.mark.parametrize(
    "rate", ["20/minute", "5/second;100/hour", "20 per minute", "10/2 minutes", "1000/day", "3 per 10 seconds"]
)
def test_every_form_of_the_setting_is_understood(runner: ScriptRunner, rate: str) -> None:
    """The limiter can read each rate that the settings accept."""
    assert limiter(runner, user=rate, ip=rate).address(IP)


def test_keys_show_no_names(runner: ScriptRunner, redis_client: redis.Redis) -> None:
    """Address, user and client id are hashed with the secret; every key has a TTL."""
    for secret in (SECRET, b"another"):
        rates = limiter(runner, user="2/minute", ip="2/minute", secret=secret)
        rates.question("anonymous", "my-client")
        rates.question("user:E1001", "")
        rates.address(IP)

    keys = [str(key) for key in redis_client.scan_iter()]
    assert len(keys) == 6
    assert all(key.startswith("dify_rate:") and 0 < redis_client.ttl(key) <= 60 for key in keys)
    assert not [key for key in keys for name in ("E1001", "my-client", IP, "anonymous") if name in key]


def test_an_outage_of_redis_refuses_nothing() -> None:
    """Without counts every question and every address is allowed."""
    with redis_client_for(f"redis://127.0.0.1:{free_port()}/0") as client:
        rates = limiter(ScriptRunner(client), user="1/minute", ip="1/minute")

        assert [rates.question("user:E1001", "") for _ in range(3)] == [True] * 3
        assert [rates.address(IP) for _ in range(3)] == [True] * 3


def test_the_storage_works_with_the_librarys_own_tools(runner: ScriptRunner) -> None:
    """Counts can be checked, read and cleared; `reset` is not implemented."""
    from limits import parse
    from limits.strategies import FixedWindowRateLimiter

    from services.identity.rate_limiter import RedisWindows

    windows = RedisWindows(runner)
    strategy, item = FixedWindowRateLimiter(windows), parse("2/minute")

    assert windows.check()
    assert strategy.hit(item, "x")
    assert strategy.get_window_stats(item, "x").remaining == 1
    assert strategy.test(item, "x")
    strategy.clear(item, "x")
    assert strategy.get_window_stats(item, "x").remaining == 2
    with pytest.raises(NotImplementedError):
        windows.reset()
