"""The doctor's check of a long connection: what the lease tells, what a try tells, and that nobody is evicted by it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Literal

import pytest

from config.bots import BotSettings
from config.settings import Settings, load_settings
from demo.wecom.long_connection.server import LongConnectionServer
from services.redis.store import ScriptRunner
from services.wecom.long_connection.lease_store import LeaseStore
from tests.support.replicas import AppServer, settings_for
from tests.support.servers.processes import redis_client_for, wait_until
from tools import doctor
from tools._doctor.checks import Finding
from tools._doctor.long_connection import check_long_connection

BOT_ID, SECRET = "aibTEST", "obviously-fake-secret-of-tests"
#: Nothing listens there.
NOWHERE = "ws://127.0.0.1:1"


@pytest.fixture
def wecom() -> Iterator[LongConnectionServer]:
    with LongConnectionServer({BOT_ID: SECRET}, evicted_seconds=0.0) as server:
        yield server


@pytest.fixture
def leases(redis_url: str) -> LeaseStore:
    return LeaseStore(ScriptRunner(redis_client_for(redis_url)))


def settings_of(redis_url: str, url: str, **changes: str) -> Settings:
    return load_settings(settings_for(redis_url, **{**websocket(url), **changes}), None)


def websocket(url: str) -> dict[str, str]:
    return {"WECHAT_MODE": "websocket", "WECHAT_BOT_ID": BOT_ID, "WECHAT_BOT_SECRET": SECRET, "WECHAT_WS_URL": url}


def bot(url: str, **changes: str) -> BotSettings:
    return settings_of("redis://127.0.0.1:1/1", url, **changes).bots["default"]


def held(leases: LeaseStore, **fields: str) -> int:
    """Take the lease as a replica does, with these fields; return its fence."""
    fence = leases.take("default", "replica")
    assert leases.renew("default", "replica", fence, **fields)
    return fence


def only(found: Iterator[Finding], outcome: str) -> Finding:
    """Return the one finding, after checking its outcome, that it has a remedy if it needs one, and no secret."""
    (finding,) = found
    assert (finding.outcome, bool(finding.remedy)) == (outcome, outcome != "ok")
    assert SECRET not in str(finding)
    return finding


@pytest.mark.full
def test_a_running_replica_is_not_evicted(
    redis_url: str, wecom: LongConnectionServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """The lease tells that BotID and Secret are right; --subscribe changes nothing while a replica has the lease."""
    with AppServer(redis_url, **websocket(wecom.url)) as replica:
        wecom.wait_until(lambda: wecom.subscribed(BOT_ID) > 0)
        leases = replica.container.leases
        wait_until(lambda: leases.look("default").subscribed and not leases.look("default").has_successor)

        doctor.main(["--subscribe"], load=lambda: settings_of(redis_url, wecom.url))

    lines = [line for line in capsys.readouterr().out.splitlines() if line[9:].startswith(("connection ", "standby "))]
    assert [line.split()[0] for line in lines] == ["ok", "warning"]
    assert "a replica is subscribed: BotID and Secret are right" in lines[0]
    assert "no second replica" in lines[1]
    assert wecom.bots[BOT_ID].subscriptions == [1]
    assert SECRET not in "".join(lines)


@pytest.mark.parametrize(("stands_by", "outcome"), [(False, "warning"), (True, "ok")])
def test_a_subscribed_replica_is_believed(
    leases: LeaseStore, wecom: LongConnectionServer, stands_by: bool, outcome: str
) -> None:
    """Nothing connects to WeCom, not even with --subscribe. Without a second replica that looks there is a warning."""
    held(leases, subscribed="1")
    if stands_by:
        leases.look("default", stands_by=True)

    connection, standby = check_long_connection(bot(wecom.url), leases, subscribe=True)

    assert (connection.outcome, standby.outcome) == ("ok", outcome)
    assert stands_by or "one by one" in standby.remedy
    assert wecom.connections == {}


@pytest.mark.parametrize(("retry", "words"), [("0", "no replica subscribes it"), ("600", "until 600 s have passed")])
def test_another_program_is_named(retry: str, words: str, leases: LeaseStore) -> None:
    """The remedy has the command that lets the replicas subscribe again; --subscribe does not subscribe either."""
    leases.give_back("default", "replica", held(leases), evicted="evicted")

    finding = only(check_long_connection(bot(NOWHERE, WECHAT_WS_RETRY=retry), leases, subscribe=True), "failed")

    assert "another program runs this bot" in finding.text
    assert words in finding.text
    assert "python -m tools.wecom resume default" in finding.remedy


@pytest.mark.parametrize(
    ("fields", "outcome", "words"),
    [
        ({"problem": "853000"}, "failed", "correct WECHAT_BOT_ID and WECHAT_BOT_SECRET"),
        ({"problem": "tls_failed"}, "failed", "REQUESTS_CA_BUNDLE"),
        ({"problem": "40058"}, "failed", "look the errcode up"),
        ({}, "warning", "again in some seconds"),
    ],
)
def test_a_replica_without_a_subscription_says_why(
    fields: dict[str, str], outcome: Literal["failed", "warning"], words: str, leases: LeaseStore
) -> None:
    """The remedy is that of the last attempt's code."""
    held(leases, **fields)

    assert words in only(check_long_connection(bot(NOWHERE), leases), outcome).remedy


def test_without_a_replica_the_address_is_tried_alone(leases: LeaseStore, wecom: LongConnectionServer) -> None:
    """Nobody is subscribed, because another program might be. A replica that could not connect has left its problem."""
    finding = only(check_long_connection(bot(wecom.url), leases), "warning")
    assert "BotID and Secret are not checked" in finding.text

    leases.give_back("default", "replica", held(leases), problem="853000")
    assert "the last attempt failed (853000)" in only(check_long_connection(bot(wecom.url), leases), "failed").text
    assert wecom.bots[BOT_ID].subscriptions == []


def test_an_address_without_wecom_has_a_remedy(leases: LeaseStore, wecom: LongConnectionServer) -> None:
    """Nothing listens, or something that is no WebSocket."""
    assert "connect_failed" in only(check_long_connection(bot(NOWHERE), leases), "failed").text

    wecom.refuse_status = 403
    assert "handshake_failed" in only(check_long_connection(bot(wecom.url), leases), "failed").text


def test_subscribe_tries_botid_and_secret(
    leases: LeaseStore, wecom: LongConnectionServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lease is free afterwards, and the connection closed."""
    monkeypatch.setattr("tools._doctor.long_connection.BACK", 0.1)

    finding = only(check_long_connection(bot(wecom.url), leases, subscribe=True), "ok")

    assert "BotID and Secret are right" in finding.text
    assert not leases.look("default").is_held
    wecom.wait_until(lambda: wecom.subscribed(BOT_ID) == 0)


def test_subscribe_finds_a_wrong_secret(leases: LeaseStore, wecom: LongConnectionServer) -> None:
    """The remedy names both variables."""
    finding = only(check_long_connection(bot(wecom.url, WECHAT_BOT_SECRET="wrong"), leases, subscribe=True), "failed")

    assert "WeCom refuses the subscription (853000)" in finding.text
    assert "WECHAT_BOT_SECRET" in finding.remedy
    assert not leases.look("default").is_held


def test_subscribe_finds_another_program(
    leases: LeaseStore, wecom: LongConnectionServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program that subscribes again ends the doctor's connection."""
    monkeypatch.setattr("tools._doctor.long_connection.BACK", 60.0)
    found: list[Finding] = []
    look = check_long_connection(bot(wecom.url), leases, subscribe=True)
    thread = threading.Thread(target=lambda: found.extend(look))
    thread.start()
    wecom.wait_until(lambda: wecom.subscribed(BOT_ID) > 0)

    wecom.evict(BOT_ID)
    thread.join()

    assert "another program runs this bot: it subscribed again" in only(iter(found), "failed").text
