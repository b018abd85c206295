"""Tokens in Redis: the documented keys, the auth service's values and expiry, and no other secrets."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
import redis

from services.errors import StoreUnavailable
from services.identity.token_store import Cached, Denied, TokenStore
from services.models import UserInfo
from services.redis.store import ScriptRunner
from tests.support.servers.processes import RedisServer, free_port, redis_client_for, wait_until

USER = UserInfo("E1001", "张三", "13800000001", "男")
TOKEN = "fake-token-1"
DAY = 86_400.0


@pytest.fixture
def tokens(runner: ScriptRunner) -> TokenStore:
    return TokenStore(runner)


def test_the_keys_are_the_documented_ones(tokens: TokenStore, redis_client: redis.Redis) -> None:
    """Two strings with colons in their keys, each with the token's TTL."""
    tokens.save("zhangsan", "", TOKEN, USER, DAY)

    assert sorted(redis_client.keys()) == ["authorization:token:fake-token-1", "authorization:wechatid:zhangsan"]
    assert redis_client.get("authorization:wechatid:zhangsan") == TOKEN
    assert json.loads(str(redis_client.get("authorization:token:fake-token-1"))) == {
        "user_code": "E1001",
        "user_name": "张三",
        "phone": "13800000001",
        "gender": "男",
    }
    assert all(DAY - 60 < redis_client.ttl(key) <= DAY for key in redis_client.scan_iter())


def test_a_user_of_another_corp_has_its_own_key(tokens: TokenStore, redis_client: redis.Redis) -> None:
    """The same userid in another corp is another person."""
    tokens.save("zhangsan", "acme", TOKEN, USER, DAY)

    assert redis_client.get("authorization:wechatid:acme:zhangsan") == TOKEN
    assert tokens.load("zhangsan", "acme") == Cached(TOKEN, USER)
    assert tokens.load("zhangsan") is None


def test_a_userid_with_a_colon_is_no_user_of_another_corp(tokens: TokenStore) -> None:
    """No userid can be written so that its key is the one of another corp's user."""
    tokens.save("zhangsan", "acme", TOKEN, USER, DAY)

    assert tokens.load("acme:zhangsan") is None
    assert tokens.load("acme%3Azhangsan") is None


@pytest.mark.every_redis
def test_the_auth_services_value_and_ttl_stay(tokens: TokenStore, redis_client: redis.Redis) -> None:
    """Neither save nor load overwrites or prolongs a validity key that exists."""
    own = '{"user_code": "E1001", "user_name": "written by the auth service"}'
    redis_client.set("authorization:token:fake-token-1", own, ex=100)

    tokens.save("zhangsan", "", TOKEN, USER, DAY)
    tokens.load("zhangsan")

    assert redis_client.get("authorization:token:fake-token-1") == own
    assert 0 < redis_client.ttl("authorization:token:fake-token-1") <= 100
    assert tokens.load("zhangsan") == Cached(TOKEN, UserInfo("E1001", "written by the auth service"))


def test_a_token_expires_after_its_ttl(tokens: TokenStore) -> None:
    """A token saved for 50 ms is gone after it."""
    tokens.save("zhangsan", "", TOKEN, USER, 0.05)

    wait_until(lambda: tokens.load("zhangsan") is None)


@pytest.mark.parametrize(
    "value",
    [
        "1",
        "",
        "null",
        "[1]",
        "not json",
        '{"userCode": "E1001"}',
        '{"user_code": ""}',
        '{"user_code": 7}',
        "[" * 100_000,
    ],
)
def test_a_foreign_value_is_a_valid_token_without_a_user(
    tokens: TokenStore, redis_client: redis.Redis, value: str
) -> None:
    """A token is valid while its key exists, with any value of the auth service."""
    redis_client.set("authorization:token:fake-token-1", value)
    tokens.save("zhangsan", "", TOKEN, USER, DAY)

    assert tokens.load("zhangsan") == Cached(TOKEN, None)


def test_a_hash_of_the_auth_service_is_a_valid_token(tokens: TokenStore, redis_client: redis.Redis) -> None:
    """A validity key of another type makes the token valid too."""
    redis_client.hset("authorization:token:fake-token-1", mapping={"user": "E1001"})
    redis_client.set("authorization:wechatid:zhangsan", TOKEN)

    assert tokens.load("zhangsan") == Cached(TOKEN, None)


def test_a_password_in_a_foreign_value_is_not_read(tokens: TokenStore, redis_client: redis.Redis) -> None:
    """Only the known fields of a foreign value are read."""
    redis_client.set("authorization:token:fake-token-1", '{"user_code": "E1", "password": "fake", "phone": 138}')
    redis_client.set("authorization:wechatid:zhangsan", TOKEN)

    assert tokens.load("zhangsan") == Cached(TOKEN, UserInfo("E1"))


def test_a_token_without_its_validity_key_is_not_valid(tokens: TokenStore, redis_client: redis.Redis) -> None:
    """When the auth service deletes the validity key, the next load deletes the pointer."""
    tokens.save("zhangsan", "", TOKEN, USER, DAY)
    redis_client.delete("authorization:token:fake-token-1")

    assert tokens.load("zhangsan") is None

    assert redis_client.keys() == []


def test_a_pointer_of_another_type_is_ignored(tokens: TokenStore, redis_client: redis.Redis) -> None:
    """The next save overwrites a hash where a string belongs."""
    redis_client.hset("authorization:wechatid:zhangsan", mapping={"token": TOKEN})

    assert tokens.load("zhangsan") is None
    tokens.save("zhangsan", "", TOKEN, USER, DAY)

    assert tokens.load("zhangsan") == Cached(TOKEN, USER)


def test_the_dotted_key_is_a_fallback(tokens: TokenStore, redis_client: redis.Redis) -> None:
    """A valid token under the old spelling counts, and that key is neither written nor removed."""
    redis_client.set("authorization.wechatid.zhangsan", "fake-old", ex=500)
    redis_client.set("authorization:token:fake-old", USER.to_json())

    assert tokens.load("zhangsan") == Cached("fake-old", USER)
    redis_client.delete("authorization:token:fake-old")
    assert tokens.load("zhangsan") is None
    tokens.save("zhangsan", "", TOKEN, USER, DAY)

    assert redis_client.get("authorization.wechatid.zhangsan") == "fake-old"
    assert tokens.load("zhangsan") == Cached(TOKEN, USER)


def test_a_valid_dotted_token_is_used_if_the_other_is_stale(tokens: TokenStore, redis_client: redis.Redis) -> None:
    """The first valid token of the two spellings counts, the colon one first."""
    redis_client.set("authorization:wechatid:zhangsan", "fake-stale")
    redis_client.set("authorization.wechatid.zhangsan", "fake-old")
    redis_client.set("authorization:token:fake-old", USER.to_json())

    assert tokens.load("zhangsan") == Cached("fake-old", USER)


def test_the_dotted_key_is_not_read_for_another_corp(tokens: TokenStore, redis_client: redis.Redis) -> None:
    """The old spelling knew only one corp."""
    redis_client.set("authorization.wechatid.zhangsan", "fake-old")
    redis_client.set("authorization:token:fake-old", USER.to_json())

    assert tokens.load("zhangsan", "acme") is None


def test_a_denial_expires(tokens: TokenStore, redis_client: redis.Redis) -> None:
    """A failed authentication is loaded until its seconds are over, for its own corp only."""
    tokens.deny("lisi", "", "unknown_user", 30.0)

    assert tokens.load("lisi") == Denied("unknown_user")
    assert tokens.load("lisi", "acme") is None
    assert 0 < redis_client.pttl("authorization:denied:lisi") <= 30_000

    tokens.deny("lisi", "", "unknown_user", 0.05)
    wait_until(lambda: tokens.load("lisi") is None)


def test_a_token_ends_a_denial(tokens: TokenStore, redis_client: redis.Redis) -> None:
    """A valid token has precedence over a denial, and saving one deletes the denial."""
    tokens.deny("zhangsan", "", "auth_refused", 30.0)
    redis_client.set("authorization.wechatid.zhangsan", "fake-old")
    redis_client.set("authorization:token:fake-old", USER.to_json())
    assert tokens.load("zhangsan") == Cached("fake-old", USER)

    tokens.save("zhangsan", "", TOKEN, USER, DAY)

    assert redis_client.exists("authorization:denied:zhangsan") == 0


def test_user_of_finds_the_user_of_a_valid_token(tokens: TokenStore, redis_client: redis.Redis) -> None:
    """It needs no userid, and accepts tokens that the auth service wrote; an unknown token gives None."""
    tokens.save("zhangsan", "", TOKEN, USER, DAY)
    redis_client.set("authorization:token:theirs", "a form of their own")
    redis_client.hset("authorization:token:hash", "user", "x")

    assert tokens.user_of(TOKEN) == Cached(TOKEN, USER)
    assert tokens.user_of("theirs") == Cached("theirs")
    assert tokens.user_of("hash") == Cached("hash")
    assert tokens.user_of("wrong") is None

    redis_client.delete(f"authorization:token:{TOKEN}")
    assert tokens.user_of(TOKEN) is None


def test_forget_deletes_the_pointer_and_the_denial(tokens: TokenStore, redis_client: redis.Redis) -> None:
    """The validity key stays: it belongs to the auth service."""
    tokens.save("zhangsan", "", TOKEN, USER, DAY)
    tokens.deny("zhangsan", "", "auth_refused", 30.0)

    tokens.forget("zhangsan")

    assert redis_client.keys() == ["authorization:token:fake-token-1"]
    assert tokens.load("zhangsan") is None


def test_a_repr_shows_no_token() -> None:
    """The repr of a cached token does not contain it."""
    assert TOKEN not in repr(Cached(TOKEN, USER))


def test_a_valid_token_costs_two_round_trips() -> None:
    """The first reads the pointers, the second the validity key."""
    with RedisServer() as server, server.client() as client:
        TokenStore(ScriptRunner(client)).save("zhangsan", "", TOKEN, USER, DAY)
        before = client.info("stats")["total_reads_processed"]

        TokenStore(ScriptRunner(client)).load("zhangsan")

        # The second INFO is one of the reads.
        assert client.info("stats")["total_reads_processed"] - before == 3


def test_no_redis_is_store_unavailable() -> None:
    """Every method raises our error when Redis is away."""
    with redis_client_for(f"redis://127.0.0.1:{free_port()}/0") as client:
        tokens = TokenStore(ScriptRunner(client))

        steps: list[Callable[[], object]] = [
            lambda: tokens.load("zhangsan"),
            lambda: tokens.user_of(TOKEN),
            lambda: tokens.save("zhangsan", "", TOKEN, USER, DAY),
            lambda: tokens.deny("zhangsan", "", "auth_refused", 1.0),
            lambda: tokens.forget("zhangsan"),
        ]
        for step in steps:
            with pytest.raises(StoreUnavailable):
                step()


@pytest.mark.every_redis
def test_bytes_that_are_not_utf_8_are_no_token(tokens: TokenStore, any_redis_url: str) -> None:
    """A value that cannot be decoded is ignored."""
    with redis_client_for(any_redis_url, decode_responses=False) as raw:
        raw.set("authorization:wechatid:zhangsan", b"\xff\xfe")

    assert tokens.load("zhangsan") is None
