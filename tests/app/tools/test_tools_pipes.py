"""`python -m tools.… | head -1`: a tool whose output is closed ends at once, without a traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.mocks.dify.server import MockDify
from tests.support.replicas import AppServer, dify_settings, settings_for
from tests.support.servers.processes import RedisServer, wait_until
from tools._pipes import NOBODY_READS

ROOT = Path(__file__).parents[3]
KEY = "obviously-fake-api-key"
Program = tuple[dict[str, str], list[str]]


@pytest.fixture(scope="module")
def dify() -> Iterator[MockDify]:
    with MockDify(delay=0.02, slow=0.3) as mock:
        yield mock


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pipes")


@pytest.fixture(scope="module")
def app_server(redis_server: RedisServer, dify: MockDify, folder: Path) -> Iterator[AppServer]:
    """A replica with one stream."""
    own = {"DATABASE_PATH": str(folder / "laibao.db"), "WEBSOCKET_AUTH": "key", "API_KEYS": KEY}
    with AppServer(redis_server.url(8), **own, **dify_settings(dify.base_url)) as app_server, app_server.user() as user:
        user.sees_finish(user.says("年假"), every=0.05)
        yield app_server


@pytest.fixture(scope="module")
def programs(app_server: AppServer, redis_server: RedisServer, dify: MockDify, folder: Path) -> dict[str, Program]:
    """The environment and the arguments of each tool that prints more than one line."""
    (folder / "q.txt").write_text("年假有几天？\nHow?\n", "utf-8")
    settings = settings_for(redis_server.url(8), **dify_settings(dify.base_url), PORT=app_server.url.rpartition(":")[2])
    key = {"LAIBAO_KEY": KEY, "LAIBAO_URL": app_server.url, "LAIBAO_WS_KEY": KEY}
    app = {"DIFY_BASE_URL": dify.base_url, "DIFY_API_KEY": "app-test-key-not-real"}
    return {
        "ws": (key, ["tools.ws", "--url", app_server.url.replace("http", "ws"), "--send", "年假"]),
        "dify": (app, ["tools.dify", "-q", "[[slow]] 年假"]),
        "dify check": (app, ["tools.dify", "--check"]),
        "dify help": (app, ["tools.dify", "--help"]),
        "batch run": (key, ["tools.batch", "run", str(folder / "q.txt")]),
        "batch status": (key, ["tools.batch", "status"]),
        "migrate": ({}, ["tools.migrate", "sql"]),
        "streams": (settings, ["tools.streams", "list"]),
        "doctor": (settings, ["tools.doctor"]),
    }


def run_and_close(program: Program, *, lines: int) -> tuple[int, bytes]:
    """Run a tool, read so many lines of its output and close it; return exit status and standard error."""
    variables, arguments = program
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **variables}
    with subprocess.Popen(
        [sys.executable, "-m", *arguments], cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout
        for _ in range(lines):
            assert process.stdout.readline()
        process.stdout.close()
        _, errors = process.communicate(timeout=60)
        return process.returncode, errors


@pytest.mark.full
@pytest.mark.parametrize(
    "name", ["ws", "dify", "dify check", "dify help", "batch run", "batch status", "streams", "doctor"]
)
def test_a_tool_with_closed_output_ends_quietly(name: str, programs: dict[str, Program]) -> None:
    """Standard error is empty, except that a batch's outcome is printed there."""
    status, errors = run_and_close(programs[name], lines=0)

    assert status == NOBODY_READS
    told = {"batch run": b"completed", "dify": b"question ", "dify check": b"user "}
    assert errors == b"" or (name in told and told[name] in errors and b"rror" not in errors)


@pytest.mark.parametrize("name", ["dify", *(pytest.param(name, marks=pytest.mark.full) for name in ("ws", "doctor"))])
def test_a_tool_ends_when_its_reader_closes_the_pipe(name: str, programs: dict[str, Program]) -> None:
    """Closing the output during an answer, as `head -1` does, ends the tool."""
    status, errors = run_and_close(programs[name], lines=1)

    assert status == NOBODY_READS
    assert errors == b"" or (name == "dify" and b"question " in errors and b"rror" not in errors)


@pytest.mark.full
def test_a_closed_pipe_stops_the_run_at_dify(programs: dict[str, Program], dify: MockDify) -> None:
    """A run that went on at Dify would cost tokens."""
    stopped = len(dify.stops)

    assert run_and_close(programs["dify"], lines=8)[0] == NOBODY_READS

    wait_until(lambda: len(dify.stops) > stopped)
