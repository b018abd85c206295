"""`python -m tools.streams` shows a stream in its documented shape, without a credential."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from config.settings import Settings, load_settings
from services.errors import SettingsError
from tests.house import House, settings_for
from tests.servers import free_port
from tools import streams

ROOT = Path(__file__).parent.parent


@pytest.fixture
def house(redis_url: str) -> Iterator[House]:
    """A replica that answers by the mock provider, on a real Redis."""
    with House(redis_url) as replica:
        yield replica


def run(redis_url: str, *argv: str) -> int:
    return streams.main(argv, load=lambda: load_settings(settings_for(redis_url), None))


def asked(house: House, text: str) -> str:
    """Ask, see the end, and return the stream's id."""
    with house.user() as user:
        bubble = user.says(text)
        user.sees_finish(bubble, every=0.05)
        return bubble.stream_id


def test_show_prints_the_documented_shape(house: House, redis_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """--json has content, status, dify_finished and the messages with `read`; never token or reply."""
    stream_id = asked(house, "年假怎么申请")

    status = run(redis_url, "show", stream_id, "--json")

    document = json.loads(capsys.readouterr().out)
    assert status == 0
    assert (document["content"], document["status"], document["dify_finished"]) == ("年假怎么申请", "completed", True)
    assert {"content", "timestamp", "read"} <= document["messages"][0].keys()
    assert document["messages"][-1]["is_final"] is True
    assert all(message["read"] for message in document["messages"])
    assert not {"token", "reply"} & document.keys()


def test_show_prints_lines_for_a_person(house: House, redis_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Without --json each field and each chunk has a line of its own."""
    stream_id = asked(house, "年假怎么申请")
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        sealed = client.hget(f"dify_stream:{stream_id}", "reply")

    assert run(redis_url, "show", stream_id) == 0

    printed = capsys.readouterr().out
    assert sealed
    assert str(sealed) not in printed
    assert f"stream           {stream_id}" in printed
    assert "status           completed" in printed
    assert "read final" in printed


def test_show_marks_an_error_and_what_nobody_read(
    house: House, redis_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A chunk beyond the hash's `read` is unread, an error chunk is marked."""
    with house.user() as user:
        stream_id = user.says("  ").stream_id
    with redis.Redis.from_url(redis_url) as client:
        client.hset(f"dify_stream:{stream_id}", "read", "0")

    run(redis_url, "show", stream_id)

    assert "unread error final: 没有看到问题内容" in capsys.readouterr().out


def test_an_unknown_stream_is_one_line(redis_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing on standard output, one line on the other, exit status 1."""
    assert run(redis_url, "show", "no-such-stream") == 1

    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == ["no stream no-such-stream: it never was, or its life (STREAM_TTL) is over"]


def test_list_has_no_words(house: House, redis_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each stream is a line with id, time and status, the newest first, and nobody's words."""
    first, second = asked(house, "first question"), asked(house, "second question")

    assert run(redis_url, "list") == 0

    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [second, first]
    assert all("completed" in line and "question" not in line for line in lines)


def test_list_stops_at_its_limit(house: House, redis_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """--limit keeps the newest."""
    _, second = asked(house, "first question"), asked(house, "second question")

    run(redis_url, "list", "--limit", "1")

    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == [second]


@pytest.mark.parametrize("argv", [("list",), ("show", "abc")])
def test_no_redis_is_one_line(argv: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    """A Redis that is away is said in one line with exit status 1."""
    assert run(f"redis://127.0.0.1:{free_port()}/1", *argv) == 1

    assert capsys.readouterr().err.startswith("redis: ConnectionError")


def test_a_wrong_setting_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """The settings' own line is printed."""

    def load() -> Settings:
        raise SettingsError("PORT='x' is wrong: expected a whole number")

    assert streams.main(["list"], load=load) == 1
    assert capsys.readouterr().err == "PORT='x' is wrong: expected a whole number\n"


def test_it_runs_as_a_program(redis_url: str) -> None:
    """`python -m tools.streams` ends with the status of its command."""
    env = {"PATH": os.environ["PATH"], **settings_for(redis_url)}

    done = subprocess.run(
        [sys.executable, "-m", "tools.streams", "show", "nobody"], cwd=ROOT, env=env, capture_output=True, timeout=60
    )

    assert (done.returncode, done.stdout) == (1, b"")
    assert b"no stream nobody" in done.stderr
