"""Keys: changes of bots and key rotations keep conversations, tokens and streams."""

from __future__ import annotations

import json
import logging

import pytest
import redis

from config.settings import load_settings
from demo.mocks.dify.server import MockDify
from demo.mocks.openai.server import MockOpenAI
from services.conversations.history_store import HistoryStore
from services.conversations.store import ConversationStore, Memory
from services.errors import StoreUnavailable
from services.identity.keys import Keys
from services.identity.secret_store import KEY, SecretStore
from services.models import Exchange, Question
from services.redis.store import ScriptRunner, connect
from services.streams.access import Access
from services.wecom.callback import derive_key
from tests.support.replicas import AES_KEY, TOKEN, AppServer, dify_settings, settings_for
from tests.support.servers.processes import RedisServer, free_port, wait_until
from utils.keyring import derive, keys_of
from utils.sealed import seal, unseal_any

NEW_AES_KEY = "NotARealEncodingAESKeyxxxxxxxxxxxxxxxxxxxxx"
AES_KEYS = {"hr": NEW_AES_KEY, "it": NEW_AES_KEY.replace("Not", "Nor")}
SECRET, NEW_SECRET = "not-a-real-secret-1", "not-a-real-secret-2"


def bots(*names: str) -> dict[str, str]:
    """Return WECHAT_BOTS with these bots in this order, each with an AES key of its own."""
    given = {name: {"WECHAT_TOKEN": TOKEN, "WECHAT_ENCODING_AES_KEY": AES_KEYS[name]} for name in names}
    return {"WECHAT_BOTS": json.dumps(given)}


ROTATED = {"WECHAT_ENCODING_AES_KEY": f"{NEW_AES_KEY},{AES_KEY}"}
full = pytest.mark.full
#: The settings when a conversation began, and the settings when it continues.
CHANGES = [
    pytest.param({}, bots("hr"), id="add"),
    pytest.param(bots("hr"), bots("hr", "it"), id="add-another", marks=full),
    pytest.param(bots("hr", "it"), bots("it", "hr"), id="reorder", marks=full),
    pytest.param(bots("hr", "it"), bots("it"), id="remove", marks=full),
    pytest.param({}, ROTATED, id="rotate-aes"),
    pytest.param({}, {"SECRET_KEY": SECRET}, id="set-secret"),
    pytest.param({"SECRET_KEY": SECRET}, {"SECRET_KEY": f"{NEW_SECRET},{SECRET}"}, id="rotate-secret", marks=full),
    pytest.param({"SECRET_KEY": SECRET}, {"SECRET_KEY": SECRET, **bots("hr")}, id="add-with-secret", marks=full),
]


def test_a_bot_without_an_aes_key_has_keys_of_its_secret() -> None:
    """A bot of the long connection has no AES key; one that had callbacks before keeps its keys."""
    own = {"WECHAT_MODE": "websocket", "WECHAT_BOT_ID": "aibHR", "WECHAT_BOT_SECRET": "fake-secret"}
    given = {"hr": own, "it": {**own, "WECHAT_BOT_ID": "aibIT", "WECHAT_ENCODING_AES_KEY": AES_KEY}}
    settings = load_settings(settings_for("redis://127.0.0.1:1", WECHAT_BOTS=json.dumps(given)), None)
    keys = Keys(settings, SecretStore(ScriptRunner(connect("redis://127.0.0.1:1", pool_size=1))))

    streams = keys.streams()

    assert keys_of(streams["hr"]) == (derive(b"fake-secret", "stream"),)
    assert keys_of(streams["it"]) == keys_of(streams["default"]) == (derive_key(AES_KEY, "stream"),)


def test_a_renewed_secret_of_a_bot_opens_what_the_former_one_sealed() -> None:
    """WECHAT_BOT_SECRET is a list: the first makes the names and seals, all of them find and open."""

    def keys(secrets: str) -> Keys:
        own = {"WECHAT_MODE": "websocket", "WECHAT_BOT_ID": "aibHR", "WECHAT_BOT_SECRET": secrets}
        given = {**own, "WECHAT_TOKEN": "", "WECHAT_ENCODING_AES_KEY": ""}
        return Keys(
            load_settings(settings_for("redis://127.0.0.1:1", **given), None),
            SecretStore(ScriptRunner(connect("redis://127.0.0.1:1", pool_size=1))),
        )

    (former,) = keys_of(keys("old-secret").conversations()["default"])
    (new,) = keys_of(keys("new-secret").conversations()["default"])
    assert list(keys_of(keys("new-secret,old-secret").conversations()["default"])) == [new, former]
    assert list(keys_of(keys("new-secret,old-secret").tokens())) == [
        *keys_of(keys("new-secret").tokens()),
        *keys_of(keys("old-secret").tokens()),
    ]


@pytest.mark.parametrize(("before", "after"), CHANGES)
def test_a_conversation_survives_changes_of_bots_and_keys(
    redis_url: str, before: dict[str, str], after: dict[str, str]
) -> None:
    """The second and the third question are asked in the same conversation of the provider."""
    with MockDify() as dify:
        ask(redis_url, "一", **dify_settings(dify.base_url), **before)
        ask(redis_url, "二", "三", **dify_settings(dify.base_url), **after)
        ids = [str(request.body.get("conversation_id", "")) for request in dify.requests]

    assert ids[0] == ""
    assert ids[1] == ids[2] != ""


def ask(redis_url: str, *questions: str, **settings: str) -> None:
    """Ask questions at a gateway with these settings, and wait for their answers."""
    with AppServer(redis_url, **settings) as app_server, app_server.user() as user:
        for question in questions:
            user.sees_finish(user.says(question), every=0.02)
            wait_until(lambda: app_server.container.manager.running == 0)


def test_stored_turns_survive_a_key_rotation(redis_url: str) -> None:
    """For a provider without conversations of its own, earlier turns are carried over to the new key."""
    with MockOpenAI() as server:
        model = {"RAG_PROVIDER": "openai", "OPENAI_BASE_URL": server.base_url, "OPENAI_API_KEY": "not-a-real-key"}
        ask(redis_url, "问题0", **model)
        ask(redis_url, "问题1", "问题2", **model, **ROTATED)

        sent = [[m["content"] for m in one.body["messages"] if m["role"] == "user"] for one in server.asked]
    assert sent == [["问题0"], ["问题0", "问题1"], ["问题0", "问题1", "问题2"]]


def test_a_reset_conversation_stays_reset_after_a_rotation(redis_url: str) -> None:
    """After /reset, the conversation under the former key is not carried over."""
    with MockDify() as dify:
        settings = dify_settings(dify.base_url)
        ask(redis_url, "一", **settings)
        ask(redis_url, "/reset", "二", **settings, **ROTATED)

        assert [request.body.get("conversation_id", "") for request in dify.requests] == ["", ""]


# Carrying conversations over, step by step


@pytest.mark.every_redis
def test_entering_a_conversation_finds_the_one_of_a_former_key(runner: ScriptRunner, redis_client: redis.Redis) -> None:
    """`enter` finds it without another round trip; id, reset count and turns are carried over once, with a new TTL."""
    question = Question("?", "wecom", "default", "zhangsan")
    old, new = (store_with(runner, *ring) for ring in ((b"old",), (b"new", b"old")))
    history = HistoryStore(runner, ttl=100.0)
    former = old.key("app", question, bot="default")
    old.remember(former, Memory("c1", "0"))
    history.add(former, "0", "s0", Exchange("问", "答"))
    key = new.key("app", question, bot="default")

    found = new.enter(key, "s1").memory
    carried = new.carry_over(key, found.former)
    again = new.enter(key, "s1").memory

    assert (found, carried, again) == (Memory("", "0", former), Memory("c1", "0"), Memory("c1", "0"))
    assert history.load(key) == (Exchange("问", "答"),)
    assert all(0 < redis_client.pttl(one) <= 100_000 for one in (key, f"{{{key}}}:resets", f"{{{key}}}:history"))
    assert old.load(former) == Memory("c1", "0")


def test_a_conversation_in_use_is_not_overwritten(runner: ScriptRunner) -> None:
    """Of several replicas that carry it over, only the first one changes the conversation."""
    question = Question("?", "wecom", "default", "zhangsan")
    old, new = (store_with(runner, *ring) for ring in ((b"old",), (b"new", b"old")))
    key, former = new.key("app", question, bot="default"), old.key("app", question, bot="default")
    old.remember(former, Memory("c1", "0"))
    new.remember(key, Memory("c2", "0"))

    assert new.carry_over(key, former) == Memory("c2", "0")
    assert new.enter(key, "s").memory == Memory("c2", "0")


def store_with(runner: ScriptRunner, *ring: bytes) -> ConversationStore:
    return ConversationStore(runner, secret={"default": lambda: ring}, ttl=100.0)


# Readers and ids


def test_readers_are_recognised_by_any_key_of_a_replica() -> None:
    """During a key rotation, replicas with different orders of the keys serve each other's streams."""
    question = Question("?", "wecom", "default", "zhangsan", "wrGROUP", "m1")
    rings = [(b"a",), (b"a", b"b"), (b"b", b"a"), (b"b",)]
    access = [Access({"default": lambda ring=ring: ring}) for ring in rings]  # type: ignore[misc]

    for one, other in ((0, 1), (1, 0), (1, 2), (2, 1), (2, 3), (3, 2)):
        readers = access[one].readers(question)
        assert access[other].allows(readers, "default", "zhangsan", "")
        assert access[other].allows(readers, "default", "lisi", "wrGROUP")
        assert not access[other].allows(readers, "default", "lisi", "")
    assert access[0].stream_id(question) == access[1].stream_id(question) != access[2].stream_id(question)


# Data of no bot

NO_BOT = {"WECHAT_TOKEN": "", "WECHAT_ENCODING_AES_KEY": "", "API_KEYS": "not-a-real-key"}


def keys(redis_url: str, **changes: str) -> Keys:
    client = connect(redis_url, pool_size=2)
    return Keys(load_settings(settings_for(redis_url, **changes), None), SecretStore(ScriptRunner(client)))


def test_without_a_bot_names_are_derived_from_a_random_secret_in_redis(redis_url: str, stored: redis.Redis) -> None:
    """All replicas share it, it has no expiry, and it cannot be computed from the settings."""
    one, two = (keys(redis_url, **NO_BOT) for _ in range(2))

    assert not stored.exists(KEY)
    assert keys_of(one.names()) == keys_of(two.names())
    assert keys_of(one.streams()["default"])[0] == keys_of(two.streams()["default"])[0]
    assert len(str(stored.get(KEY))) == 64
    assert stored.ttl(KEY) == -1
    stored.flushdb()
    assert keys_of(keys(redis_url, **NO_BOT).names()) != keys_of(one.names())


def test_with_a_secret_key_no_secret_is_stored_in_redis(redis_url: str, stored: redis.Redis) -> None:
    """SECRET_KEY replaces all other derivations; every purpose and bot gets a key of its own."""
    ring = keys(redis_url, SECRET_KEY=f"{NEW_SECRET},{SECRET}", **bots("hr"))
    rings = [*ring.streams().values(), *ring.conversations().values(), ring.names(), ring.tokens()]

    first, second = zip(*(keys_of(one)[:2] for one in rings), strict=True)

    assert len({*first, *second}) == 2 * len(rings)
    assert all(len(key) == 32 for key in first)
    assert not stored.exists(KEY)


def test_tokens_are_never_sealed_with_a_key_stored_in_redis(redis_url: str, stored: redis.Redis) -> None:
    """Without SECRET_KEY and without a bot, each process seals with a random key that no other process can open."""
    one, two = (keys(redis_url, **NO_BOT, APP_NAME="WechatLaibao") for _ in range(2))
    keys_of(one.names())
    sealed = seal(keys_of(one.tokens())[0], "user-token-not-real")

    assert unseal_any((keys_of(one.tokens())[0],), sealed)
    with pytest.raises(ValueError, match="MAC"):
        unseal_any(keys_of(two.tokens()), sealed)


@pytest.mark.parametrize("more", [bots("hr"), {"SECRET_KEY": SECRET}])
def test_replicas_unseal_each_others_tokens(redis_url: str, more: dict[str, str]) -> None:
    """With SECRET_KEY or a bot, this holds also while a bot is being added at the end of the list."""
    variables = {**NO_BOT, **more}
    later = {**NO_BOT, **bots("hr", "it"), **{name: value for name, value in more.items() if name == "SECRET_KEY"}}
    one, two = keys(redis_url, **variables), keys(redis_url, **later)

    assert unseal_any(keys_of(two.tokens()), seal(keys_of(one.tokens())[0], "t")) == "t"
    assert unseal_any(keys_of(one.tokens()), seal(keys_of(two.tokens())[0], "t")) == "t"


# The random secret


def test_a_secret_is_fetched_once_when_it_is_first_needed(runner: ScriptRunner, redis_client: redis.Redis) -> None:
    """Later calls do not use Redis."""
    store = SecretStore(runner)
    assert not redis_client.exists(KEY)
    known = store.secrets()
    redis_client.delete(KEY)

    assert store.secrets() == known
    assert not redis_client.exists(KEY)


def test_a_secret_that_redis_lost_is_written_back(runner: ScriptRunner, redis_client: redis.Redis) -> None:
    """A process that knows the secret checks for it periodically and writes it again."""
    store = SecretStore(runner, interval=0.02)
    known = store.secrets()
    store.start()
    try:
        redis_client.delete(KEY)

        wait_until(lambda: redis_client.get(KEY) == known[0].decode())
    finally:
        store.close()


def test_replicas_adopt_a_new_secret_of_another_replica(
    runner: ScriptRunner, redis_client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    """The value in Redis becomes the first; earlier values stay for reading. One warning is logged, without values."""
    one = SecretStore(runner)
    former = one.secrets()
    redis_client.delete(KEY)
    two = SecretStore(runner)
    (present,) = two.secrets()

    with caplog.at_level(logging.WARNING):
        agreed = one.check()

    assert agreed == (present, *former)
    logged = [record.levelname for record in caplog.records if record.name == "services.identity.secret_store"]
    assert logged == ["WARNING"]
    assert former[0].decode() not in caplog.text
    assert one.check() == agreed


def test_a_process_that_starts_without_redis_gets_the_secret_later() -> None:
    """Until Redis answers, `secrets` raises StoreUnavailable."""
    port = free_port()
    with connect(f"redis://127.0.0.1:{port}/1", pool_size=2) as client:
        store = SecretStore(ScriptRunner(client))
        with pytest.raises(StoreUnavailable):
            store.secrets()
        with RedisServer(port=port):
            assert wait_until(store.secrets)


def test_a_gateway_without_a_bot_starts_without_redis_and_recovers() -> None:
    """A question gets `store_unavailable` while Redis is unreachable, and an answer once Redis is there."""
    port = free_port()
    with AppServer(f"redis://127.0.0.1:{port}/1", **NO_BOT) as app_server:
        gateway = app_server.container.gateway
        caller = app_server.container.callers.check("not-a-real-key")
        question = Question("年假?", "http", "default", caller.principal, msgid="m1", session="s")
        refused = gateway.ask(question)
        allowed = app_server.container.limiter.question("key:1", "client")
        with RedisServer(port=port):
            wait_until(lambda: gateway.ask(question).status == "completed", timeout=30.0)

    assert (refused.status, refused.error_code) == ("error", "store_unavailable")
    assert allowed
