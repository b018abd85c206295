"""The container: what a replica consists of, when it is ready for traffic, and that closing releases everything."""

from __future__ import annotations

import json
import logging
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import redis
import requests

from bootstrap.blueprints import askable_bots
from bootstrap.container import Container
from bootstrap.factories import sql_pools, user_tokens
from config.settings import load_settings
from config.texts import ZH
from demo.mocks.auth import DEMO_USER_QUERY, MockAuth, create_demo_users
from demo.mocks.dify.server import MockDify
from services.errors import AuthError
from services.feedback.records import RatedAnswer
from services.models import Question
from tests.support.replicas import AES_KEY, TOKEN, AppServer, dify_settings, settings_for
from tests.support.schema import migrated
from tests.support.servers.processes import MariaServer, RedisServer, free_port, wait_until
from utils.running_time import running_time

QUESTION = Question("年假怎么申请", "wecom", "default", "zhangsan", msgid="m-1")
OTHER_KEY = "NotARealEncodingAESKeyxxxxxxxxxxxxxxxxxxxxx"


def container(redis_url: str, **changes: str) -> Container:
    return Container(load_settings(settings_for(redis_url, **changes), None))


def product_threads() -> set[threading.Thread]:
    """Return the product's threads that are alive."""
    return {t for t in threading.enumerate() if t.name in ("producer", "flusher") or t.name.startswith("probe-")}


def test_nothing_connects_before_it_is_used() -> None:
    """Building a container opens no connection, so it works with addresses that nothing listens on."""
    nowhere = f"http://127.0.0.1:{free_port()}"
    built = container(
        f"redis://127.0.0.1:{free_port()}/1",
        **dify_settings(nowhere),
        AUTH_MODE="external",
        AUTH_SERVICE_URL=nowhere,
        MYSQL_HOST="127.0.0.1",
        MYSQL_PORT=str(free_port()),
        MYSQL_DATABASE="laibao",
        AUTH_USER_QUERY=DEMO_USER_QUERY,
    )

    assert not built.ready
    built.close()


@pytest.mark.parametrize("secret", ["", "obviously-fake-secret-key-of-32-bytes-x"])
def test_a_replica_that_never_started_writes_nothing(
    redis_url: str, stored: redis.Redis, tmp_path: Path, secret: str
) -> None:
    """Closing it leaves Redis as it was, also with a database and without a key of its own."""
    url = migrated(f"sqlite:///{tmp_path / 'own.db'}")
    replica = container(
        redis_url, DATABASE_PATH=url.removeprefix("sqlite:///"), SECRET_KEY=secret, WECHAT_TOKEN="",
        WECHAT_ENCODING_AES_KEY="", API_KEYS="obviously-fake-key",
    )  # fmt: skip

    replica.close()

    assert stored.keys("*") == []


def test_a_replica_is_ready_from_its_start_to_its_drain(redis_url: str) -> None:
    """`ready` is false before `start` and after `close`."""
    replica = container(redis_url)
    before = replica.ready
    replica.start()
    running = replica.ready
    replica.close()

    assert (before, running, replica.ready) == (False, True, False)


def test_the_start_logs_what_was_started(redis_url: str, caplog: pytest.LogCaptureFixture) -> None:
    """One line has bots, providers and the authentication mode."""
    bots = {"hr": {"WECHAT_TOKEN": "HRTESTTOKEN", "WECHAT_ENCODING_AES_KEY": OTHER_KEY, "RAG_PROVIDER": "mock"}}
    replica = container(
        redis_url, **dify_settings("http://dify.invalid"), WECHAT_BOTS=json.dumps(bots), AUTH_MODE="none"
    )
    with caplog.at_level(logging.INFO):
        replica.start()
    replica.close()

    started = next(vars(record) for record in caplog.records if record.message == "started")
    assert (started["bots"], started["providers"], started["auth"]) == (["default", "hr"], ["dify", "mock"], "none")


def test_a_missing_required_input_is_logged_at_start(redis_url: str, caplog: pytest.LogCaptureFixture) -> None:
    """An app without a required input may hang instead of failing; an unreachable Dify does not stop the start."""
    required = [{"text-input": {"variable": name, "required": True}} for name in ("department", "city")]
    with MockDify(user_input_form=required) as dify:
        inputs = json.dumps({"city": "上海"})
        replicas = [
            container(redis_url, **dify_settings(dify.base_url), DIFY_INPUTS=inputs),
            container(redis_url, **dify_settings(f"http://127.0.0.1:{free_port()}")),
        ]
        for replica in replicas:
            replica.start()
        wait_until(lambda: not [t for t in threading.enumerate() if t.name == "missing-inputs"], timeout=30.0)
        for replica in replicas:
            replica.close()

    named = [(vars(record)["bot"], vars(record)["input"]) for record in caplog.records if hasattr(record, "input")]
    assert named == [("default", "department")]


def test_the_first_question_finds_every_script_loaded(redis_url: str, stored: redis.Redis) -> None:
    """The start loads all scripts, so no callback has to."""
    replica = container(redis_url)
    replica.start()
    loaded = stored.info("memory")["number_of_cached_scripts"]

    replica.gateway.ask(QUESTION)
    wait_until(lambda: replica.manager.running == 0, timeout=30.0)

    assert stored.info("memory")["number_of_cached_scripts"] == loaded
    replica.close()


def test_closing_releases_everything(redis_url: str, stored: redis.Redis, tmp_path: Path) -> None:
    """Threads and connections to Redis, Dify and the auth API are closed, also of an answer that did not end."""
    url = f"sqlite:///{tmp_path / 'users.db'}"
    create_demo_users(url)
    others, before = len(stored.client_list()), product_threads()
    with MockDify() as dify, MockAuth() as auth:
        replica = container(
            redis_url,
            **dify_settings(dify.base_url),
            AUTH_MODE="external",
            AUTH_SERVICE_URL=auth.url,
            DATABASE_PATH=str(tmp_path / "users.db"),
            AUTH_USER_QUERY=DEMO_USER_QUERY,
            DRAIN_SECONDS="0",
        )
        replica.start()
        replica.health.report()
        replica.gateway.ask(QUESTION)
        wait_until(lambda: replica.manager.running == 0, timeout=30.0)
        replica.gateway.ask(Question("[[silent]]", "wecom", "default", "zhangsan", msgid="m-2"))
        wait_until(lambda: dify.open_streams == 1, timeout=30.0)
        replica.gateway.ask(Question("?", "wecom", "default", "wangwu", msgid="m-3"))
        wait_until(lambda: replica.manager.running == 1, timeout=30.0)
        assert dify.open_connections
        assert len(stored.client_list()) > others

        replica.close()

        wait_until(lambda: not product_threads() - before, timeout=30.0)
        wait_until(lambda: len(stored.client_list()) == others, timeout=30.0)
        wait_until(lambda: dify.open_connections == 0, timeout=30.0)
        assert dify.stops == []
        assert auth.calls == {"E1001": 1, "E1002": 1, "wechatlaibao-probe": 1}


def test_a_draining_replica_lets_answers_finish(redis_url: str) -> None:
    """`close` waits up to DRAIN_SECONDS for running answers."""
    with MockDify(delay=0.02) as dify:
        replica = container(redis_url, **dify_settings(dify.base_url), DRAIN_SECONDS="30")
        replica.start()
        asked = replica.gateway.ask(QUESTION)

        replica.close()

        reader = container(redis_url)
        end = reader.streams.read(asked.stream_id)
        reader.close()
        assert end
        assert (end.status, end.text) == ("completed", dify.expected_answer(QUESTION.text))


def test_closing_releases_the_lease_of_an_unfinished_answer(redis_url: str) -> None:
    """`close` releases its lease, so another replica can take over without waiting for the lease to expire."""
    with MockDify() as dify:
        replica = container(redis_url, **dify_settings(dify.base_url), DRAIN_SECONDS="0")
        replica.start()
        asked = replica.gateway.ask(Question("[[silent]]", "wecom", "default", "zhangsan", msgid="m-1"))
        replica.close()

    reader = container(redis_url)
    left = reader.streams.read(asked.stream_id)
    reader.close()
    assert left
    assert (left.status, left.lapsed) == ("processing", True)


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({}, ["redis", "clock"]),
        ({"AUTH_MODE": "allowlist", "AUTH_ALLOWLIST": "zhangsan"}, ["redis", "clock"]),
        (
            {"AUTH_MODE": "allowlist", "AUTH_ALLOWLIST": "zhangsan", "DATABASE_PATH": "own"},
            ["redis", "clock", "sql", "rules"],
        ),
        ({"DATABASE_PATH": "own", "BATCH_ENABLED": "false"}, ["redis", "clock", "sql", "rules"]),
        ({"AUTH_MODE": "external"}, ["redis", "clock", "sql", "auth", "rules"]),
    ],
    ids=["none", "allowlist", "allowlist-sql", "ratings", "external"],
)
def test_health_shows_the_parts_that_are_used(
    redis_url: str, tmp_path: Path, changes: dict[str, str], parts: list[str]
) -> None:
    """A dependency that the settings do not use is not checked."""
    create_demo_users(migrated(f"sqlite:///{tmp_path / 'users.db'}"))
    if "DATABASE_PATH" in changes:
        changes = {**changes, "DATABASE_PATH": str(tmp_path / "users.db")}
    with MockAuth() as auth:
        if changes.get("AUTH_MODE") == "external":
            where = {"AUTH_SERVICE_URL": auth.url, "DATABASE_PATH": str(tmp_path / "users.db")}
            changes = {**changes, **where, "AUTH_USER_QUERY": DEMO_USER_QUERY}
        replica = container(redis_url, **changes)

        report = replica.health.report()

        assert (report["status"], report["dependencies"]) == ("healthy", dict.fromkeys(parts, "ok"))
        assert set(auth.calls) <= {"wechatlaibao-probe"}
        replica.close()


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({}, "no replica holds the connection"),
        ({"problem": "853000"}, "not subscribed: wrong WECHAT_BOT_ID or WECHAT_BOT_SECRET (853000)"),
        ({"problem": "tls_failed"}, "not subscribed: tls_failed"),
        ({"evicted": "evicted"}, "another program runs this bot; then: python -m tools.wecom resume default"),
    ],
    ids=["nobody", "credentials", "network", "evicted"],
)
def test_health_says_why_a_bot_is_not_subscribed(redis_url: str, fields: dict[str, str], word: str) -> None:
    """The words are an operator's next step; while a replica holds the connection the part is ok."""
    bot = {"WECHAT_MODE": "websocket", "WECHAT_BOT_ID": "aibTEST", "WECHAT_BOT_SECRET": "fake-secret"}
    replica, held = container(redis_url, **bot), container(redis_url, **bot)
    fence = replica.leases.take("default", "a")

    assert held.health.report()["dependencies"]["long_connection:default"] == "ok"
    replica.leases.give_back("default", "a", fence, **fields)

    report = replica.health.report()
    assert (report["status"], report["dependencies"]["long_connection:default"]) == ("degraded", word)
    for each in (replica, held):
        each.close()


def test_health_and_options_count_every_app(redis_url: str, tmp_path: Path) -> None:
    """One that is away is reported, and programs may give the options that all of them take."""
    rules = tmp_path / "access.yaml"
    rules.write_text("- {allow: true, channel: wecom, use: hr-app}", "utf-8")
    openai = {"RAG_PROVIDER": "openai", "OPENAI_API_KEY": "sk-fake", "OPENAI_BASE_URL": "http://127.0.0.1:9"}
    with MockDify() as dify:
        own = dify_settings(dify.base_url)
        apps = [json.dumps({"hr-app": one}) for one in (own, openai)]
        replicas = [container(redis_url, **own, APPS=each, ACCESS_FILE=str(rules)) for each in apps]
        reports = [replica.health.report()["services"]["rag"] for replica in replicas]

    assert reports == [True, False]
    assert [set(askable_bots(replica)["default"]) for replica in replicas] == [{"inputs"}, set()]
    for replica in replicas:
        replica.close()


def test_health_reports_broken_dependencies_that_answer(redis_server: RedisServer, tmp_path: Path) -> None:
    """An auth API that fails every login, a wrong clock, a folder that cannot be written, a missing Redis database."""
    create_demo_users(migrated(f"sqlite:///{tmp_path / 'users.db'}"))
    with MockAuth() as auth, MockDify() as dify:
        auth.behaviour, dify.clock_ahead = "garbage", 1200.0
        external = {"AUTH_MODE": "external", "AUTH_SERVICE_URL": auth.url, "AUTH_USER_QUERY": DEMO_USER_QUERY}
        batches = {"BATCH_STORAGE_PATH": "/proc/nope", "BATCH_REDIS_URL": redis_server.url(db=99)}
        own = {"DATABASE_PATH": str(tmp_path / "users.db"), **external, **batches}
        replica = container(redis_server.url(), **own, **dify_settings(dify.base_url))
        assert replica.providers["default"].health_check()

        report = replica.health.report()

        wrong = {name for name, word in report["dependencies"].items() if word != "ok"}
        assert (report["status"], wrong) == ("degraded", {"auth", "clock", "batch_storage", "batch_redis"})
        replica.close()


def test_a_database_that_refuses_the_login_needs_an_administrator(redis_url: str, maria_server: MariaServer) -> None:
    """In mode allowlist /health says so; a request for batches gets 500 without Retry-After, not "unavailable"."""
    maria_server.fresh_database("refused")
    where = {"MYSQL_HOST": "127.0.0.1", "MYSQL_PORT": str(maria_server.port), "MYSQL_DATABASE": "refused"}
    login = {"MYSQL_USER": "nobody", "MYSQL_PASSWORD": "fake-password"}
    own = {"AUTH_MODE": "allowlist", "AUTH_ALLOWLIST": "zhangsan", "API_KEYS": "fake-key"}
    with AppServer(redis_url, **where, **login, **own) as server:
        report = server.container.health.report()
        reply = requests.get(f"{server.url}/api/batch/tasks", headers={"X-API-Key": "fake-key"}, timeout=30)

    assert report["dependencies"]["sql"].startswith("refused: SQL failed")
    assert "1045" in report["dependencies"]["sql"]
    assert (report["status"], report["services"]["batch_processing"]) == ("degraded", False)
    assert (reply.status_code, reply.json()["code"], reply.json()["data"]["reason"]) == (500, 40000, "store_refused")
    assert "Retry-After" not in reply.headers
    assert reply.json()["message"] == ZH["store_refused"]


def test_a_redis_that_refuses_the_login_needs_an_administrator() -> None:
    """A question of WeCom and one over HTTP get that sentence, and no "try again"; /health has Redis's words."""
    with (
        RedisServer(options=("--requirepass", "fake")) as redis_server,
        AppServer(f"redis://:wrong@127.0.0.1:{redis_server.port}/1", API_KEYS="fake-key") as server,
        server.user() as user,
    ):
        bubble, asked = user.says("年假"), {"query": "年假"}
        reply = requests.post(f"{server.url}/api/chat", json=asked, headers={"X-API-Key": "fake-key"}, timeout=30)
        report = server.container.health.report()

    assert (bubble.finish, bubble.content) == (True, ZH["store_refused"])
    assert (reply.status_code, reply.json()["code"], reply.json()["data"]["reason"]) == (500, 40000, "store_refused")
    assert "Retry-After" not in reply.headers
    assert report["dependencies"]["redis"].startswith("refused: redis: AuthenticationError")
    assert report["status"] == "unhealthy"


def test_a_conversations_name_depends_on_its_own_bot_alone(redis_url: str) -> None:
    """All replicas derive the same name, whatever other bots exist; the name contains no user id."""
    more = json.dumps({"hr": {"WECHAT_TOKEN": "HRTESTTOKEN", "WECHAT_ENCODING_AES_KEY": OTHER_KEY}})
    built = [container(redis_url), container(redis_url), container(redis_url, WECHAT_BOTS=more)]

    keys = [each.answerer.conversation(QUESTION) for each in built]

    assert keys[0] == keys[1] == keys[2]
    assert "zhangsan" not in "".join(keys)
    for each in built:
        each.close()


@pytest.mark.parametrize("keys", [{"API_KEYS": "not-a-real-key"}, {"WEBSOCKET_AUTH": "none"}])
def test_a_gateway_without_wecom_answers_sockets(redis_url: str, keys: dict[str, str]) -> None:
    """Without WeCom's keys, stream ids are derived from another secret, the same on every replica."""
    nothing = {"WECHAT_TOKEN": "", "WECHAT_ENCODING_AES_KEY": ""}
    built, twin = (container(redis_url, **nothing, **keys) for _ in range(2))
    for each in (built, twin):
        each.start()
    try:
        caller = built.callers.check("not-a-real-key")
        question = Question("年假?", "chat", "default", caller.principal, msgid="c/1")
        asked = built.gateway.ask(question)
        following = twin.gateway.follow(asked.stream_id, bot="default", principal=caller.principal)
        update = None
        while not (update and update.ended):
            update = following.next(5.0)

        assert twin.gateway.ask(question).stream_id == asked.stream_id
        assert update.status == "completed"
        assert following.full_answer().mock
    finally:
        built.close()
        twin.close()


def test_idle_connections_close_before_answers_end_and_busy_ones_after(redis_url: str) -> None:
    """Idle connections are closed when the drain begins, the others when their answers are complete."""
    built = container(redis_url, DRAIN_SECONDS="60")
    calls: list[str] = []

    class Connections:
        def start(self) -> None:
            calls.append("start")

        def leave(self) -> None:
            calls.append(f"leave, ready: {built.ready}")

        def close_all(self) -> None:
            calls.append(f"close_all, running: {built.manager.running}")

        def stop(self) -> None:
            calls.append("stop")

    built.attach(Connections())
    built.start()
    built.gateway.ask(QUESTION)
    built.close()

    assert calls == ["start", "leave, ready: False", "close_all, running: 0", "stop"]


def test_a_part_that_fails_to_close_stops_no_other(redis_url: str) -> None:
    """All other parts are closed, and the error is raised at the end."""
    # The first replica of a process starts the thread of its clock, which never ends.
    running_time.start()
    before = set(threading.enumerate())
    built = container(redis_url)
    calls: list[str] = []

    class Connections:
        def start(self) -> None: ...

        def leave(self) -> None: ...

        def close_all(self) -> None:
            raise RuntimeError("unexpected")

        def stop(self) -> None:
            calls.append("stop")

    built.attach(Connections())
    built.start()
    built.gateway.ask(QUESTION)

    with pytest.raises(RuntimeError, match="unexpected"):
        built.close()

    assert calls == ["stop"]
    wait_until(lambda: not set(threading.enumerate()) - before)


def test_a_bots_own_commands_reset(redis_url: str) -> None:
    """WECHAT_COMMANDS replaces the default commands that reset a conversation."""
    replica = container(redis_url, WECHAT_COMMANDS=json.dumps({"从头来": "reset"}))
    replica.start()

    def asks(text: str) -> str:
        return replica.gateway.ask(Question(text, "wecom", "default", "zhangsan", msgid=text)).status

    assert (asks("从头来"), asks("/reset")) == ("completed", "processing")
    replica.close()


def test_a_bot_decides_whether_a_group_shares_a_conversation(redis_url: str) -> None:
    """In a group every user has a conversation, unless the bot shares one."""
    shared = {"WECHAT_TOKEN": TOKEN, "WECHAT_ENCODING_AES_KEY": AES_KEY, "WECHAT_GROUP_CONVERSATION": "shared"}
    replica = container(redis_url, WECHAT_BOTS=json.dumps({"hr": shared}))
    group = [Question("?", "wecom", bot, who, "wrGROUP") for bot in ("default", "hr") for who in ("a", "b")]

    own_a, own_b, shared_a, shared_b = (replica.answerer.conversation(question) for question in group)

    assert own_a != own_b
    assert shared_a == shared_b
    replica.close()


def test_bots_of_one_corp_share_identities(redis_url: str, stored: redis.Redis, tmp_path: Path) -> None:
    """A user of two bots of a corp is authenticated once; the same user id of another corp is another user."""
    create_demo_users(f"sqlite:///{tmp_path / 'users.db'}")
    bot = {"WECHAT_TOKEN": TOKEN, "WECHAT_ENCODING_AES_KEY": AES_KEY, "corp": "acme"}
    with MockAuth() as auth:
        replica = container(
            redis_url,
            WECHAT_BOTS=json.dumps({"hr": bot, "it": bot}),
            AUTH_MODE="external",
            AUTH_SERVICE_URL=auth.url,
            DATABASE_PATH=str(tmp_path / "users.db"),
            AUTH_USER_QUERY=DEMO_USER_QUERY,
        )
        replica.start()
        for name in ("hr", "it", "default"):
            replica.gateway.ask(Question("?", "wecom", name, "zhangsan", msgid="m-1"))
            wait_until(lambda: replica.manager.running == 0, timeout=30.0)
        replica.close()

    keys = set(stored.scan_iter("authorization:wechatid:*"))
    assert keys == {"authorization:wechatid:acme:zhangsan", "authorization:wechatid:zhangsan"}
    assert auth.calls.total() == 2


def test_ratings_are_told_with_the_askers_token(redis_url: str, tmp_path: Path) -> None:
    """That of the bot's corp, from the directory; channels without a directory have none."""
    create_demo_users(f"sqlite:///{tmp_path / 'users.db'}")
    with MockAuth() as auth:
        replica = container(
            redis_url,
            AUTH_MODE="external",
            AUTH_SERVICE_URL=auth.url,
            DATABASE_PATH=str(tmp_path / "users.db"),
            AUTH_USER_QUERY=DEMO_USER_QUERY,
        )
        token = user_tokens(replica.settings, replica.auth, replica.channels)
        asked = RatedAnswer(True, "completed", "", "default", "wecom", "E1001", "zhangsan")

        found = token(asked)
        others = [token(replace(asked, channel=channel)) for channel in ("http", "of another version")]
        with pytest.raises(AuthError):
            token(replace(asked, asker="lisi"))
        assert found == replica.auth.authenticate("zhangsan").token
        replica.close()

    assert found
    assert others == ["", ""]


@pytest.mark.parametrize(
    ("size", "mode", "enabled", "pools"),
    [
        ("5", "external", "true", (3, 2)),
        ("3", "external", "true", (2, 1)),
        ("1", "external", "true", (1, 1)),
        ("5", "external", "false", (5, 0)),
        ("5", "none", "true", (0, 5)),
    ],
)
def test_batches_and_the_user_query_share_the_connections(
    redis_url: str, tmp_path: Path, size: str, mode: str, enabled: str, pools: tuple[int, int]
) -> None:
    """Together they get as many connections as MYSQL_POOL_SIZE says."""
    auth = {"AUTH_SERVICE_URL": "http://127.0.0.1:9", "AUTH_USER_QUERY": DEMO_USER_QUERY} if mode == "external" else {}
    settings = settings_for(
        redis_url,
        MYSQL_POOL_SIZE=size,
        AUTH_MODE=mode,
        BATCH_ENABLED=enabled,
        DATABASE_PATH=str(tmp_path / "x"),
        **auth,
    )

    assert sql_pools(load_settings(settings, None)) == pools
