"""Callers: API keys and users' tokens are checked, and questions get the identity they are asked with."""

from __future__ import annotations

import hashlib
import threading

import pytest
import redis

from channels.registry import BATCH, HTTP
from services.channels import Channel
from services.errors import AuthError, StoreUnavailable
from services.identity.callers import Caller, CallerMode, Callers, end_user_of
from services.identity.token_store import TokenStore
from services.models import Identity, Question, UserInfo
from services.redis.store import ScriptRunner
from tests.support.servers.processes import RedisServer, free_port, redis_client_for
from utils.sealed import seal, unseal_any

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


def question_of(caller: Caller, channel: str = "chat") -> Question:
    return Question("问", channel, "default", caller.principal, credential=caller.credential)


def refusal_code(callers: Callers, secret: str) -> str:
    with pytest.raises(AuthError) as caught:
        callers.check(secret)
    assert secret == "" or secret not in str(caught.value)
    return caught.value.code


def test_an_api_key_is_accepted() -> None:
    """Each configured key is accepted, as UTF-8; its caller's principal has a fingerprint of the key."""
    callers = Callers("key", api_keys=(API_KEY, "钥匙-假的"))

    first, second = callers.check(API_KEY), callers.check("钥匙-假的")

    assert first == Caller(f"key:{fingerprint(API_KEY)}")
    assert second.principal.startswith("key:")
    assert second != first


@pytest.mark.parametrize(
    "shown", ["", "wrong", API_KEY[:-1], API_KEY + "x", API_KEY.upper(), "钥匙", "\ud800", "x" * 9000]
)
def test_a_wrong_key_is_refused(shown: str) -> None:
    """Only an exact match is accepted."""
    assert refusal_code(Callers("key", api_keys=(API_KEY,)), shown) == "auth_failed"


def test_a_key_may_have_a_name() -> None:
    """The name is no part of the key, whose principal is that of the key alone; base64's padding makes no name."""
    plain, padded = "not-a-real-key=1", "bm90LWEtcmVhbC1rZXk="
    named, unnamed = Callers("key", api_keys=(f"reports={plain}", padded)), Callers("key", api_keys=(padded, "x"))

    caller = named.check(plain)
    assert (refusal_code(named, f"reports={plain}"), caller.principal) == ("auth_failed", f"key:{fingerprint(plain)}")
    assert named.key_name(caller.on_behalf_of("ann").principal) == "reports"
    assert named.check(padded) == unnamed.check(padded)
    assert unnamed.key_name(unnamed.check(padded).principal) == fingerprint(padded)
    assert (named.key_name("anonymous/reports"), named.key_name("user:reports")) == ("", "")


@pytest.mark.parametrize("keys", [(), ("",)])
def test_without_keys_every_credential_is_refused(keys: tuple[str, ...]) -> None:
    """No key, or an empty one, does not open the endpoint."""
    callers = Callers("key", api_keys=keys)

    assert refusal_code(callers, "") == "auth_failed"
    assert refusal_code(callers, API_KEY) == "auth_failed"
    assert not callers.open


@pytest.mark.every_redis
def test_a_users_token_is_accepted(callers: Callers) -> None:
    """The principal names the token's user; the caller's credential is the sealed token."""
    caller = callers.check(TOKEN)

    assert caller.principal == "user:E1001"
    assert TOKEN not in caller.credential
    assert unseal_any((KEY,), caller.credential) == TOKEN
    assert caller.credential not in repr(caller)


@pytest.mark.parametrize("shown", ["", "wrong", TOKEN + "x", "\udfff", "x" * 8193])
def test_a_wrong_token_is_refused(callers: Callers, redis_client: redis.Redis, shown: str) -> None:
    """Also text that Redis cannot be asked for, such as a lone surrogate, and one that is too long, but in Redis."""
    redis_client.set(f"authorization:token:{'x' * 8193}", USER.to_json())

    assert refusal_code(callers, shown) == "auth_failed"


@pytest.mark.every_redis
def test_a_token_with_an_unreadable_value_is_accepted(callers: Callers, redis_client: redis.Redis) -> None:
    """If the auth service stored the user in a form of its own, the principal is a fingerprint of the token."""
    redis_client.set("authorization:token:theirs", "a form of their own")
    redis_client.hset("authorization:token:hash", "user", "x")

    theirs, hashed = callers.check("theirs"), callers.check("hash")

    assert theirs.principal == f"user:{fingerprint('theirs')}"
    assert "theirs" not in theirs.principal
    assert hashed.principal != theirs.principal
    assert callers.identity(question_of(theirs)) == Identity("cached", None, "theirs")


def test_an_open_endpoint_requires_no_credential() -> None:
    """In mode none every caller is anonymous, except one with a valid API key."""
    callers = Callers("none", api_keys=(API_KEY,))

    assert callers.open
    assert callers.anonymous() == Caller("anonymous")
    assert callers.check("wrong") == callers.check("") == Caller("anonymous")
    assert callers.check(API_KEY) == callers.program(API_KEY) == Callers("key", api_keys=(API_KEY,)).check(API_KEY)


def test_a_question_of_a_withdrawn_key_is_refused() -> None:
    """A replica asks a key's question only while the key is configured."""
    caller = Callers("key", api_keys=(API_KEY,)).check(API_KEY)

    assert Callers("key", api_keys=("other", API_KEY)).identity(question_of(caller)) == Identity("none")
    with pytest.raises(AuthError) as caught:
        Callers("key", api_keys=("other",)).identity(question_of(caller))

    assert caught.value.code == "auth_refused"


@pytest.mark.every_redis
@pytest.mark.parametrize("channel", ["chat", "realtime"])
def test_a_users_question_is_asked_with_their_token(callers: Callers, channel: str) -> None:
    """The identity has the user and the token that the client sent."""
    question = question_of(callers.check(TOKEN), channel)

    assert callers.identity(question) == Identity("cached", USER, TOKEN)


def test_a_question_whose_token_expired_is_refused(callers: Callers, redis_client: redis.Redis) -> None:
    """A token is valid as long as its key is in Redis, and checked again when the question is asked."""
    question = question_of(callers.check(TOKEN))
    redis_client.delete(f"authorization:token:{TOKEN}")
    assert refusal_code(callers, TOKEN) == "auth_failed"

    with pytest.raises(AuthError) as caught:
        callers.identity(question)

    assert caught.value.code == "auth_refused"


def test_a_token_of_another_user_is_refused(callers: Callers, tokens: TokenStore) -> None:
    """The token must be the question's user's own; one that cannot be unsealed is `credential_lost`."""
    tokens.save("lisi", "", "lisis-fake-token", UserInfo("E2002"), DAY)
    lisi = callers.check("lisis-fake-token")

    refused = {lisi.credential: "auth_refused", "": "auth_refused"}
    lost = {"damaged": "credential_lost", seal(bytes(32), TOKEN): "credential_lost"}
    for credential, code in {**refused, **lost}.items():
        with pytest.raises(AuthError) as caught:
            callers.identity(question_of(Caller("user:E1001", credential)))
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
def test_a_question_of_another_mode_is_refused(tokens: TokenStore, mode: CallerMode, principal: str) -> None:
    """A question that was accepted before the mode was changed is refused in the new mode."""
    callers = Callers(mode, api_keys=(API_KEY,), tokens=tokens, key=KEY)

    with pytest.raises(AuthError) as caught:
        callers.identity(question_of(Caller(principal, seal(KEY, TOKEN))))

    assert caught.value.code == "auth_refused"


def test_an_identity_waits_for_redis() -> None:
    """An outage of Redis shorter than `outage` seconds only delays the identity."""
    with RedisServer(aof=True) as server, server.client() as client:
        tokens = TokenStore(ScriptRunner(client))
        tokens.save("zhangsan", "", TOKEN, USER, DAY)
        callers = Callers("token", tokens=tokens, key=KEY, outage=60.0)
        question = question_of(callers.check(TOKEN))
        server.kill()
        found: list[Identity] = []
        asking = threading.Thread(target=lambda: found.append(callers.identity(question)))

        asking.start()
        server.start()
        asking.join(60.0)

    assert found == [Identity("cached", USER, TOKEN)]


def test_an_outage_beyond_the_timeout_is_auth_unavailable() -> None:
    """The wait for Redis ends after `outage` seconds; until a token is checked it is neither accepted nor refused."""
    with redis_client_for(f"redis://127.0.0.1:{free_port()}/0") as client:
        callers = Callers("token", tokens=TokenStore(ScriptRunner(client)), key=KEY, outage=0.0)

        with pytest.raises(StoreUnavailable):
            callers.check(TOKEN)
        with pytest.raises(AuthError) as caught:
            callers.identity(question_of(Caller("user:E1001", seal(KEY, TOKEN))))

    assert caught.value.code == "auth_unavailable"


def rest_principal(callers: Callers, secret: str | None) -> str:
    """Return the principal of a REST request with this credential, or the code of the error."""
    try:
        return callers.program(secret).principal
    except AuthError as exc:
        return exc.code


def test_rest_accepts_api_keys_in_every_mode(tokens: TokenStore) -> None:
    """REST also accepts the credentials of the mode that sockets use."""
    modes: tuple[CallerMode, ...] = ("key", "token", "none")
    key, token, none = (Callers(mode, api_keys=(API_KEY,), tokens=tokens, key=KEY) for mode in modes)

    assert [rest_principal(each, API_KEY) for each in (key, token, none)] == [f"key:{fingerprint(API_KEY)}"] * 3
    assert [rest_principal(each, TOKEN) for each in (key, token, none)] == ["auth_failed", "user:E1001", "anonymous"]
    for wrong in ("wrong", "", "\ud800", "x" * 9000):
        shown = [rest_principal(each, wrong) for each in (key, token, none)]
        assert shown == ["auth_failed", "auth_failed", "anonymous"]
    missing = [rest_principal(each, None) for each in (key, token, none)]
    assert missing == ["auth_required", "auth_required", "anonymous"]


@pytest.mark.parametrize("channel", [HTTP, BATCH], ids=lambda channel: channel.name)
def test_a_question_of_an_api_key_is_asked_in_mode_token(tokens: TokenStore, channel: Channel) -> None:
    """The REST channels accept API keys in every mode; a withdrawn key is refused."""
    callers = Callers("token", api_keys=(API_KEY,), tokens=tokens, key=KEY)
    question = question_of(callers.program(API_KEY), channel.name)

    assert callers.identity(question, accepts_api_keys=channel.accepts_api_keys) == Identity("none")
    with pytest.raises(AuthError):
        Callers("token", api_keys=("another-fake-key",)).identity(question, accepts_api_keys=channel.accepts_api_keys)


@pytest.mark.parametrize("mode", ["key", "token", "none"])
def test_questions_of_an_administrator_are_asked_by_rest_channels_alone(tokens: TokenStore, mode: CallerMode) -> None:
    """No credential of a caller names an administrator; sockets, which take none of them, refuse such a question."""
    question = question_of(Caller("admin:wang"), BATCH.name)
    callers = Callers(mode, tokens=tokens, key=KEY)

    assert callers.identity(question, accepts_api_keys=BATCH.accepts_api_keys) == Identity("none")
    with pytest.raises(AuthError):
        callers.identity(question)


def test_a_key_asks_for_its_own_users() -> None:
    """On every replica their identity is the key's, until the key is withdrawn; no name is another key's user."""
    callers = Callers("key", api_keys=(API_KEY,))
    caller = callers.check(API_KEY)
    ann = caller.on_behalf_of("ann/key:x")

    assert callers.identity(question_of(ann)) == Identity("none")
    assert end_user_of(question_of(ann)) == "ann/key:x"
    assert caller.on_behalf_of("") == caller
    with pytest.raises(AuthError):
        Callers("key", api_keys=("obviously-fake-key-2",)).identity(question_of(ann))
    with pytest.raises(AuthError):
        callers.identity(question_of(Caller(f"key:{'0' * 16}/{caller.principal}")))


def test_a_user_asks_for_nobody_else(callers: Callers, tokens: TokenStore) -> None:
    """A token names its person, also one whose code looks like a key with a user."""
    caller = callers.check(TOKEN)
    odd = UserInfo("a/b")
    tokens.save("odd", "", "obviously-fake-token-2", odd, DAY)
    other = callers.check("obviously-fake-token-2")

    assert caller.on_behalf_of("ann") == caller
    assert (end_user_of(question_of(other)), callers.identity(question_of(other)).user) == ("", odd)


def test_anonymous_callers_have_users_too() -> None:
    """Where no credential is required; their identity has no user and no token."""
    callers = Callers("none")

    assert callers.identity(question_of(Caller("anonymous"))) == Identity("none")
    assert callers.identity(question_of(callers.anonymous().on_behalf_of("ann"))) == Identity("none")
