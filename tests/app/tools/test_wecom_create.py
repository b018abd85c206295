"""`python -m tools.wecom create` on a mock of WeCom's two addresses: what it asks, writes and prints."""

from __future__ import annotations

import json
import logging
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import segno
from dotenv import dotenv_values

from demo.mocks.bot_creation import BOT, BOT_ID, SECRET, MockBotCreation
from tests.support.servers.processes import free_port
from tools import wecom
from tools._wecom.create import drawn

ROOT = Path(__file__).parents[3]
Captured = pytest.CaptureFixture[str]
KEPT = "# mine\nDIFY_API_KEY='app-x'\n"


@pytest.fixture(autouse=True)
def env(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The `.env` of the current folder, with other lines; the environment has no bot."""
    for name in [name for name in os.environ if name.startswith("WECHAT_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    path = tmp_path / ".env"
    path.write_text(KEPT)
    return path


def create(url: str, *argv: str, timeout: str = "30") -> int:
    return wecom.main(["create", "--wecom", url, "--every", "0.01", "--timeout", timeout, *argv])


def test_a_confirmed_bot_is_in_the_file(env: Path, capsys: Captured, caplog: pytest.LogCaptureFixture) -> None:
    """BotID, Secret and mode are written; the BotID is the answer, the link is beside it, the Secret nowhere."""
    caplog.set_level(logging.DEBUG)

    with MockBotCreation() as console:
        assert create(console.address) == 0

    said = capsys.readouterr()
    lines = f"WECHAT_MODE=websocket\nWECHAT_BOT_ID={BOT_ID}\nWECHAT_BOT_SECRET={SECRET}\n"
    assert env.read_text() == KEPT + lines
    assert env.stat().st_mode & 0o777 == 0o600
    assert f"{console.address}/ai/qc/c?s={console.scodes[0]}" in said.err
    assert "not documented" in said.err
    (created,) = said.out.splitlines()
    assert BOT_ID in created
    assert SECRET not in said.out + said.err + caplog.text
    assert console.asked[0]["source"] == "wechatlaibao"
    assert console.asked[-1] == {"scode": console.scodes[0]}


def test_each_status_is_told_once(env: Path, capsys: Captured) -> None:
    """A status that is not known is a step on the way, and so is a reply that did not come."""
    with MockBotCreation("wait", "wait", "502", "502", "cut", "scaned", "brand_new", "success") as console:
        assert create(console.address) == 0

    told = [line for line in capsys.readouterr().err.splitlines() if "status:" in line or "again" in line]
    assert told == [
        "WeCom's status: wait",
        "no answer from WeCom (HTTP 502): trying again",
        "no answer from WeCom (the reply broke off): trying again",
        "WeCom's status: scaned",
        "WeCom's status: brand_new",
    ]
    assert SECRET in env.read_text()


@pytest.mark.parametrize(
    ("step", "words"),
    [
        ("expired", "the QR code has expired"),
        ("declined", "the bot was declined in WeCom (status declined)"),
        ("wait", "nobody confirmed the bot within 0.05 s"),
        ("502", "nobody confirmed the bot within 0.05 s"),
        ("cut", "nobody confirmed the bot within 0.05 s"),
        ("garbage", "/ai/qc/query_result is not understood: it is no JSON object"),
        ({"data": {}}, "/ai/qc/query_result is not understood: it has no status"),
        ({"data": {"status": "wa\x1bit"}}, "it has no status"),
        ({"status": "success", "bot_info": BOT}, "it has no data object"),
        ({"errcode": 40058, "errmsg": "hint"}, "WeCom refuses /ai/qc/query_result with errcode 40058"),
        ({"data": {"status": "success"}}, "WeCom may have created a bot all the same"),
        ({"data": {"status": "success", "bot_info": {**BOT, "secret": ""}}}, "without a bot_info"),
        ({"data": {"status": "success", "bot_info": {**BOT, "secret": "two\nlines"}}}, "without a bot_info"),
        ({"data": {"status": "success", "bot_info": {**BOT, "secret": 5}}}, "without a bot_info"),
    ],
)
def test_without_a_bot_the_file_stays(step: Any, words: str, env: Path, capsys: Captured) -> None:
    """The reason is one line, without the Secret or the code that fetches it; nothing is left beside the file."""
    with MockBotCreation(step) as console:
        assert create(console.address, timeout="0.05" if "nobody" in words else "30") == 1

    said = capsys.readouterr()
    *_, why = said.err.splitlines()
    assert words in why
    assert why.endswith("is unchanged")
    assert console.scodes[0] not in why
    assert said.out == ""
    assert SECRET not in said.out + said.err
    assert env.read_text() == KEPT
    assert [path.name for path in env.parent.iterdir()] == [".env"]


@pytest.mark.timeout(12)
def test_a_reply_that_does_not_come_ends_with_the_time(capsys: Captured) -> None:
    """A single exchange may take 15 s, but never longer than there is time left."""
    with MockBotCreation("hang") as console:
        assert create(console.address, timeout="0.1") == 1

    assert "nobody confirmed the bot within 0.1 s" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("begins", "words"),
    [
        ("502", "HTTP 502: see that it is open from here"),
        ("garbage", "/ai/qc/generate is not understood"),
        ({"data": {"scode": "s"}}, "it has no scode with an auth_url"),
        ({"data": {"scode": "s", "auth_url": "javascript:alert(1)"}}, "it has no scode with an auth_url"),
        ({"data": {"scode": "s", "auth_url": "https://x/\x1b[2J"}}, "it has no scode with an auth_url"),
        ({"errcode": -1}, "WeCom refuses /ai/qc/generate with errcode -1"),
        (None, "no connection"),
    ],
)
def test_without_a_qr_code_it_says_why(begins: Any, words: str, env: Path, capsys: Captured) -> None:
    """Nothing is asked for a result, and the file stays as it was."""
    with MockBotCreation(begins=begins) as console:
        assert create(console.address if begins else f"http://127.0.0.1:{free_port()}") == 1

    assert words in capsys.readouterr().err
    assert len(console.asked) == int(begins is not None)
    assert env.read_text() == KEPT


@pytest.mark.parametrize(
    ("content", "environ", "argv", "words"),
    [
        ("WECHAT_BOT_ID=aib1", {}, [], "--replace"),
        ("WECHAT_BOT_SECRET='s'", {}, [], "--replace"),
        ("export WECHAT_TOKEN=t", {}, [], "--replace"),
        ("WECHAT_ENCODING_AES_KEY=k", {}, [], "--replace"),
        (KEPT, {"WECHAT_BOT_SECRET": "others-secret"}, ["--replace"], "the environment has WECHAT_BOT_SECRET"),
        (KEPT, {}, ["--env-file", "no/such/folder/.env"], "cannot be written: No such file or directory"),
    ],
)
def test_a_bot_that_nobody_could_use_is_not_created(
    content: str,
    environ: dict[str, str],
    argv: list[str],
    words: str,
    env: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Captured,
) -> None:
    """Another bot is in the file or in the environment, or the file cannot be written: WeCom is not asked."""
    env.write_text(content)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)

    with MockBotCreation() as console:
        assert create(console.address, *argv) == 2

    said = capsys.readouterr().err
    assert words in said
    assert "others-secret" not in said
    assert console.asked == []


def test_another_bot_is_replaced_on_demand(env: Path, capsys: Captured) -> None:
    """--replace; with --json the bot is one object on standard output, without the Secret."""
    env.write_text("WECHAT_BOT_ID=aib1\n")

    with MockBotCreation() as console:
        assert create(console.address, "--replace", "--json") == 0

    found = dotenv_values(env)
    assert (found["WECHAT_BOT_ID"], found["WECHAT_BOT_SECRET"]) == (BOT_ID, SECRET)
    assert json.loads(capsys.readouterr().out) == {"bot_id": BOT_ID, "env_file": ".env"}


def test_a_file_that_changed_meanwhile_keeps_the_change(env: Path) -> None:
    """It is read again when the bot is there."""

    class Editor(MockBotCreation):
        def answer(self, call: str, given: dict[str, str]) -> tuple[int, Any]:
            env.write_text("A=changed meanwhile\n")
            return super().answer(call, given)

    with Editor("success") as console:
        assert create(console.address) == 0

    assert env.read_text().startswith("A=changed meanwhile\nWECHAT_MODE=")


def test_ctrl_c_leaves_the_file_as_it_was(env: Path) -> None:
    """At a terminal the QR code is drawn; after Ctrl-C the exit status is 130 and nothing is left beside the file."""
    terminal, theirs = pty.openpty()
    # A background job of a shell ignores SIGINT, and so would its children; `env` restores the default.
    command = ["env", "--default-signal=INT", sys.executable]
    with MockBotCreation("wait") as console:
        process = subprocess.Popen(
            [*command, "-m", "tools.wecom", "create", "--wecom", console.address, "--every", "0.01"],
            cwd=env.parent,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=theirs,
        )
        os.close(theirs)
        try:
            shown = b""
            while b"status: wait" not in shown:
                shown += os.read(terminal, 65_536)
            process.send_signal(signal.SIGINT)
            answer, _ = process.communicate(timeout=30)
        finally:
            process.kill()
            process.communicate()
            os.close(terminal)

    assert (process.returncode, answer) == (130, b"")
    assert shown.decode().count("\033[97;40m") > 10
    assert env.read_text() == KEPT
    assert [path.name for path in env.parent.iterdir()] == [".env"]


def test_the_qr_code_shows_the_link() -> None:
    """Every half block is two modules, light ones drawn; colours are set and reset in each line."""
    link = "https://work.weixin.qq.com/ai/qc/c?s=ie2dSh0INb6YK9YQ"
    blocks = {" ": (1, 1), "▀": (0, 1), "▄": (1, 0), "█": (0, 0)}

    lines = drawn(link).splitlines()

    assert all(line.startswith("\033[97;40m") and line.endswith("\033[0m") for line in lines)
    rows = [[blocks[char] for char in line[8:-4]] for line in lines]
    modules = [[pair[half] for pair in row] for row in rows for half in (0, 1)]
    wanted = [list(row) for row in segno.make(link, micro=False).matrix_iter(border=2)]
    assert modules[: len(wanted)] == wanted
