"""Who may ask at a socket: keys, users' tokens, or anybody; and who asks when another replica asks again."""

from __future__ import annotations

import hashlib
import threading

import pytest
import redis

from channels.batch.rules import BATCH
from channels.http_chat.rules import HTTP
from services.channels import Channel
from services.errors import AuthError, StoreUnavailable
from services.identity.callers import Caller, CallerMode, Callers
from services.identity.token_store import TokenStore
from services.models import Identity, Question, UserInfo
from services.redis.store import ScriptRunner
from tests.support.servers.processes import RedisServer, free_port, redis_client_for
from utils.sealed import seal, unseal

KEY = bytes(range(32))
API_KEY = "obviously-fake-key-1"
TOKEN = "obviously-fake-token-1"
USER = UserInfo("E1001", "张三", "13800000001", "男")
DAY = 86_400.0


def fingerprint(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()[:16]


@pytest.fixture
def tokens(runner: ScriptRunner) -> TokenStore:
    store = TokenStore(runner)
    store.save("zhangsan", "", TOKEN, USER, DAY)
    return store


@pytest.fixture
def callers(tokens: TokenStore) -> Callers:
    return Callers("token", tokens=tokens, key=KEY)


def asked_by(caller: Caller, channel: str = "chat") -> Question:
    return Question("问", channel, "default", caller.principal, credential=caller.credential)


def refusal(callers: Callers, secret: str) -> str:
    with pytest.raises(AuthError) as caught:
        callers.check(secret)
    assert secret == "" or secret not in str(caught.value)
    return caught.value.code


def test_a_key_opens_the_endpoint() -> None:
    """Each of the keys counts, and its caller is named by a fingerprint."""
    callers = Callers("key", api_keys=(API_KEY, "obviously-fake-key-2"))

    first, second = callers.check(API_KEY), callers.check("obviously-fake-key-2")

    assert first == Caller(f"key:{fingerprint(API_KEY)}")
    assert second.principal.startswith("key:")
    assert second != first


@pytest.mark.parametrize(
    "shown", ["", "wrong", API_KEY[:-1], API_KEY + "x", API_KEY.upper(), "钥匙", "\ud800", "x" * 9000]
)
def test_a_wrong_key_does_not(shown: str) -> None:
    """Whatever is not exactly a key is refused."""
    assert refusal(Callers("key", api_keys=(API_KEY,)), shown) == "auth_failed"


@pytest.mark.parametrize("keys", [(), ("",)])
def test_without_keys_nobody_gets_in(keys: tuple[str, ...]) -> None:
    """No key, or an empty one, is no open endpoint."""
    callers = Callers("key", api_keys=keys)

    assert refusal(callers, "") == "auth_failed"
    assert refusal(callers, API_KEY) == "auth_failed"
    assert not callers.open


def test_a_key_may_have_any_letters() -> None:
    """A key is text, not ASCII."""
    assert Callers("key", api_keys=("钥匙-假的",)).check("钥匙-假的").principal.startswith("key:")


@pytest.mark.every_redis
def test_a_users_token_opens_the_endpoint(callers: Callers) -> None:
    """A valid token names its user, and comes along sealed."""
    caller = callers.check(TOKEN)

    assert caller.principal == "user:E1001"
    assert TOKEN not in caller.credential
    assert unseal(KEY, caller.credential) == TOKEN


@pytest.mark.parametrize("shown", ["", "wrong", TOKEN + "x", "\udfff", "x" * 9000])
def test_a_wrong_token_does_not(callers: Callers, shown: str) -> None:
    """What is no valid token is refused, also what Redis could not be asked for."""
    assert refusal(callers, shown) == "auth_failed"


def test_an_endless_token_is_not_looked_up(callers: Callers, redis_client: redis.Redis) -> None:
    """What no header could carry is refused, also if it were valid."""
    redis_client.set(f"authorization:token:{'x' * 8193}", USER.to_json())

    assert refusal(callers, "x" * 8193) == "auth_failed"


def test_a_token_that_ended_opens_nothing(callers: Callers, redis_client: redis.Redis) -> None:
    """The token counts as long as the auth service's key is there."""
    redis_client.delete(f"authorization:token:{TOKEN}")

    assert refusal(callers, TOKEN) == "auth_failed"


@pytest.mark.every_redis
def test_a_token_with_a_foreign_value_counts(callers: Callers, redis_client: redis.Redis) -> None:
    """What the auth service keeps about a user in a form of its own: the token itself names the user."""
    redis_client.set("authorization:token:theirs", "a form of their own")
    redis_client.hset("authorization:token:hash", "user", "x")

    theirs, hashed = callers.check("theirs"), callers.check("hash")

    assert theirs.principal == f"user:{fingerprint('theirs')}"
    assert "theirs" not in theirs.principal
    assert hashed.principal != theirs.principal
    assert callers.identity(asked_by(theirs)) == Identity("cached", None, "theirs")


def test_a_key_is_no_token_and_a_token_no_key(tokens: TokenStore) -> None:
    """Each mode takes its own kind only."""
    assert refusal(Callers("key", api_keys=(API_KEY,), tokens=tokens, key=KEY), TOKEN) == "auth_failed"
    assert refusal(Callers("token", api_keys=(API_KEY,), tokens=tokens, key=KEY), API_KEY) == "auth_failed"


def test_without_redis_a_token_cannot_be_told_from_a_wrong_one() -> None:
    """Redis away is neither yes nor no."""
    with redis_client_for(f"redis://127.0.0.1:{free_port()}/0") as client:
        callers = Callers("token", tokens=TokenStore(ScriptRunner(client)), key=KEY)

        with pytest.raises(StoreUnavailable):
            callers.check(TOKEN)


def test_an_open_endpoint_asks_for_nothing() -> None:
    """In mode none everybody is nobody in particular, but for who shows a key."""
    callers = Callers("none", api_keys=(API_KEY,))

    assert callers.open
    assert callers.anonymous() == Caller("anonymous")
    assert callers.check("wrong") == callers.check("") == Caller("anonymous")
    assert callers.check(API_KEY) == callers.program(API_KEY) == Callers("key", api_keys=(API_KEY,)).check(API_KEY)


@pytest.mark.parametrize("mode", ["key", "token"])
def test_nobody_in_particular_stands_before_a_closed_endpoint(mode: CallerMode) -> None:
    """Where a credential is needed, there is no caller without one."""
    with pytest.raises(AuthError) as caught:
        Callers(mode).anonymous()

    assert caught.value.code == "auth_required"


def test_a_key_may_ask_as_long_as_it_is_configured() -> None:
    """A question of a key that was taken away is not asked again."""
    caller = Callers("key", api_keys=(API_KEY,)).check(API_KEY)

    assert Callers("key", api_keys=("other", API_KEY)).identity(asked_by(caller)) == Identity("none")
    with pytest.raises(AuthError) as caught:
        Callers("key", api_keys=("other",)).identity(asked_by(caller))

    assert caught.value.code == "auth_refused"


@pytest.mark.every_redis
@pytest.mark.parametrize("channel", ["chat", "realtime"])
def test_a_user_asks_as_themself(callers: Callers, channel: str) -> None:
    """The provider is asked with the user and the token that were shown."""
    question = asked_by(callers.check(TOKEN), channel)

    assert callers.identity(question) == Identity("cached", USER, TOKEN)


def test_a_user_whose_token_ended_asks_nothing(callers: Callers, redis_client: redis.Redis) -> None:
    """A token that ended between the question and its answer is refused."""
    question = asked_by(callers.check(TOKEN))
    redis_client.delete(f"authorization:token:{TOKEN}")

    with pytest.raises(AuthError) as caught:
        callers.identity(question)

    assert caught.value.code == "auth_refused"


def test_nobody_asks_with_anothers_token(callers: Callers, tokens: TokenStore) -> None:
    """The token must be the very user's whose question it is."""
    tokens.save("lisi", "", "lisis-fake-token", UserInfo("E2002"), DAY)
    lisi = callers.check("lisis-fake-token")

    refused = {lisi.credential: "auth_refused", "": "auth_refused"}
    lost = {"damaged": "credential_lost", seal(bytes(32), TOKEN): "credential_lost"}
    for credential, code in {**refused, **lost}.items():
        with pytest.raises(AuthError) as caught:
            callers.identity(asked_by(Caller("user:E1001", credential)))
        assert caught.value.code == code


@pytest.mark.parametrize(
    ("mode", "principal"),
    [
        ("key", "anonymous"),
        ("token", "anonymous"),
        ("key", "user:E1001"),
        ("token", f"key:{fingerprint(API_KEY)}"),
        ("none", "user:E1001"),
        ("none", f"key:{fingerprint(API_KEY)}"),
        ("key", ""),
    ],
)
def test_what_another_mode_let_in_is_not_asked(tokens: TokenStore, mode: CallerMode, principal: str) -> None:
    """A question of before the mode was changed is refused: the new mode decides."""
    callers = Callers(mode, api_keys=(API_KEY,), tokens=tokens, key=KEY)

    with pytest.raises(AuthError) as caught:
        callers.identity(asked_by(Caller(principal, seal(KEY, TOKEN))))

    assert caught.value.code == "auth_refused"


def test_anybodys_question_is_asked_while_the_endpoint_is_open() -> None:
    """In mode none there is no person, and no token."""
    assert Callers("none").identity(asked_by(Caller("anonymous"))) == Identity("none")


def test_an_outage_is_waited_through() -> None:
    """A Redis that comes back within the patience costs nobody the answer."""
    with RedisServer(aof=True) as server, server.client(socket_timeout=0.5) as client:
        tokens = TokenStore(ScriptRunner(client))
        tokens.save("zhangsan", "", TOKEN, USER, DAY)
        callers = Callers("token", tokens=tokens, key=KEY, outage=60.0)
        question = asked_by(callers.check(TOKEN))
        server.kill()
        found: list[Identity] = []
        asking = threading.Thread(target=lambda: found.append(callers.identity(question)))

        asking.start()
        server.start()
        asking.join(60.0)

    assert found == [Identity("cached", USER, TOKEN)]


def test_an_outage_is_not_waited_for_without_end() -> None:
    """When Redis stays away, the answer is that it cannot be known."""
    with redis_client_for(f"redis://127.0.0.1:{free_port()}/0") as client:
        callers = Callers("token", tokens=TokenStore(ScriptRunner(client)), key=KEY, outage=0.0)

        with pytest.raises(AuthError) as caught:
            callers.identity(asked_by(Caller("user:E1001", seal(KEY, TOKEN))))

    assert caught.value.code == "auth_unavailable"


def test_a_credential_is_in_no_repr(callers: Callers) -> None:
    """A caller that is printed shows no credential."""
    caller = callers.check(TOKEN)

    assert caller.credential not in repr(caller)


def program(callers: Callers, secret: str | None) -> str:
    """Return who that is at a REST address, or why nobody."""
    try:
        return callers.program(secret).principal
    except AuthError as exc:
        return exc.code


def test_a_program_shows_a_key_in_every_mode(tokens: TokenStore) -> None:
    """What sockets ask for counts at REST, and an API key always does."""
    modes: tuple[CallerMode, ...] = ("key", "token", "none")
    key, token, none = (Callers(mode, api_keys=(API_KEY,), tokens=tokens, key=KEY) for mode in modes)

    assert [program(each, API_KEY) for each in (key, token, none)] == [f"key:{fingerprint(API_KEY)}"] * 3
    assert [program(each, TOKEN) for each in (key, token, none)] == ["auth_failed", "user:E1001", "anonymous"]
    assert [program(each, "wrong") for each in (key, token, none)] == ["auth_failed", "auth_failed", "anonymous"]
    assert [program(each, None) for each in (key, token, none)] == ["auth_required", "auth_required", "anonymous"]


@pytest.mark.parametrize("shown", ["", "\ud800", "x" * 9000])
def test_what_no_header_can_say_is_no_program(tokens: TokenStore, shown: str) -> None:
    """An empty, an unwritable and an endless credential are refused in every mode that asks for one."""
    assert program(Callers("key", api_keys=(API_KEY,)), shown) == "auth_failed"
    assert program(Callers("token", api_keys=(API_KEY,), tokens=tokens, key=KEY), shown) == "auth_failed"


@pytest.mark.parametrize("channel", [HTTP, BATCH], ids=lambda channel: channel.name)
def test_a_programs_question_is_asked_under_its_key(tokens: TokenStore, channel: Channel) -> None:
    """Also where sockets ask for users' tokens; a key that was withdrawn counts nowhere."""
    callers = Callers("token", api_keys=(API_KEY,), tokens=tokens, key=KEY)
    question = asked_by(callers.program(API_KEY), channel.name)

    assert callers.identity(question, accepts_api_keys=channel.accepts_api_keys) == Identity("none")
    with pytest.raises(AuthError):
        Callers("token", api_keys=("another-fake-key",), tokens=tokens, key=KEY).identity(
            question, accepts_api_keys=channel.accepts_api_keys
        )
