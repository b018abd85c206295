"""`python -m demo.wecom.long_connection`: the simulated server in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.long_connection.bots import BOT_ID, SECRET
from tests.support.long_connection.raw_bot import RawBot

ROOT = Path(__file__).parents[4]


@pytest.mark.full
@pytest.mark.scenario
def test_lines_of_the_input_are_messages() -> None:
    """It prints its address; a line is sent to the bot, and the bubble is printed as it grows."""
    command = [sys.executable, "-m", "demo.wecom.long_connection", "--port", "0", "--bot", f"{BOT_ID}:{SECRET}"]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin
        assert process.stdout
        try:
            url = process.stdout.readline().strip().removeprefix("WECHAT_WS_URL=")
            with RawBot(url, BOT_ID, SECRET) as bot:
                process.stdin.write("你好\n")
                process.stdin.flush()
                bot.streams(bot.next_req_id(), "好的", finish=True)
                lines = [process.stdout.readline() for _ in range(3)]
        finally:
            process.kill()

    assert lines[0] == "zhangsan: 你好\n"
    assert "好的" in lines[1]
    assert "= finish" in lines[2]
