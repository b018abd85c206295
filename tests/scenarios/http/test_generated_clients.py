"""Clients that generators make of /openapi.json ask a question and run a batch: the snippets of docs/http-api.md."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.mocks.dify.server import MockDify
from tests.support.replicas import ROOT, Replica, dify_settings, replicas, settings_for
from tests.support.servers.processes import RedisServer, require_binary

pytestmark = [pytest.mark.scenario, pytest.mark.full, pytest.mark.timeout(300)]

TEXT = (ROOT / "docs" / "http-api.md").read_text("utf-8").partition("## A generated client\n")[2]
#: The programs that `make clients` installs.
PROGRAMS = ROOT / ".clients" / "venv" / "bin"
KEY = "not-a-real-key"
GENERATORS = ("openapi-python-client", "openapi-generator-cli")


@pytest.fixture(scope="module")
def dify() -> Iterator[MockDify]:
    with MockDify() as dify:
        yield dify


@pytest.fixture(scope="module")
def gateway(redis_server: RedisServer, dify: MockDify, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replica]:
    folder = tmp_path_factory.mktemp("generated")
    own = dify_settings(dify.base_url, API_KEYS=KEY, DATABASE_PATH=str(folder / "batches.db"))
    with replicas(1, settings_for(redis_server.url(), **own), folder) as (replica,):
        yield replica


def snippet(language: str, number: int) -> str:
    found: list[str] = re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
    return found[number]


def run(command: list[str], folder: Path, url: str) -> str:
    """Run a command in a folder, with the programs that `make clients` installs, and return what it prints."""
    env = {**os.environ, "LAIBAO_URL": url, "LAIBAO_KEY": KEY, "PYTHONIOENCODING": "utf-8"}
    env["PATH"] = f"{PROGRAMS}{os.pathsep}{env['PATH']}"
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("number", [0, 1], ids=GENERATORS)
def test_a_generated_client_asks_a_question_and_runs_a_batch(
    gateway: Replica, dify: MockDify, tmp_path: Path, number: int
) -> None:
    for program in ("curl", str(PROGRAMS / GENERATORS[number]), *(["java"] if number else [])):
        require_binary(program)
    run(["sh", "-ec", snippet("sh", number)], tmp_path, gateway.url)
    (tmp_path / "program.py").write_text(snippet("py", number), "utf-8")

    printed = run([str(PROGRAMS / "python"), "program.py"], tmp_path, gateway.url)

    answers = [dify.expected_answer("年假怎么申请？")]
    answers += [f"completed {text} {dify.expected_answer(text)}" for text in ("年假有几天？", "怎么报销？")]
    assert printed.split() == "\n".join(answers).split()
