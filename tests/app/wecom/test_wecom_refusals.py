"""Callbacks that fail a check: one reply for all, each check named in one log line, and no Redis command."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import redis
import requests

from demo.wecom.simulator import Callback, CallbackFailed
from tests.support.forgery import FORGED, a_text, callback, good
from tests.support.replicas import AppServer

REFUSED = {"code": "callback_refused"}


@pytest.fixture
def app_server(redis_url: str) -> Iterator[AppServer]:
    # Neither the takeover sweep, which runs at most a lease apart, nor a note of the registry is counted.
    with AppServer(redis_url, DRAIN_SECONDS="0", STREAM_LEASE="1000") as app_server:
        app_server.container.replicas.close()
        yield app_server


def redis_calls(client: redis.Redis) -> dict[str, int]:
    """Return how often each Redis command ran, INFO left out."""
    stats: Mapping[str, Any] = client.info("commandstats")
    return {name: figures["calls"] for name, figures in stats.items() if name != "cmdstat_info"}


def check_of(caplog: pytest.LogCaptureFixture) -> str:
    """Return the check that the only log line names."""
    (line,) = [record for record in caplog.records if record.levelno >= logging.INFO]
    assert line.message == "callback refused"
    return str(vars(line)["check"])


def test_a_callback_for_a_bot_of_the_long_connection_is_rejected(
    redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It is unknown to callbacks, whatever keys it had before."""
    bot = {"WECHAT_MODE": "websocket", "WECHAT_BOT_ID": "aibTEST", "WECHAT_BOT_SECRET": "fake-secret"}
    with AppServer(redis_url, DRAIN_SECONDS="0", WECHAT_WS_URL="ws://127.0.0.1:1", **bot) as server:
        sent = callback(a_text())
        reply = requests.post(f"{server.url}/wechat/callback", params=sent.params, data=sent.body, timeout=10)

    assert (reply.status_code, reply.json()) == (400, REFUSED)
    assert [vars(each)["check"] for each in caplog.records if each.message == "callback refused"] == ["unknown_bot"]


@pytest.mark.parametrize("name", FORGED)
def test_a_callback_that_fails_a_check_is_rejected_without_redis(
    app_server: AppServer, stored: redis.Redis, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    """All rejections have the same reply; one log line names the check."""
    forged: Callback = FORGED[name]()
    before = redis_calls(stored)
    caplog.clear()

    reply = requests.post(f"{app_server.url}/wechat/callback", params=forged.params, data=forged.body, timeout=10)

    assert (reply.status_code, reply.json()) == (400, REFUSED)
    assert check_of(caplog) == name.split()[0]
    assert redis_calls(stored) == before


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_an_unknown_bot_is_refused_like_any_forgery(
    app_server: AppServer, stored: redis.Redis, caplog: pytest.LogCaptureFixture, method: str
) -> None:
    """The default bot's signature is not valid at another bot's address."""
    before = redis_calls(stored)
    caplog.clear()

    reply = requests.request(
        method, f"{app_server.url}/wechat/callback/nobody", params=good().params, data=good().body, timeout=10
    )

    assert (reply.status_code, reply.json(), check_of(caplog)) == (400, REFUSED, "unknown_bot")
    assert redis_calls(stored) == before


def test_a_callback_of_another_bot_is_refused(redis_url: str, caplog: pytest.LogCaptureFixture) -> None:
    """With WECHAT_BOT_ID set, messages of another aibotid are rejected."""
    with AppServer(redis_url, WECHAT_BOT_ID="aibOURS") as app_server, app_server.user() as user:
        caplog.clear()
        with pytest.raises(CallbackFailed, match="400"):
            user.says("?")
        assert check_of(caplog) == "bad_ciphertext"


def test_an_unchanged_callback_passes_the_same_checks(app_server: AppServer) -> None:
    """The base message of the forged ones is accepted, so each fails for its one change only."""
    whole = good()
    assert requests.post(f"{app_server.url}/wechat/callback", params=whole.params, data=whole.body, timeout=10).ok
