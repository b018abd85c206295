"""The way of docs/connect-dify.md without a public address: create a bot, start the gateway, ask."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from demo.mocks.bot_creation import BOT_ID, SECRET, MockBotCreation
from demo.mocks.dify.server import MockDify
from demo.wecom.long_connection.server import LongConnectionServer
from tests.support.replicas import ROOT, Replica, dify_settings

pytestmark = [pytest.mark.full, pytest.mark.timeout(120)]


def test_a_created_bot_answers(redis_url: str, tmp_path: Path) -> None:
    """`.env` and what `create` adds to it are all that the gateway needs; no address of its own is given to WeCom."""
    with (
        MockBotCreation() as console,
        MockDify(api_key="app-test-key-not-real") as dify,
        LongConnectionServer({BOT_ID: SECRET}) as wecom,
    ):
        given = dify_settings(dify.base_url, AUTH_MODE="none", REDIS_URL=redis_url, WECHAT_WS_URL=wecom.url)
        (tmp_path / ".env").write_text("".join(f"{name}={value}\n" for name, value in given.items()))
        command = [sys.executable, "-m", "tools.wecom", "create", "--wecom", console.address, "--every", "0.01"]
        subprocess.run(command, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, check=True, timeout=60)

        replica = Replica({}, tmp_path).wait_ready()
        try:
            wecom.wait_until(lambda: wecom.subscribed(BOT_ID) > 0)
            alice = wecom.user("zhangsan")
            answer = alice.sees_finish(alice.says("年假怎么申请"))
        finally:
            replica.kill()

        assert "年假" in answer
        assert wecom.dropped == []
        assert wecom.broken == []
        assert SECRET not in replica.log
