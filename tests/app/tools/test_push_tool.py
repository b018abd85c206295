"""`python -m tools.push` against a replica whose bot has a long connection to the simulated server."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.wecom.long_connection.faults import Fault
from demo.wecom.long_connection.server import LongConnectionServer
from demo.wecom.long_connection.user import LongConnectionUser
from tests.support.long_connection.bots import BOT_ID, bot_server, websocket_settings
from tests.support.replicas import AppServer
from tools import push as tool

KEY = "obviously-fake-api-key"
Printed = pytest.CaptureFixture[str]


@pytest.fixture
def wecom() -> Iterator[LongConnectionServer]:
    with bot_server() as server:
        yield server
        assert server.broken == []


@pytest.fixture
def zhangsan(wecom: LongConnectionServer, any_redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    """A person who has written to the bot of a running replica; its address and key are in the environment."""
    with AppServer(any_redis_url, **websocket_settings(wecom, API_KEYS=KEY)) as replica:
        monkeypatch.setenv("LAIBAO_URL", replica.url)
        monkeypatch.setenv("LAIBAO_KEY", KEY)
        wecom.wait_until(lambda: bool(wecom.subscribed(BOT_ID)), 60.0)
        user = wecom.user("zhangsan")
        user.asks("你好")
        yield user


def test_a_text_is_sent(zhangsan: LongConnectionUser, capsys: Printed) -> None:
    """The line, or the JSON, has the push's id and state; under the same id nothing is sent again."""
    for _ in range(2):
        assert tool.main(["--to", "zhangsan", "**提醒**：三点开会", "--id", "k1"]) == 0

    first, second = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"default\.[0-9a-f]{32} sent", first)
    assert second == first
    assert tool.main(["--to", "zhangsan", "**提醒**：三点开会", "--id", "k1", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert f"{told['id']} {told['state']}" == first
    assert zhangsan.sees_messages(1) == ["**提醒**：三点开会"]


def test_a_text_of_standard_input_and_a_file_are_sent(
    zhangsan: LongConnectionUser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file keeps its name."""
    monkeypatch.setattr("sys.stdin", io.StringIO("今天的报表"))
    (tmp_path / "报告.pdf").write_bytes(b"%PDF-1.7")

    assert tool.main(["--to", "zhangsan", "-"]) == 0
    assert tool.main(["--to", "zhangsan", "--file", str(tmp_path / "报告.pdf")]) == 0

    text, message = zhangsan.chat.messages
    assert text.content == "今天的报表"
    assert message.file
    assert (message.file.name, message.file.content) == ("报告.pdf", b"%PDF-1.7")


def test_what_is_not_sent_is_told(wecom: LongConnectionServer, zhangsan: LongConnectionUser, capsys: Printed) -> None:
    """A chat into which the bot may not send, with the error code; a bot that does not exist, in words."""
    wecom.faults.add(Fault("aibot_send_msg", errcode=93006))
    assert tool.main(["--group", "wrNOBODY", "大家好"]) == 1
    assert capsys.readouterr().out.endswith(" failed 93006\n")

    assert tool.main(["--to", "zhangsan", "--bot", "nobody", "你好"]) == 1
    assert "没有这个名称的机器人" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [["text"], ["--to", "a"], ["--to", "a", "--group", "b", "text"], ["--to", "a", "text", "--file", __file__]],
)
def test_wrong_usage_is_2(arguments: list[str], capsys: Printed) -> None:
    """One target and one content."""
    assert tool.main(arguments) == 2
    assert "Usage" in capsys.readouterr().err


def test_without_a_service_the_tool_says_so(monkeypatch: pytest.MonkeyPatch, capsys: Printed) -> None:
    """After the time for an outage it gives up."""
    monkeypatch.setattr(tool, "OUTAGE_TIMEOUT", 0.0)

    assert tool.main(["--to", "a", "text", "--url", "http://127.0.0.1:9"]) == 1
    assert "cannot connect to 127.0.0.1:9" in capsys.readouterr().err
