"""`python -m tools.wecom`: what it sends and prints, its exit statuses, and that each conformance check can fail."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from config.errors import SettingsError
from demo.mocks.dify.server import MockDify
from demo.wecom.simulator import CallbackFailed
from tests.support.model_bot import ANSWER, SLOW, ModelBot
from tests.support.pictures import MP4, PDF, png
from tests.support.replicas import AppServer, dify_settings
from tests.support.servers.processes import free_port
from tests.support.wecom_stub import AES_KEY, TOKEN, StubCallback
from tools import wecom
from tools._wecom.bots import bot_of, callback_address
from tools._wecom.hints import failure_hint

ROOT = Path(__file__).parents[3]
Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The keys of the stub are in the environment, and the folder has no `.env`."""
    for name in [name for name in os.environ if name.startswith("WECHAT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("WECHAT_TOKEN", TOKEN)
    monkeypatch.setenv("WECHAT_ENCODING_AES_KEY", AES_KEY)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def callback() -> Iterator[StubCallback]:
    """A stub callback on a real port."""
    with StubCallback() as stub:
        yield stub


def run(url: str, *argv: str) -> int:
    return wecom.main([url, *argv, "--every", "0.01"])


# Questions


def test_each_reply_is_a_line_with_its_growth(callback: StubCallback, capsys: Captured) -> None:
    """The lines have time, added bytes, bytes and milliseconds; standard output has the whole answer alone."""
    callback.grows("思考中...", "年假", "年假十天")

    status = run(callback.url, "年假怎么申请", "--as", "zhangsan")

    printed = capsys.readouterr()
    lines = [line.split() for line in printed.err.splitlines()]
    assert status == 0
    assert [line[1] for line in lines[:3]] == ["+12", "-6", "+6"]
    assert [line[3] for line in lines[:3]] == ["12", "6", "12"]
    assert lines[2][-1] == "finish"
    assert printed.out == "年假十天\n"
    assert callback.messages[0]["from"] == {"userid": "zhangsan"}
    assert callback.messages[0]["text"] == {"content": "年假怎么申请"}


def test_json_is_one_object_per_reply(callback: StubCallback, capsys: Captured) -> None:
    """--json prints time, bytes, added, ms, finish, broken rules, stream and content."""
    callback.grows("a", "ab")

    assert run(callback.url, "q", "--json") == 0

    first, last = map(json.loads, capsys.readouterr().out.splitlines())
    assert (first["added"], first["finish"], last["added"], last["finish"]) == (1, False, 1, True)
    assert (last["stream"], last["content"], last["broken"], last["empty"]) == ("s1", "ab", [], False)


@pytest.mark.parametrize(
    ("argv", "sent"),
    [
        (
            ["@Bot q", "--group", "wrG", "--quote", "old", "--msgid", "m1", "--raw", '{"extra": 1}'],
            {
                **{"chattype": "group", "chatid": "wrG", "msgid": "m1", "extra": 1},
                "quote": {"msgtype": "text", "text": {"content": "old"}},
            },
        ),
        (["念一下", "--voice"], {"msgtype": "voice", "voice": {"content": "念一下"}}),
        # The file is not read.
        (
            ["--file", "no.pdf", "--media-url", "https://cos.example/x?sign=1"],
            {"msgtype": "file", "file": {"url": "https://cos.example/x?sign=1"}},
        ),
        (["--raw", '{"msgtype": "voice", "voice": {"content": "hi"}}'], {"voice": {"content": "hi"}}),
    ],
    ids=["group", "voice", "file elsewhere", "raw"],
)
def test_a_message_has_what_the_options_say(callback: StubCallback, argv: list[str], sent: dict[str, Any]) -> None:
    """A group has its chatid, a quote its text, voice its words; --raw adds members, and --msgid repeats an id."""
    callback.grows("x")

    assert run(callback.url, *argv) == 0

    (message,) = callback.messages
    assert message.items() >= sent.items()
    assert ("text" in message) is (message["msgtype"] == "text")
    assert message["response_url"].startswith("https://wecom.invalid/")


@pytest.fixture
def gateway(redis_url: str) -> Iterator[tuple[AppServer, MockDify]]:
    """A gateway that fetches media from this machine, and its Dify."""
    settings = {"MEDIA_HOSTS": "127.0.0.1", "WECHAT_TOKEN": TOKEN, "WECHAT_ENCODING_AES_KEY": AES_KEY}
    with MockDify() as dify, AppServer(redis_url, **dify_settings(dify.base_url), **settings) as server:
        yield server, dify


@pytest.mark.parametrize(
    ("argv", "name", "content"),
    [(("这是什么？", "--image"), "photo.png", png()), (("--file",), "报告.pdf", PDF), (("--video",), "clip.mp4", MP4)],
)
def test_a_file_reaches_the_app(
    gateway: tuple[AppServer, MockDify],
    tmp_path: Path,
    capsys: Captured,
    argv: tuple[str, ...],
    name: str,
    content: bytes,
) -> None:
    """The tool serves it encrypted until the answer is complete; a picture goes with words."""
    (tmp_path / name).write_bytes(content)
    server, dify = gateway

    status = run(f"{server.url}/wechat/callback", *argv, name)

    assert status == 0, capsys.readouterr()
    (upload,) = dify.uploads
    assert upload.content == content
    assert (argv[0] == "--file") == (upload.name == name)
    assert (dify.requests[-1].body["query"] == "这是什么？") == (argv[0] == "这是什么？")


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("--image", "a.png", "--file", "b.pdf"), "one of --image, --file, --video and --voice"),
        (("q", "--file", "b.pdf"), "has no words"),
        (("--voice",), "--voice needs a question"),
        (("q", "--media-url", "https://cos.example/x"), "--media-url needs"),
        (("--image", "nowhere.png"), "nowhere.png: No such file"),
    ],
)
def test_messages_that_wecom_does_not_have_are_usage_errors(
    callback: StubCallback, capsys: Captured, argv: tuple[str, ...], said: str
) -> None:
    """Nothing is sent."""
    assert run(callback.url, *argv) == 2
    assert said in capsys.readouterr().err
    assert not callback.messages


def test_an_event_prints_its_reply(callback: StubCallback, capsys: Captured) -> None:
    """enter_chat shows the welcome; an event with an empty reply says so; both end with 0."""
    callback.reply = lambda message: {"msgtype": "text", "text": {"content": "欢迎"}}
    assert run(callback.url, "--event", "enter_chat") == 0
    assert "欢迎" in capsys.readouterr().out

    callback.reply = lambda message: None
    assert run(callback.url, "--event", "feedback_event", "--raw", '{"create_time": 7}') == 0
    assert "empty reply" in capsys.readouterr().err
    assert callback.messages[1]["create_time"] == 7

    assert run(callback.url, "--event", "unheard_of", "--json") == 0
    assert json.loads(capsys.readouterr().out)["reply"] is None


def test_a_broken_rule_is_printed_and_ends_with_1(callback: StubCallback, capsys: Captured) -> None:
    """A documented rule is an error; an undocumented one is only printed."""
    callback.grows("x" * 20_481)
    assert run(callback.url, "q") == 1
    assert "rule broken: a frame of more than 20480 bytes" in capsys.readouterr().err

    callback.grows("long", "s")
    assert run(callback.url, "q") == 0
    assert "rule broken: the text shrank from 4 to 1 bytes (not documented)" in capsys.readouterr().err


def test_no_reply_ends_with_1_and_a_sentence(callback: StubCallback, capsys: Captured) -> None:
    """An HTTP error, an empty reply to a question, no connection and an endless answer have a line each."""
    assert run(callback.url, "q", "--timeout", "0.05") == 1
    assert "not finished after 0.05 s" in capsys.readouterr().err

    callback.reply = lambda message: None
    assert run(callback.url, "q") == 1
    assert "no bubble appears" in capsys.readouterr().err

    callback.status = 403
    assert run(callback.url, "q") == 1
    assert "answered 403" in capsys.readouterr().err

    assert run(f"http://127.0.0.1:{free_port()}", "q") == 1
    assert "no answer" in capsys.readouterr().err


@pytest.mark.parametrize(
    "argv", [[], ["--raw", "[]"], ["q", "--raw", '{"msgtype"'], ["q", "--bot", "sales"], ["q", "--timeout", "0"]]
)
def test_wrong_usage_ends_with_2(callback: StubCallback, argv: list[str], capsys: Captured) -> None:
    """Nothing to send, a wrong --raw and an unknown bot are refused before anything is sent."""
    assert run(callback.url, *argv) == 2
    assert callback.messages == []
    assert AES_KEY not in capsys.readouterr().err


@pytest.mark.parametrize("name", ["WECHAT_TOKEN", "WECHAT_ENCODING_AES_KEY"])
def test_missing_keys_end_with_2(name: str, monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    """Without a key, the error names the variable."""
    monkeypatch.delenv(name)

    assert run("http://127.0.0.1:1", "q") == 2
    assert name in capsys.readouterr().err


def test_keys_of_a_named_bot_come_from_wechat_bots() -> None:
    """--bot takes the keys of WECHAT_BOTS, also without a default bot; of a list of tokens the first is used."""
    bots = json.dumps({"hr": {"WECHAT_TOKEN": "one,two", "WECHAT_ENCODING_AES_KEY": AES_KEY}})

    assert bot_of({"WECHAT_BOTS": bots}, "hr", None).tokens[0] == "one"
    with pytest.raises(SettingsError, match="WECHAT_BOTS has hr"):
        bot_of({"WECHAT_BOTS": bots}, "sales", None)
    with pytest.raises(SettingsError, match="no keys"):
        bot_of({}, "default", None)


@pytest.mark.parametrize(
    ("url", "bot", "full"),
    [
        ("http://h:1", "default", "http://h:1/wechat/callback"),
        ("http://h:1/", "hr", "http://h:1/wechat/callback/hr"),
        ("https://h/wechat/callback", "hr", "https://h/wechat/callback/hr"),
        ("https://h/other/bot", "hr", "https://h/other/bot"),
        ("https://h/cb?x=1", "default", "https://h/cb?x=1"),
    ],
)
def test_the_address_gets_the_products_path(url: str, bot: str, full: str) -> None:
    """An address without a path is completed; another bot's path is left as it is."""
    assert callback_address(url, bot) == full


def test_it_runs_as_a_program() -> None:
    """`python -m tools.wecom` reads the environment; it prints no key."""
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "WECHAT_TOKEN": TOKEN, "WECHAT_ENCODING_AES_KEY": "x"}

    done = subprocess.run(
        [sys.executable, "-m", "tools.wecom", "http://127.0.0.1:1", "q"], cwd="/", env=env, capture_output=True
    )

    assert done.returncode == 2
    assert b"WECHAT_ENCODING_AES_KEY" in done.stderr
    assert TOKEN.encode() not in done.stdout + done.stderr


# --check


def checked(capsys: Captured, fault: str = "", *argv: str) -> tuple[int, dict[str, dict[str, str]]]:
    """Check a model bot with one fault; return the exit status and the findings by name."""
    timeout = "0.3" if fault.startswith("never") else "30"
    with ModelBot(fault) as bot:
        status = run(bot.url, "--check", "--json", "--timeout", timeout, *argv)
    report = json.loads(capsys.readouterr().out)
    assert report["ok"] is (status == 0)
    return status, {finding["check"]: finding for finding in report["findings"]}


CHECKS = [
    *("URL verification", "forged callbacks", "stale timestamp", "question", "repeated poll", "redelivery"),
    *("unknown stream", "unknown type", "enter_chat", "feedback_event", "template_card_event", "unknown event"),
    "group mention",
]


def test_a_bot_that_does_all_right_passes_every_check(capsys: Captured) -> None:
    """All checks are ok and the status is 0."""
    status, found = checked(capsys)

    assert status == 0
    assert list(found) == CHECKS
    assert {finding["outcome"] for finding in found.values()} == {"ok"}


@pytest.mark.parametrize(
    ("fault", "check", "words"),
    [
        ("quotes the echo", "URL verification", "quotes"),
        ("accepts forgeries", "forged callbacks", "a wrong signature: HTTP 200"),
        ("tells forgeries apart", "forged callbacks", "differ"),
        ("accepts stale timestamps", "stale timestamp", "of yesterday gets HTTP 200"),
        ("sends long frames", "question", "more than 20480 bytes"),
        ("never finishes", "question", "not finished after 0.3 s"),
        ("changes after finish", "repeated poll", "changed after finish"),
        ("asks redeliveries again", "redelivery", "another stream"),
        ("never ends unknown streams", "unknown stream", "not finished"),
        ("thanks for feedback", "feedback_event", "only an empty reply"),
        ("answers cards with text", "template_card_event", "cannot answer template_card_event"),
        ("answers unknown events", "unknown event", "only an empty reply"),
        ("ignores groups", "group mention", "no bubble"),
        # An empty reply is documented, so these are warnings.
        ("has no welcome", "enter_chat", ""),
        ("is silent on unknown types", "unknown type", ""),
    ],
)
def test_each_check_fails_for_a_bot_with_its_fault(fault: str, check: str, words: str, capsys: Captured) -> None:
    """The check of this fault fails with a hint, and the status is 1; a warning leaves it 0."""
    status, found = checked(capsys, fault)

    assert (status, found[check]["outcome"]) == ((1, "failed") if words else (0, "warning")), found[check]
    assert words in found[check]["text"]
    assert found[check]["remedy"]


def test_a_slow_echo_fails(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    """The console waits for a limited time, here shorter than the model bot takes."""
    monkeypatch.setattr("tools._wecom.check.LIMIT", SLOW / 2)

    _, found = checked(capsys, "echoes slowly")

    assert found["URL verification"]["outcome"] == "failed"
    assert "WeCom waits 0.05 s" in found["URL verification"]["text"]


def test_a_check_says_beforehand_what_it_asks_and_prints_a_line_each(capsys: Captured) -> None:
    """Standard error names the question and the person first; the group's question mentions the bot."""
    with ModelBot() as bot:
        assert run(bot.url, "报销怎么办", "--check", "--as", "lisi") == 0
        texts = [message["text"]["content"] for message in bot.messages if message["msgtype"] == "text"]

    printed = capsys.readouterr()
    assert "two real questions as lisi: 报销怎么办" in printed.err
    assert printed.out.splitlines()[-1] == "13 checks: 13 ok, 0 to look at, 0 failed"
    assert set(texts) == {"报销怎么办", "@Bot 报销怎么办"}
    assert ANSWER not in printed.out


def test_a_bot_that_is_away_fails_every_check(capsys: Captured) -> None:
    """Without a server each check fails with a hint."""
    assert run(f"http://127.0.0.1:{free_port()}", "--check", "--json") == 1

    findings = json.loads(capsys.readouterr().out)["findings"]
    assert [finding["outcome"] for finding in findings] == ["failed"] * len(CHECKS)
    assert all(finding["remedy"] for finding in findings)


@pytest.mark.parametrize("status", [302, 404, 502, 500, 0])
def test_http_errors_have_hints_of_their_own(status: int) -> None:
    """The hint for another status than that of wrong keys is not about keys."""
    assert "keys" in failure_hint(CallbackFailed("x", status=403))
    assert "keys" not in failure_hint(CallbackFailed("x", status=status))
