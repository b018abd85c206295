"""`python -m tools.wecom resume`: frees a bot that another program had taken over."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from services.redis.store import ScriptRunner
from services.wecom.long_connection.lease_store import LeaseStore
from tests.support.long_connection.bots import BOT_ID, SECRET
from tests.support.replicas import settings_for
from tools.wecom import main

BOT = {"WECHAT_MODE": "websocket", "WECHAT_BOT_ID": BOT_ID, "WECHAT_BOT_SECRET": SECRET}


@pytest.fixture
def leases(any_redis_url: str, runner: ScriptRunner, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> LeaseStore:
    """The leases of the Redis that the environment names."""
    monkeypatch.chdir(tmp_path)
    for name, value in settings_for(any_redis_url, **BOT).items():
        monkeypatch.setenv(name, value)
    return LeaseStore(runner)


def test_it_frees_an_evicted_bot(leases: LeaseStore, capsys: pytest.CaptureFixture[str]) -> None:
    """A replica may take the lease then; a bot that was not evicted is left as it is."""
    leases.give_back("default", "a", leases.take("default", "a"), evicted="evicted")

    assert main(["resume"]) == 0
    assert "subscribed again" in capsys.readouterr().out
    assert leases.take("default", "b")

    assert main(["resume", "default"]) == 0
    assert "nothing to resume" in capsys.readouterr().out
    assert main(["resume", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"bot": "default", "resumed": False}
    assert leases.look("default").holder == "b"


def test_an_unknown_bot_is_told(leases: LeaseStore, capsys: pytest.CaptureFixture[str]) -> None:
    """The message lists the bots in websocket mode."""
    assert main(["resume", "hr"]) == 1
    assert capsys.readouterr().err == "no bot hr in websocket mode: there is default\n"


def test_wrong_settings_are_told(
    leases: LeaseStore, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The error is that of the start, in one line."""
    monkeypatch.delenv("WECHAT_BOT_SECRET")

    assert main(["resume"]) == 1
    assert capsys.readouterr().err.startswith("WECHAT_BOT_SECRET is missing")
