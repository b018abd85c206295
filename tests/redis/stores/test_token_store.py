"""Tokens in Redis: the documented keys, the auth service's right to its own, and nothing secret beside them."""

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


def test_nothing_is_known_at_first(tokens: TokenStore) -> None:
    """A user nobody saved is neither cached nor denied."""
    assert tokens.load("zhangsan") is None


def test_a_saved_token_is_found_again(tokens: TokenStore) -> None:
    """What was saved comes back with its user."""
    tokens.save("zhangsan", "", TOKEN, USER, DAY)

    assert tokens.load("zhangsan") == Cached(TOKEN, USER)


def test_the_keys_are_the_documented_ones(tokens: TokenStore, redis_client: redis.Redis) -> None:
    """Two strings under colon keys, each with the token's life."""
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


def test_another_corps_user_has_a_key_of_its_own(tokens: TokenStore, redis_client: redis.Redis) -> None:
    """The same userid in another corp is another person."""
    tokens.save("zhangsan", "acme", TOKEN, USER, DAY)

    assert redis_client.get("authorization:wechatid:acme:zhangsan") == TOKEN
    assert tokens.load("zhangsan", "acme") == Cached(TOKEN, USER)
    assert tokens.load("zhangsan") is None


def test_a_userid_with_a_colon_is_nobody_in_another_corp(tokens: TokenStore) -> None:
    """No userid can be spelt so that it reads as another corp's user."""
    tokens.save("zhangsan", "acme", TOKEN, USER, DAY)

    assert tokens.load("acme:zhangsan") is None
    assert tokens.load("acme%3Azhangsan") is None


@pytest.mark.every_redis
def test_the_auth_services_own_value_and_life_survive(tokens: TokenStore, redis_client: redis.Redis) -> None:
    """A validity key that is there already is neither overwritten nor prolonged, by save or load."""
    own = '{"user_code": "E1001", "user_name": "written by the auth service"}'
    redis_client.set("authorization:token:fake-token-1", own, ex=100)

    tokens.save("zhangsan", "", TOKEN, USER, DAY)
    tokens.load("zhangsan")

    assert redis_client.get("authorization:token:fake-token-1") == own
    assert 0 < redis_client.ttl("authorization:token:fake-token-1") <= 100
    assert tokens.load("zhangsan") == Cached(TOKEN, UserInfo("E1001", "written by the auth service"))


def test_a_life_of_its_own_is_kept_to(tokens: TokenStore) -> None:
    """A token saved for a moment is gone after it."""
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
    """The key's being there is what makes the token valid, whatever the auth service keeps in it."""
    redis_client.set("authorization:token:fake-token-1", value)
    tokens.save("zhangsan", "", TOKEN, USER, DAY)

    assert tokens.load("zhangsan") == Cached(TOKEN, None)


def test_a_hash_of_the_auth_service_is_a_valid_token(tokens: TokenStore, redis_client: redis.Redis) -> None:
    """A key of another type counts as there."""
    redis_client.hset("authorization:token:fake-token-1", mapping={"user": "E1001"})
    redis_client.set("authorization:wechatid:zhangsan", TOKEN)

    assert tokens.load("zhangsan") == Cached(TOKEN, None)


def test_a_password_in_a_foreign_value_goes_nowhere(tokens: TokenStore, redis_client: redis.Redis) -> None:
    """Of a foreign value only the known fields are read."""
    redis_client.set("authorization:token:fake-token-1", '{"user_code": "E1", "password": "fake", "phone": 138}')
    redis_client.set("authorization:wechatid:zhangsan", TOKEN)

    assert tokens.load("zhangsan") == Cached(TOKEN, UserInfo("E1"))


def test_a_token_whose_validity_is_gone_is_no_token(tokens: TokenStore, redis_client: redis.Redis) -> None:
    """When the auth service ends a token, its pointer goes too."""
    tokens.save("zhangsan", "", TOKEN, USER, DAY)
    redis_client.delete("authorization:token:fake-token-1")

    assert tokens.load("zhangsan") is None

    assert redis_client.keys() == []


def test_a_pointer_of_another_type_is_no_token(tokens: TokenStore, redis_client: redis.Redis) -> None:
    """A hash where a string belongs is overwritten by the next save."""
    redis_client.hset("authorization:wechatid:zhangsan", mapping={"token": TOKEN})

    assert tokens.load("zhangsan") is None
    tokens.save("zhangsan", "", TOKEN, USER, DAY)

    assert tokens.load("zhangsan") == Cached(TOKEN, USER)


def test_the_dotted_key_is_a_fall_back(tokens: TokenStore, redis_client: redis.Redis) -> None:
    """A valid token under the old spelling counts, and nothing is written or removed there."""
    redis_client.set("authorization.wechatid.zhangsan", "fake-old", ex=500)
    redis_client.set("authorization:token:fake-old", USER.to_json())

    assert tokens.load("zhangsan") == Cached("fake-old", USER)
    redis_client.delete("authorization:token:fake-old")
    assert tokens.load("zhangsan") is None
    tokens.save("zhangsan", "", TOKEN, USER, DAY)

    assert redis_client.get("authorization.wechatid.zhangsan") == "fake-old"
    assert tokens.load("zhangsan") == Cached(TOKEN, USER)


def test_a_valid_dotted_token_is_used_when_the_other_is_stale(tokens: TokenStore, redis_client: redis.Redis) -> None:
    """The first valid token of the two spellings wins, the colon one first."""
    redis_client.set("authorization:wechatid:zhangsan", "fake-stale")
    redis_client.set("authorization.wechatid.zhangsan", "fake-old")
    redis_client.set("authorization:token:fake-old", USER.to_json())

    assert tokens.load("zhangsan") == Cached("fake-old", USER)


def test_the_dotted_key_is_not_another_corps(tokens: TokenStore, redis_client: redis.Redis) -> None:
    """The old spelling knew one corp; no other corp's user reads it."""
    redis_client.set("authorization.wechatid.zhangsan", "fake-old")
    redis_client.set("authorization:token:fake-old", USER.to_json())

    assert tokens.load("zhangsan", "acme") is None


def test_a_denial_is_remembered_for_its_time(tokens: TokenStore, redis_client: redis.Redis) -> None:
    """A failed authentication is known until its seconds are over."""
    tokens.deny("lisi", "", "unknown_user", 30.0)

    assert tokens.load("lisi") == Denied("unknown_user")
    assert tokens.load("lisi", "acme") is None
    assert 0 < redis_client.pttl("authorization:denied:lisi") <= 30_000

    tokens.deny("lisi", "", "unknown_user", 0.05)
    wait_until(lambda: tokens.load("lisi") is None)


def test_a_token_ends_a_denial(tokens: TokenStore, redis_client: redis.Redis) -> None:
    """A valid token counts more than a denial, and saving one forgets it."""
    tokens.deny("zhangsan", "", "auth_refused", 30.0)
    redis_client.set("authorization.wechatid.zhangsan", "fake-old")
    redis_client.set("authorization:token:fake-old", USER.to_json())
    assert tokens.load("zhangsan") == Cached("fake-old", USER)

    tokens.save("zhangsan", "", TOKEN, USER, DAY)

    assert redis_client.exists("authorization:denied:zhangsan") == 0


def test_a_token_that_is_shown_names_its_user(tokens: TokenStore, redis_client: redis.Redis) -> None:
    """A valid token is found without a userid, also one of the auth service's own making; any other is none."""
    tokens.save("zhangsan", "", TOKEN, USER, DAY)
    redis_client.set("authorization:token:theirs", "a form of their own")
    redis_client.hset("authorization:token:hash", "user", "x")

    assert tokens.user_of(TOKEN) == Cached(TOKEN, USER)
    assert tokens.user_of("theirs") == Cached("theirs")
    assert tokens.user_of("hash") == Cached("hash")
    assert tokens.user_of("wrong") is None

    redis_client.delete(f"authorization:token:{TOKEN}")
    assert tokens.user_of(TOKEN) is None


def test_a_forgotten_user_is_unknown_and_the_token_stays_the_auth_services(
    tokens: TokenStore, redis_client: redis.Redis
) -> None:
    """Forgetting drops our pointer and denial only."""
    tokens.save("zhangsan", "", TOKEN, USER, DAY)
    tokens.deny("zhangsan", "", "auth_refused", 30.0)

    tokens.forget("zhangsan")

    assert redis_client.keys() == ["authorization:token:fake-token-1"]
    assert tokens.load("zhangsan") is None


def test_a_token_is_in_no_repr() -> None:
    """A cached token that is printed does not show itself."""
    assert TOKEN not in repr(Cached(TOKEN, USER))


def test_a_valid_token_costs_two_round_trips(redis_server: RedisServer, redis_url: str) -> None:
    """Reading a valid token sends two batches of commands: the pointers, then the validity."""
    with redis_client_for(redis_url) as client:
        TokenStore(ScriptRunner(client)).save("zhangsan", "", TOKEN, USER, DAY)
        before = client.info("stats")["total_reads_processed"]

        TokenStore(ScriptRunner(client)).load("zhangsan")

        # The second INFO is read by the server too.
        assert client.info("stats")["total_reads_processed"] - before == 3


def test_no_redis_is_store_unavailable() -> None:
    """Each step fails as our error when Redis is away."""
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


def test_a_refused_write_does_not_quote_the_token() -> None:
    """A full Redis is our error, and neither it nor what its traceback shows names the token."""
    with (
        RedisServer(options=("--maxmemory", "1", "--maxmemory-policy", "noeviction")) as server,
        server.client() as client,
        pytest.raises(StoreUnavailable) as caught,
    ):
        TokenStore(ScriptRunner(client)).save("zhangsan", "", TOKEN, USER, DAY)

    assert TOKEN not in str(caught.value)
    assert TOKEN not in str(caught.getrepr(chain=True, style="short"))


@pytest.mark.every_redis
def test_bytes_that_are_no_text_are_no_token(tokens: TokenStore, any_redis_url: str) -> None:
    """What cannot be read as text is not taken for one."""
    with redis_client_for(any_redis_url, decode_responses=False) as raw:
        raw.set("authorization:wechatid:zhangsan", b"\xff\xfe")

    assert tokens.load("zhangsan") is None
