"""Rates are counted over all replicas, whoever asks is a hash, and an outage locks nobody out."""

from __future__ import annotations

import pytest
import redis

from services.limits.rate_limiter import RateLimiter
from services.redis.store import ScriptRunner
from tests.support.servers.processes import free_port, redis_client_for, wait_until

SECRET = b"obviously fake"
IP = "203.0.113.7"


def limiter(runner: ScriptRunner, *, user: str = "", ip: str = "", secret: bytes = SECRET) -> RateLimiter:
    return RateLimiter(runner, user=user, ip=ip, secret=secret)


def test_a_user_has_so_many_questions(runner: ScriptRunner) -> None:
    """The third question of two a minute is one too many, on another replica too; another user has two of their own."""
    here, there = limiter(runner, user="2/minute"), limiter(runner, user="2/minute")

    assert [here.question("user:E1001", "a"), there.question("user:E1001", "b")] == [True, True]

    assert not here.question("user:E1001", "a")
    assert not there.question("user:E1001", "c")
    assert here.question("user:E2002", "a")


@pytest.mark.parametrize("principal", ["key:0123456789abcdef", "anonymous"])
def test_a_key_has_a_count_for_each_of_its_clients(runner: ScriptRunner, principal: str) -> None:
    """Where a credential names nobody, each client id counts for itself."""
    rates = limiter(runner, user="1/minute")

    assert rates.question(principal, "a")
    assert rates.question(principal, "b")
    assert not rates.question(principal, "a")


@pytest.mark.every_redis
def test_several_rates_all_count(runner: ScriptRunner, redis_client: redis.Redis) -> None:
    """Any full window refuses, and what a short one refuses is not counted by a longer one."""
    rates = limiter(runner, user="5/hour;1/minute")

    assert [rates.question("user:E1001", "") for _ in range(4)] == [True, False, False, False]
    counts = {key.rpartition("/")[2]: redis_client.get(key) for key in map(str, redis_client.scan_iter())}
    assert counts == {"minute": "4", "hour": "1"}
    assert [limiter(runner, user="2/hour").question("user:E2002", "") for _ in range(3)] == [True, True, False]


def test_a_window_begins_with_its_first_question_and_ends(runner: ScriptRunner, redis_client: redis.Redis) -> None:
    """A count has the life of its window from the first question on, and then everything begins anew."""
    rates = limiter(runner, user="1/second")
    assert rates.question("user:E1001", "")
    (key,) = redis_client.keys()
    assert 0 < redis_client.pttl(key) <= 1000

    wait_until(lambda: rates.question("user:E1001", ""), timeout=30.0)


def test_asking_on_does_not_prolong_the_window(runner: ScriptRunner, redis_client: redis.Redis) -> None:
    """Who is refused and asks again waits no longer for it."""
    rates = limiter(runner, user="1/hour")
    rates.question("user:E1001", "")
    (key,) = redis_client.keys()
    redis_client.expire(key, 60)

    rates.question("user:E1001", "")

    assert 0 < redis_client.ttl(key) <= 60


def test_a_count_without_a_life_gets_one(runner: ScriptRunner, redis_client: redis.Redis) -> None:
    """A count that lost its life, whatever took it, does not lock out for ever."""
    rates = limiter(runner, user="1/hour")
    rates.question("user:E1001", "")
    (key,) = redis_client.keys()
    redis_client.persist(key)

    rates.question("user:E1001", "")

    assert 0 < redis_client.ttl(key) <= 3600


def test_an_address_has_so_many_requests(runner: ScriptRunner) -> None:
    """Addresses are counted apart from each other and from users."""
    rates = limiter(runner, user="1/minute", ip="2/minute")

    assert [rates.address(IP) for _ in range(3)] == [True, True, False]
    assert rates.address("203.0.113.8")
    assert rates.question(IP, "")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9"),
        ("2001:DB8:1:2::1", "2001:db8:1:2:0::1%eth0"),
        ("203.0.113.7", "::ffff:203.0.113.7"),
    ],
)
def test_one_owners_addresses_count_as_one(runner: ScriptRunner, one: str, other: str) -> None:
    """A network of IPv6 is one client, and an IPv4 address is the same in both spellings."""
    rates = limiter(runner, ip="1/minute")

    assert rates.address(one)
    assert not rates.address(other)


def test_other_networks_count_for_themselves(runner: ScriptRunner) -> None:
    """The next network of IPv6 is somebody else's."""
    rates = limiter(runner, ip="1/minute")

    assert rates.address("2001:db8:1:2::1")
    assert rates.address("2001:db8:1:3::1")


@pytest.mark.parametrize("ip", ["unix:", "not an address", "\udce9"])
def test_what_is_no_address_counts_all_the_same(runner: ScriptRunner, ip: str) -> None:
    """A name nobody can read as an address is counted as it is."""
    rates = limiter(runner, ip="1/minute")

    assert rates.address(ip)
    assert not rates.address(ip)


def test_nobodys_address_is_not_counted(runner: ScriptRunner) -> None:
    """Where no address is known, as behind a file's socket, not everybody is one client."""
    rates = limiter(runner, ip="1/minute")

    assert rates.address("")
    assert rates.address("")


def test_off_counts_nothing(runner: ScriptRunner, redis_client: redis.Redis) -> None:
    """Without a rate everything is allowed and Redis is not asked."""
    rates = limiter(runner)

    assert all(rates.question("user:E1001", "") and rates.address(IP) for _ in range(50))
    assert redis_client.keys() == []


@pytest.mark.parametrize(
    "rate", ["20/minute", "5/second;100/hour", "20 per minute", "10/2 minutes", "1000/day", "3 per 10 seconds"]
)
def test_every_form_a_setting_takes_is_understood(runner: ScriptRunner, rate: str) -> None:
    """What the settings let pass, the limiter can read."""
    assert limiter(runner, user=rate, ip=rate).address(IP)


def test_redis_knows_nobodys_name(runner: ScriptRunner, redis_client: redis.Redis) -> None:
    """Neither address, user nor client id can be read in a key, nor found without the secret; every key has a life."""
    for secret in (SECRET, b"another"):
        rates = limiter(runner, user="2/minute", ip="2/minute", secret=secret)
        rates.question("anonymous", "my-client")
        rates.question("user:E1001", "")
        rates.address(IP)

    keys = [str(key) for key in redis_client.scan_iter()]
    assert len(keys) == 6
    assert all(key.startswith("dify_rate:") and 0 < redis_client.ttl(key) <= 60 for key in keys)
    assert not [key for key in keys for name in ("E1001", "my-client", IP, "anonymous") if name in key]


def test_redis_away_allows() -> None:
    """Nobody is refused because nobody can count."""
    with redis_client_for(f"redis://127.0.0.1:{free_port()}/0") as client:
        rates = limiter(ScriptRunner(client), user="1/minute", ip="1/minute")

        assert [rates.question("user:E1001", "") for _ in range(3)] == [True] * 3
        assert [rates.address(IP) for _ in range(3)] == [True] * 3


def test_a_storage_of_the_library_is_whole(runner: ScriptRunner) -> None:
    """Counts can be looked at and taken away, as the library's own tools expect."""
    from limits import parse
    from limits.strategies import FixedWindowRateLimiter

    from services.limits.rate_limiter import RedisWindows

    windows = RedisWindows(runner, "dify_rate")
    strategy, item = FixedWindowRateLimiter(windows), parse("2/minute")

    assert windows.check()
    assert strategy.hit(item, "x")
    assert strategy.get_window_stats(item, "x").remaining == 1
    assert strategy.test(item, "x")
    strategy.clear(item, "x")
    assert strategy.get_window_stats(item, "x").remaining == 2
    with pytest.raises(NotImplementedError):
        windows.reset()
