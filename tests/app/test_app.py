"""The whole application: error replies, outages of Redis, round trips per message, and secrets in logs and metrics."""

from __future__ import annotations

import json
import logging
import re
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import requests
from flask import request
from prometheus_client import generate_latest

from app import create_app
from config.settings import Settings, load_settings
from config.texts import ZH
from demo.mocks.auth import DEMO_USER_QUERY, MockAuth, create_demo_users
from demo.mocks.dify.server import MockDify
from demo.wecom.simulator import RESPONSE_URL, Bubble, WeComUser
from services import metrics
from services.wecom.callback import derive_key
from tests.support.forgery import FORGED
from tests.support.replicas import AES_KEY, TOKEN, AppServer, dify_settings, settings_for
from tests.support.scrapes import samples, scrape
from tests.support.servers.processes import RedisServer, free_port, wait_until
from tests.support.settings_values import refusal
from tests.support.streams.turns import count_turns
from utils.sealed import unseal_any

QUESTION = "年假怎么申请"
PAUSES = f"{QUESTION} [[pings-after-text]]"
SILENT = f"{QUESTION} [[silent]]"


@pytest.fixture
def values(dify: MockDify) -> dict[str, str]:
    return {"DRAIN_SECONDS": "0", **dify_settings(dify.base_url)}


@pytest.fixture
def app_server(redis_url: str, values: dict[str, str]) -> Iterator[AppServer]:
    with AppServer(redis_url, **values) as app_server:
        yield app_server


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    """Start a Redis that the test may stop or pause."""
    with RedisServer() as server:
        yield server


def sees_text(user: WeComUser, bubble: Bubble) -> str:
    """Poll until the bubble shows more than a placeholder."""
    wait_until(lambda: user.polls(bubble).content not in (ZH["thinking"], ZH["queued"]), timeout=30.0)
    return bubble.content


def polls(user: WeComUser, bubble: Bubble) -> dict[str, Any] | None:
    """Poll and return the raw reply; None for the empty reply."""
    return user.sends({"msgtype": "stream", "stream": {"id": bubble.stream_id}})


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("POST", "/wechat/callback/hr/more", 404, "not_found"),
        ("DELETE", "/wechat/callback", 405, "method_not_allowed"),
        ("POST", "/healthz", 405, "method_not_allowed"),
    ],
)
def test_errors_of_the_callback_and_health_have_a_stable_code(
    app_server: AppServer, method: str, path: str, status: int, code: str
) -> None:
    """The reply is JSON with a code, not an HTML page of Flask."""
    reply = requests.request(method, app_server.url + path, timeout=10)

    assert (reply.status_code, reply.json()) == (status, {"code": code})


def test_options_replies_without_a_body(app_server: AppServer) -> None:
    """OPTIONS replies with an Allow header and an empty body that is not compressed."""
    reply = requests.options(f"{app_server.url}/chat", headers={"Accept-Encoding": "br, gzip"}, timeout=10)

    assert (reply.status_code, reply.content) == (200, b"")
    assert "GET" in reply.headers["Allow"]
    assert "Content-Encoding" not in reply.headers


@pytest.mark.parametrize(("proxies", "client"), [("", "127.0.0.1"), ("1", "203.0.113.7")])
def test_the_client_address_comes_only_from_a_trusted_proxy(redis_url: str, proxies: str, client: str) -> None:
    """X-Forwarded-For is ignored unless TRUSTED_PROXIES says how many proxies set it."""
    app = create_app(load_settings(settings_for(redis_url, TRUSTED_PROXIES=proxies or "0"), None))
    app.add_url_rule("/whoami", view_func=lambda: {"client": request.remote_addr})

    reply = app.test_client().get("/whoami", headers={"X-Forwarded-For": "198.51.100.1, 203.0.113.7"})

    assert reply.get_json() == {"client": client}
    app.extensions["wechatlaibao"].close()


def test_the_realtime_socket_hides_no_other_address(app_server: AppServer) -> None:
    """`WS_PATH` is refused for each path that the application already serves."""
    own = Settings.model_fields["ws_path"].default
    rules = {rule.rule for rule in app_server.app.url_map.iter_rules()}

    assert own in rules
    for rule in rules - {own}:
        path = re.sub(r"<\w+>", "x", rule)
        assert "that nothing else has" in refusal(WS_PATH=path), rule


def test_a_replica_reports_that_it_is_healthy(app_server: AppServer) -> None:
    """`/healthz`, `/readyz` and `/health` reply 200 and report Redis and the provider."""
    answers = {path: requests.get(app_server.url + path, timeout=10) for path in ("/healthz", "/readyz", "/health")}

    assert [reply.status_code for reply in answers.values()] == [200, 200, 200]
    assert answers["/healthz"].json()["service"] == "WechatLaibao"
    health = answers["/health"].json()
    assert (health["status"], health["providers"]["rag"]["name"]) == ("healthy", "dify")
    assert health["dependencies"] == {"redis": "ok", "clock": "ok"}


def test_a_draining_replica_is_alive_and_not_ready(app_server: AppServer) -> None:
    """`/readyz` replies 503 during a drain; `/healthz` and `/health` still reply 200."""
    app_server.container.manager.drain(0.0)

    assert requests.get(f"{app_server.url}/readyz", timeout=10).status_code == 503
    assert requests.get(f"{app_server.url}/healthz", timeout=10).status_code == 200
    assert requests.get(f"{app_server.url}/health", timeout=10).status_code == 200


def test_health_never_asks_the_provider_a_real_question(redis_url: str) -> None:
    """Twenty reports cost one request for the app's name and one empty question, which Dify rejects."""
    with MockDify() as dify, AppServer(redis_url, **dify_settings(dify.base_url)) as app_server:
        reports = [requests.get(f"{app_server.url}/health", timeout=20).json() for _ in range(20)]

        assert {report["status"] for report in reports} == {"healthy"}
        assert (dify.requests, dify.calls["GET /v1/info"], dify.calls["POST /v1/chat-messages"]) == ([], 1, 1)


def test_a_replica_without_redis_is_ready_and_reports_the_outage(dify: MockDify, values: dict[str, str]) -> None:
    """If readiness depended on Redis, an outage would take every replica out of service at once."""
    with AppServer(f"redis://127.0.0.1:{free_port()}/1", **values) as app_server:
        assert requests.get(f"{app_server.url}/readyz", timeout=10).status_code == 200
        health = requests.get(f"{app_server.url}/health", timeout=20)

    assert (health.status_code, health.json()["status"]) == (200, "unhealthy")
    assert health.json()["dependencies"] == {"redis": "unavailable", "clock": "ok"}


def lines(caplog: pytest.LogCaptureFixture, message: str) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.getMessage() == message]


def test_callbacks_recover_after_an_outage_of_redis(
    own_redis: RedisServer, values: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    """During an outage the owner shows its text, another replica an empty reply; a question gets a sentence.

    After the outage all of them work again.
    """
    with (
        AppServer(own_redis.url(), **values) as owner,
        AppServer(own_redis.url(), **values) as other,
        owner.user() as user,
        other.user() as elsewhere,
    ):
        bubble = user.says(PAUSES)
        text = sees_text(user, bubble)
        own_redis.stop()

        for _ in range(5):
            frame = user.polls(bubble)
            assert (frame.finish, frame.empty, frame.content) == (False, False, text)
            assert polls(elsewhere, bubble) is None
        refused = [elsewhere.says(QUESTION, "m-lost"), elsewhere.shows({"msgtype": "image", "image": {}})]

        assert [(b.finish, b.content) for b in refused] == [(True, ZH["store_unavailable"])] * 2
        assert requests.get(f"{owner.url}/readyz", timeout=10).ok
        assert len(lines(caplog, "redis is away")) == 2

        own_redis.start()

        wait_until(lambda: (reply := polls(elsewhere, bubble)) and reply["stream"]["content"] == text, timeout=30.0)
        again = elsewhere.says(QUESTION, "m-lost")
        assert again.stream_id == refused[0].stream_id
        assert not again.finish

        # A replica logs the end of an outage with its first command after some time without a failure.
        def is_back_logged() -> bool:
            polls(user, bubble), polls(elsewhere, bubble)
            return len(lines(caplog, "redis is back")) == 2

        wait_until(is_back_logged, timeout=30.0)
        assert len(lines(caplog, "redis is away")) == 2


def test_a_frozen_redis_delays_no_callback(own_redis: RedisServer, values: dict[str, str]) -> None:
    """Questions and polls get a reply within 2 s, where the machine lets one of three attempts; later all works."""
    with AppServer(own_redis.url(), **values) as app_server, app_server.user() as user:
        bubble = user.says(PAUSES)
        text = sees_text(user, bubble)
        own_redis.pause()
        try:
            refused = [user.says(QUESTION, f"m-frozen{number}") for number in range(3)]
            frames = [user.polls(bubble) for _ in range(3)]
        finally:
            own_redis.resume()

        assert [(each.finish, each.content) for each in refused] == [(True, ZH["store_unavailable"])] * 3
        assert [(frame.finish, frame.content) for frame in frames] == [(False, text)] * 3
        assert max(min(each.last.ms for each in refused), min(frame.ms for frame in frames)) < CALLBACK_MS
        wait_until(lambda: not user.polls(bubble).empty and bubble.content == text, timeout=30.0)
        with app_server.user("lisi") as other:
            assert other.sees_finish(other.says(QUESTION), every=0.05)


def served(turns: Counter[str]) -> int:
    """Return the round trips of callbacks, which run in request threads of their own."""
    return sum(count for name, count in turns.items() if "process_request" in name)


#: Milliseconds in which a callback is answered while Redis is away (invariant 9).
CALLBACK_MS = 2000.0


@pytest.fixture
def turns(app_server: AppServer) -> Counter[str]:
    """Count the replica's round trips to Redis, over connections that are already open."""
    turns = count_turns(app_server.container.redis)
    barrier = threading.Barrier(8)

    def open_one() -> None:
        barrier.wait(30.0)
        app_server.container.runner.ping()

    threads = [threading.Thread(target=open_one, daemon=True) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60.0)
    turns.clear()
    return turns


def test_a_poll_is_one_round_trip(user: WeComUser, turns: Counter[str]) -> None:
    """For a growing stream, a finished stream and an unknown stream."""
    growing, finished = user.says(PAUSES), user.says(SILENT)
    sees_text(user, growing)
    for stream_id in (growing.stream_id, finished.stream_id, "0" * 32):
        turns.clear()

        user.sends({"msgtype": "stream", "stream": {"id": stream_id}})

        assert served(turns) == 1


@pytest.mark.parametrize(
    ("text", "allowed"),
    [(QUESTION, 2), (" ", 1), ("/reset", 2)],
    ids=["a question", "nothing", "a command"],
)
def test_a_new_message_is_two_round_trips_at_most(
    user: WeComUser, turns: Counter[str], text: str, allowed: int
) -> None:
    """Before the reply; a redelivery of the message costs at most two as well."""
    before = Counter(turns)
    user.says(text, "m-1")
    first = served(turns) - served(before)
    user.says(text, "m-1")

    assert 1 <= first <= allowed
    assert 1 <= served(turns) - served(before) - first <= 2


def test_a_refused_question_is_two_round_trips_at_most(user: WeComUser, turns: Counter[str]) -> None:
    """The fourth question of a user releases what it acquired."""
    for _ in range(3):
        user.says(SILENT)
    turns.clear()

    assert user.says(QUESTION).content == ZH["user_full"]

    assert served(turns) == 2


def test_an_event_and_a_verification_need_no_redis(user: WeComUser, turns: Counter[str]) -> None:
    """They need no Redis, so an outage cannot delay them."""
    user.enters()
    user.verifies_url()

    assert served(turns) == 0


def test_a_poll_of_a_finished_stream_writes_nothing(
    redis_url: str, values: dict[str, str], stored: redis.Redis
) -> None:
    """A poll of a finished stream runs one script, which writes nothing."""
    # Neither the takeover sweep, which runs at most a lease apart, nor a note of the registry is counted.
    with AppServer(redis_url, **{**values, "STREAM_LEASE": "1000"}) as app_server, app_server.user() as user:
        bubble = user.says(QUESTION)
        user.sees_finish(bubble, every=0.05)
        wait_until(lambda: app_server.container.manager.running == 0, timeout=30.0)
        app_server.container.replicas.close()
        user.polls(bubble)
        stored.config_resetstat()

        user.polls(bubble)

    ran = {name.removeprefix("cmdstat_"): stat["calls"] for name, stat in stored.info("commandstats").items()}
    writes = ran.keys() & {"set", "append", "rpush", "del", "expire", "pexpire", "zadd"}
    assert (ran["evalsha"], writes) == (1, set())


def dump_redis(client: redis.Redis) -> dict[str, str]:
    """Return every key of Redis with its whole value, as text."""
    readers = {
        "hash": client.hgetall,
        "list": lambda key: client.lrange(key, 0, -1),
        "zset": lambda key: client.zrange(key, 0, -1, withscores=True),
        "string": client.get,
    }
    return {str(key): str(readers[str(client.type(key))](key)) for key in client.scan_iter("*")}


@pytest.fixture
def external(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The settings of a replica that authenticates users against a database and an external API."""
    create_demo_users(f"sqlite:///{tmp_path / 'users.db'}")
    with MockAuth() as auth:
        where = {"AUTH_SERVICE_URL": auth.url, "DATABASE_PATH": str(tmp_path / "users.db")}
        yield {"AUTH_MODE": "external", **where, "AUTH_USER_QUERY": DEMO_USER_QUERY}


def conversation(app_server: AppServer) -> list[str]:
    """Have a whole conversation with successful and failed turns; return its stream ids."""
    questions = (QUESTION, f"{QUESTION} [[error-after-text]]", f"{QUESTION} [[401-unauthorized]]", "/reset", " ")
    with app_server.user() as user, app_server.user("lisi") as unknown:
        bubbles = [user.says(text) for text in questions]
        for bubble in bubbles:
            user.sees_finish(bubble, every=0.05)
        user.enters()
        user.verifies_url()
        unknown.sees_finish(unknown.says(QUESTION), every=0.05)
        return [bubble.stream_id for bubble in bubbles]


@pytest.mark.parametrize("log_format", ["json", "plain"])
def test_the_log_of_a_whole_conversation_has_no_secret(
    redis_url: str,
    values: dict[str, str],
    external: dict[str, str],
    stored: redis.Redis,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    log_format: str,
) -> None:
    """Neither the records nor the formatted output contain one, at level DEBUG."""
    with AppServer(redis_url, **values, **external, LOG_LEVEL="DEBUG", LOG_FORMAT=log_format) as app_server:
        conversation(app_server)
        user_token = str(stored.get("authorization:wechatid:zhangsan"))

    output = capsys.readouterr().out + "".join(f"{r.getMessage()} {vars(r)}" for r in caplog.records)
    assert user_token.startswith("demo-token-")
    assert "[调试] Dify返回内容块" in output
    assert "callback" in output
    words = (QUESTION, "人事", "审批", "demo-password", "13800000001", "张三")
    for secret in (TOKEN, AES_KEY, RESPONSE_URL, "response_code", user_token, "app-test-key-not-real", *words):
        assert secret not in output


def test_metrics_and_redis_after_a_whole_conversation(
    redis_url: str, values: dict[str, str], external: dict[str, str], stored: redis.Redis
) -> None:
    """Metrics have no user, text, id, address or secret, and no message type or bot that a client invented.

    In Redis the response_url is encrypted, no stream holds the user's token, and no key contains text of users.
    """
    with AppServer(redis_url, **values, **external) as app_server:
        streams = conversation(app_server)
        with app_server.user() as user:
            user.sends({"msgtype": "kind-of-a-stranger"})
        requests.post(f"{app_server.url}/wechat/callback/bot-of-a-stranger", timeout=10)
        user_token = str(stored.get("authorization:wechatid:zhangsan"))
        shown = scrape(app_server.url)

    assert 'wechatlaibao_callback_seconds_count{msgtype="text"}' in shown
    assert shown.isascii()
    people = ("zhangsan", "lisi", "demo-password", "13800000001", "stranger")
    secrets = (TOKEN, AES_KEY, "http:", "https:", "response_code", user_token, "app-test-key-not-real", "127.0.0.1")
    assert not [word for word in (*streams, *people, *secrets) if word in shown]

    held = dump_redis(stored)
    everything = json.dumps(held, ensure_ascii=False)
    assert not [secret for secret in (RESPONSE_URL, "response_code", "demo-password", AES_KEY) if secret in everything]
    assert not [name for name in held if "stream" in name and user_token in held[name]]
    assert not [name for name in held if not name.isascii() or "张三" in name]
    sealed = stored.hget(f"dify_stream:{streams[0]}", "reply")
    assert unseal_any((derive_key(AES_KEY, "stream"),), str(sealed)).startswith(f"{RESPONSE_URL}?response_code=")


def shown_metrics() -> str:
    """Return the metrics of this process now; those of a scrape may be a second old."""
    return generate_latest(metrics.REGISTRY).decode()


def test_callbacks_are_timed_by_kind_and_refusals_counted_by_check(app_server: AppServer, user: WeComUser) -> None:
    """WeCom's documented message types have a label each; all others are `other`."""
    before = samples(shown_metrics())

    bubble = user.says(SILENT)
    for _ in range(3):
        user.polls(bubble)
    user.sends({"msgtype": "sticker"})
    user.sends({"msgtype": "location"})
    forged = FORGED["bad_signature"]()
    requests.post(f"{app_server.url}/wechat/callback", params=forged.params, data=forged.body, timeout=10)

    after = samples(shown_metrics())
    outcomes = {key[1:]: after[key] - before.get(key, 0) for key in after if key[0] == "wechatlaibao_callbacks_total"}
    assert {kinds: number for kinds, number in outcomes.items() if number} == {
        ("text", "processing"): 1,
        ("stream", "processing"): 3,
        ("other", "completed"): 2,
    }
    counted = {key[1]: after[key] - before.get(key, 0) for key in after if key[0].endswith("callback_seconds_count")}
    assert {kind: number for kind, number in counted.items() if number} == {"text": 1, "stream": 3, "other": 2}
    refused = ("wechatlaibao_callbacks_refused_total", "bad_signature")
    assert after[refused] - before.get(refused, 0) == 1


def test_content_is_logged_when_the_setting_is_on(
    redis_url: str, values: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    """With LOG_CONTENT=on the debug log has the beginning of each piece of text."""
    with AppServer(redis_url, **values, LOG_LEVEL="DEBUG", LOG_CONTENT="on") as app_server, app_server.user() as user:
        user.sees_finish(user.says(QUESTION), every=0.05)

    assert any("年假申请" in record.getMessage() for record in caplog.records)
