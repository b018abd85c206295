"""docs/http-api.md: its commands run, the replies have the documented shape; both documents' clients survive a kill."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from channels.http_chat.replies import PING_SECONDS, refusal
from channels.web.rest import envelope
from config.texts import ZH, Texts
from demo.mocks.dify.server import MockDify
from tests.scenarios.stage.chaos_fleet import Fleet, fleet
from tests.support.replicas import dify_settings, settings_for
from tests.support.servers.processes import RedisServer, require_binary
from tests.support.servers.relay import Relay
from tests.support.sockets.event_reader import WIDE, events
from tests.support.sockets.frames import program

pytestmark = [pytest.mark.scenario, pytest.mark.full]

TEXT = (Path(__file__).parents[3] / "docs" / "http-api.md").read_text("utf-8")
KEY = "not-a-real-key"


def blocks(language: str, text: str = TEXT) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def shape(value: Any) -> Any:
    """Return the structure of a JSON value: its members' names and types."""
    if isinstance(value, dict):
        return {name: shape(member) for name, member in value.items()}
    return type(value).__name__


@pytest.fixture(scope="module")
def dify() -> Iterator[MockDify]:
    with MockDify(delay=0.03, limit=120.0) as dify:
        yield dify


@pytest.fixture(scope="module")
def pair(redis_server: RedisServer, dify: MockDify, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Replicas, some of which the tests kill."""
    own = dify_settings(dify.base_url, API_KEYS=KEY, STREAM_LEASE="3")
    with fleet(0, settings_for(redis_server.url(), **own), tmp_path_factory.mktemp("docs")) as replicas:
        yield replicas


def environment(url: str) -> dict[str, str]:
    return {**os.environ, "LAIBAO_URL": url, "LAIBAO_KEY": KEY, "PYTHONIOENCODING": "utf-8"}


def test_the_documented_commands_print_what_is_shown(pair: Fleet, tmp_path: Path) -> None:
    """The commands, run in one shell, print JSON of the documented shape, and events that resume."""
    require_binary("curl"), require_binary("jq")
    (tmp_path / "report.pdf").write_bytes(b"%PDF-1.4\n")
    # Generated clients have a test of their own.
    prepare, *commands = blocks("sh", TEXT.partition("## A generated client\n")[0])
    assert f"LAIBAO_KEY={KEY}" in prepare
    script = "\n".join(
        f"({command}) > {number}\n" if "STREAM=" not in command else parted(command, number)
        for number, command in enumerate(commands)
    )

    shell = ["bash", "-euo", "pipefail", "-c", script]
    subprocess.run(shell, cwd=tmp_path, env=environment(pair.complete(2)[0].url), check=True, timeout=WIDE * 2)

    printed = ((tmp_path / str(number)).read_text("utf-8") for number in range(6))
    waited, uploaded, grown, resumed, cancelled, rated = printed
    shown_answer, shown_file, shown_cancel, shown_rating = (json.loads(block) for block in blocks("json"))
    assert shape(json.loads(waited)) == shape(shown_answer)
    assert shape(json.loads(uploaded)) == shape(shown_file)
    assert shape(json.loads(cancelled)) == shape(shown_cancel)
    assert json.loads(cancelled)["data"]["status"] == "completed"
    stream_id = json.loads(cancelled)["data"]["stream_id"]
    assert json.loads(rated) == {**shown_rating, "data": {**shown_rating["data"], "stream_id": stream_id}}
    came, rest = list(events(grown.split("\n"))), list(events(resumed.split("\n")))
    shown_names = re.findall(r"event: (\w+)", blocks("text")[0])
    assert list(dict.fromkeys(event.name for event in came)) == list(dict.fromkeys(shown_names))
    whole = "".join(event.data["content"] for event in came if event.name == "delta")
    # A reader that comes late gets several chunks in one event: only the text after the first chunk is the same.
    after = [event for event in rest if event.name == "delta"]
    assert whole == rest[-1].data["content"]
    assert 0 < sum(len(event.data["content"]) for event in after) < len(whole)
    assert whole.endswith("".join(event.data["content"] for event in after))
    assert min(int(event.id) for event in after) > 1


def parted(command: str, number: int) -> str:
    """Return a command whose first line sets a variable for the lines after it."""
    first, _, second = command.partition("\ncurl")
    return f"{first}\ncurl{second.rstrip()} > {number}\n"


def test_the_documented_errors_match_the_code() -> None:
    """Each documented reason has the status and code of its row, and a sentence in config/texts/."""
    rows = re.findall(r"^\| (\d+) \| (\d+) \| (.*?) \|", TEXT, re.MULTILINE)
    named = {
        reason: (int(status), int(code))
        for status, code, reasons in rows
        for reason in re.findall(r"`([a-z_]+)`", reasons)
    }

    assert len(named) > 15
    assert named == {reason: reply_for(reason) for reason in named}
    assert set(named) <= set(ZH)
    assert f"every {PING_SECONDS:.0f} seconds" in TEXT


def reply_for(reason: str) -> tuple[int, int]:
    """Return the status and the code of the reply for a reason."""
    error = refusal(reason, Texts("en"))
    return error.status, json.loads(envelope(status=error.status, code=error.code).get_data())["code"]


#: The programs of both documents: the source, the variables with address and key, the path, and the words of a refusal.
PROGRAMS = {
    "http": (blocks("python")[0], "LAIBAO_KEY", "", "凭据无效或已失效。"),
    "socket": (program("python"), "LAIBAO_WS_KEY", "/ws/chat", "refused: 401"),
}


def started(folder: Path, name: str, port: int, question: str, key: str = KEY) -> subprocess.Popen[bytes]:
    """Start a document's program, which asks a question at a port."""
    source, variable, path, _ = PROGRAMS[name]
    file = folder / "client.py"
    file.write_text(source, "utf-8")
    arguments = [f"ws://127.0.0.1:{port}{path}", question] if path else [question]
    env = {**environment(f"http://127.0.0.1:{port}"), variable: key}
    command = [sys.executable, "-W", "error", str(file), *arguments]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_python_client_does_not_retry_a_wrong_key(pair: Fleet, tmp_path: Path, name: str) -> None:
    """A wrong key ends the program with one error line."""
    one, _ = pair.complete(2)
    with started(tmp_path, name, one.port, "hello", "wrong") as process:
        _, complaint = process.communicate(timeout=WIDE * 2)

    assert (process.returncode, complaint.decode().strip()) == (1, PROGRAMS[name][3])


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_python_client_resumes_after_a_kill(pair: Fleet, dify: MockDify, tmp_path: Path, name: str) -> None:
    """The document's program, cut off by a killed replica, prints the whole answer, which was asked for once."""
    one, other = pair.complete(2)
    question, dify.holds_at = f"Python 年假怎么申请 {name}", 5
    with Relay(one.port) as relay, started(tmp_path, name, relay.port, question) as process:
        assert process.stdout
        first = os.read(process.stdout.fileno(), 4096)
        one.kill()
        relay.target, dify.holds_at = other.port, None
        rest, complaint = process.communicate(timeout=WIDE * 4)

    assert (process.returncode, complaint) == (0, b"")
    assert (first + rest).decode().removesuffix("\n") == dify.expected_answer(question)
    assert len(dify.asked(question)) == 1
