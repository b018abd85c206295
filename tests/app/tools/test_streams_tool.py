"""`python -m tools.streams` shows streams in their documented shape, without a credential."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import redis

from config.errors import SettingsError
from config.settings import Settings, load_settings
from tests.support.replicas import AppServer, settings_for
from tests.support.servers.processes import free_port
from tools import streams

ROOT = Path(__file__).parents[3]


@pytest.fixture
def app_server(redis_url: str) -> Iterator[AppServer]:
    """A replica with the mock provider on a real Redis."""
    with AppServer(redis_url) as replica:
        yield replica


def run(redis_url: str, *argv: str) -> int:
    return streams.main(argv, load=lambda: load_settings(settings_for(redis_url), None))


def answered(app_server: AppServer, text: str) -> str:
    """Ask a question, wait for its end, and return the stream's id."""
    with app_server.user() as user:
        bubble = user.says(text)
        user.sees_finish(bubble, every=0.05)
        return bubble.stream_id


def test_show_prints_the_documented_shape(
    app_server: AppServer, redis_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """--json has content, status, dify_finished and the messages with `read`; never token, reply or credential.

    Without it each field and each chunk has its own line. Objects and numbers stay what they are in JSON.
    """
    stream_id = answered(app_server, '{"a": 1}')
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        sealed = client.hget(f"dify_stream:{stream_id}", "reply")

    assert run(redis_url, "show", stream_id, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert run(redis_url, "show", stream_id) == 0
    printed = capsys.readouterr().out
    (row,) = listed(redis_url, capsys)

    assert (document["content"], document["status"], document["dify_finished"]) == ('{"a": 1}', "completed", True)
    assert {"content", "timestamp", "read"} <= document["messages"][0].keys()
    assert document["messages"][-1]["is_final"] is True
    assert all(message["read"] for message in document["messages"])
    assert not {"token", "reply"} & document.keys()
    asked = document["question"]
    assert (asked["text"], asked["principal"], "credential" in asked) == ('{"a": 1}', "zhangsan", False)
    assert document["user_info"]["user_code"] == "zhangsan"
    assert (document["epoch"], isinstance(document["lease"], float)) == (1, True)
    assert sealed
    assert str(sealed) not in printed
    assert all(
        line in printed for line in (f"stream           {stream_id}", "status           completed", "read final")
    )
    assert (row["stream"], row["person"], row["channel"], row["bot"]) == (stream_id, "zhangsan", "wecom", "default")
    assert (row["status"], row["state"], row["silent"]) == ("completed", "completed", 0)
    assert "a" not in row


def test_show_marks_error_chunks_and_unread_chunks(
    app_server: AppServer, redis_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A chunk beyond the hash's `read` is unread, an error chunk is marked."""
    with app_server.user() as user:
        stream_id = user.says("  ").stream_id
    with redis.Redis.from_url(redis_url) as client:
        client.hset(f"dify_stream:{stream_id}", "read", "0")

    run(redis_url, "show", stream_id)

    assert "unread error final: 没有看到问题内容" in capsys.readouterr().out


def test_no_words_control_the_terminal(
    app_server: AppServer, redis_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Control codes are replaced, in JSON escaped; a further line of a text looks like no field."""
    hostile = "[[echo]]\x1b[2J\x9b2J\u202e\nstatus           cancelled"
    stream_id = answered(app_server, hostile)
    with redis.Redis.from_url(redis_url) as client:
        client.hset(f"dify_stream:{stream_id}", "content", hostile)

    run(redis_url, "show", stream_id)
    printed = capsys.readouterr().out
    run(redis_url, "show", stream_id, "--json")
    document = capsys.readouterr().out

    assert not {*"\x1b\x9b\u202e"} & {*printed, *document}
    assert "\nstatus           cancelled" not in printed
    assert json.loads(document)["content"] == hostile


def test_an_unknown_stream_is_one_line(redis_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing on standard output, one line on standard error, exit status 1."""
    assert run(redis_url, "show", "no-such-stream") == 1

    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == ["no stream no-such-stream: it never was, or its life (STREAM_TTL) is over"]


def test_list_shows_no_text_of_users(app_server: AppServer, redis_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each stream is a line with id, time and status, the newest first, and without any text of users."""
    first, second = answered(app_server, "first question"), answered(app_server, "second question")

    assert run(redis_url, "list") == 0

    header, *lines = capsys.readouterr().out.splitlines()
    assert header.split() == ["STREAM", "AGE", "CHANNEL", "BOT", "PERSON", "BYTES", "OWNER", "STATE"]
    assert [line.split()[0] for line in lines] == [second, first]
    assert all("completed" in line and "question" not in line for line in lines)
    assert all(line.index("zhangsan") == header.index("PERSON") for line in lines)
    assert [row["stream"] for row in listed(redis_url, capsys, "--limit", "1")] == [second]


#: Streams by name: the fields in which each differs from the others, and its printed state.
STATES: dict[str, tuple[dict[str, str], str]] = {
    "alive": ({"lease": "+600"}, "being answered"),
    "taken": ({"lease": "+600", "takeovers": "2"}, "being answered, taken over 2 times"),
    "silent": ({"lease": "-6"}, "owner silent for 12 s"),
    "left": ({"lease": "0"}, "left by its owner, waits for another"),
    "waiting": ({"lease": "+600", "waiting": "1"}, "waits for an earlier question"),
    "done": ({"lease": "-6", "status": "completed"}, "completed"),
    "failed": ({"status": "error", "error_code": "provider_timeout", "lease": "-6"}, "error: provider_timeout"),
    "stopped": ({"status": "cancelled", "lease": "-6"}, "cancelled"),
}


@pytest.fixture
def stored_states(redis_url: str) -> None:
    """Store the streams above, asked a minute apart by two users on two channels."""
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        now = float(client.time()[0])
        for age, (name, (fields, _)) in enumerate(STATES.items()):
            who = {"principal": f"p{age % 2}", "channel": ("wecom", "chat")[age % 2], "bot": "hr", "text": '{"a": 1}'}
            created = datetime.fromtimestamp(now - 60 * age, UTC).isoformat()
            base = {"status": "processing", "created_time": created, "question": json.dumps(who), "owner": "vm:1:a"}
            lease = fields["lease"]
            written = {"lease": lease if lease == "0" else str(now + float(lease))}
            client.hset(f"dify_stream:{name}", mapping={**base, **fields, **written})


def listed(redis_url: str, capsys: pytest.CaptureFixture[str], *argv: str) -> list[dict[str, Any]]:
    """Return the rows of `list --json`."""
    assert run(redis_url, "list", "--json", *argv) == 0
    rows: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    return rows


@pytest.mark.usefixtures("stored_states")
def test_list_describes_the_state_of_each_stream(redis_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Columns for user, channel and age; for an owner without a valid lease, the seconds since its last renewal."""
    assert run(redis_url, "list") == 0

    header, *lines = capsys.readouterr().out.splitlines()
    states = {line.split()[0]: re.sub(r"\d+ s$", "12 s", line[header.index("STATE") :]) for line in lines}
    assert states == {name: words for name, (_, words) in STATES.items()}
    assert re.search(r"^silent +2 min +wecom +hr +p0 +0 +vm:1:a +owner silent", "\n".join(lines), re.MULTILINE)


@pytest.mark.usefixtures("stored_states")
@pytest.mark.parametrize(
    ("argv", "names"),
    [
        (["--status", "processing"], ["alive", "taken", "silent", "left", "waiting"]),
        (["--silent"], ["silent"]),
        (["--channel", "chat", "--person", "p1"], ["taken", "left", "done", "stopped"]),
        (["--bot", "hr", "--older-than", "300"], ["done", "failed", "stopped"]),
        (["--bot", "other"], []),
        (["--channel", "wecom", "--limit", "1"], ["alive"]),
    ],
)
def test_list_filters_streams(
    redis_url: str, capsys: pytest.CaptureFixture[str], argv: list[str], names: list[str]
) -> None:
    """By status, channel, bot, user, age and silence, all combined; the limit applies to the selected streams."""
    assert [row["stream"] for row in listed(redis_url, capsys, *argv)] == names


def test_control_characters_in_names_are_replaced(redis_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Line breaks and control characters in a name are replaced; a question that is invalid JSON shows no name."""
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        for name, question in (("a", json.dumps({"principal": "x\n\x1b[2J y"})), ("b", "{"), ("c", "[1]")):
            client.hset(f"dify_stream:{name}", mapping={"status": "completed", "question": question})

    assert run(redis_url, "list") == 0

    _, *lines = capsys.readouterr().out.splitlines()
    assert sorted(line.split()[5] for line in lines) == ["-", "-", "x??[2J?y"]


@pytest.mark.parametrize("argv", [("list",), ("show", "abc")])
def test_an_unreachable_redis_is_reported_in_one_line(
    argv: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    """An unreachable Redis is reported in one line with exit status 1."""
    assert run(f"redis://127.0.0.1:{free_port()}/1", *argv) == 1

    assert capsys.readouterr().err.startswith("redis: ConnectionError")


def test_a_wrong_setting_is_reported_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """The settings error is printed as one line."""

    def load() -> Settings:
        raise SettingsError("PORT='x' is wrong: expected a whole number")

    assert streams.main(["list"], load=load) == 1
    assert capsys.readouterr().err == "PORT='x' is wrong: expected a whole number\n"


@pytest.mark.full
def test_it_runs_as_a_program(redis_url: str) -> None:
    """`python -m tools.streams` exits with the status of its command."""
    env = {"PATH": os.environ["PATH"], **settings_for(redis_url)}

    done = subprocess.run(
        [sys.executable, "-m", "tools.streams", "show", "nobody"], cwd=ROOT, env=env, capture_output=True, timeout=60
    )

    assert (done.returncode, done.stdout) == (1, b"")
    assert b"no stream nobody" in done.stderr
