"""The commands of docs/runbook.md, run as an operator runs them, against a replica in use."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from demo.mocks.dify.server import MockDify
from tests.scenarios.stage.people import TIMEOUT
from tests.support.long_connection.bots import bot_server, websocket_settings
from tests.support.replicas import Replica, dify_settings, replicas, settings_for, wecom_user
from tests.support.servers.manifests import ROOT
from tests.support.servers.processes import free_port, require_binary, wait_until
from tests.support.usage import rows

pytestmark = [pytest.mark.scenario, pytest.mark.full, pytest.mark.timeout(600)]

PAGE = (ROOT / "docs" / "runbook.md").read_text("utf-8")
_BLOCKS = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
#: The functions with systemd, and each command once.
FUNCTIONS = _BLOCKS[1]
COMMANDS = list(dict.fromkeys(line for block in _BLOCKS[2:] for line in block.splitlines()))


class Operator:
    """A shell on the machine of a replica, with its settings, where the runbook's functions are defined."""

    def __init__(self, replica: Replica, env: dict[str, str]) -> None:
        self._functions = FUNCTIONS.replace("9090", env["OPS_PORT"])
        # Here the replica's output is in a file, and not in the journal.
        self._functions += f"\nlogs() {{ cat {replica.log_path}; }}\n"
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"], "/usr/sbin"])
        self._env = {**env, "PATH": path, "PORT": str(replica.port), "HOST": "127.0.0.1"}

    def runs(self, command: str) -> tuple[int, str, str]:
        """Return a command's status, output and errors."""
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", self._functions + command],
            cwd=ROOT,
            env=self._env,
            capture_output=True,
            text=True,
            timeout=300,
        )
        return done.returncode, done.stdout, done.stderr


@pytest.fixture
def operator(redis_url: str, tmp_path: Path) -> Iterator[Operator]:
    database = tmp_path / "laibao.db"
    with ExitStack() as stack:
        dify, wecom = stack.enter_context(MockDify()), stack.enter_context(bot_server())
        linked = {name: value for name, value in websocket_settings(wecom).items() if value}
        env = settings_for(
            redis_url,
            **dify_settings(dify.base_url),
            DATABASE_PATH=str(database),
            OPS_PORT=str(free_port()),
            WECHAT_BOTS=json.dumps({"hr": linked}),
        )
        (replica,) = stack.enter_context(replicas(1, env, tmp_path))
        with wecom_user([replica.url]) as user:
            user.sees_finish(user.says("年假怎么申请？"), TIMEOUT, 0.1)
            user.sees_finish(user.says("[[error-event]]"), TIMEOUT, 0.1)
        wait_until(lambda: len(rows(f"sqlite:///{database}")) == 2, TIMEOUT)
        yield Operator(replica, env)


def test_each_command_shows_what_it_is_for(operator: Operator) -> None:
    """Each runs without a complaint; only in the log may there be nothing to find."""
    for binary in ("redis-cli", "curl", "ss"):
        require_binary(binary)
    commands = [command for command in COMMANDS if not command.startswith("kubectl ")]

    with ThreadPoolExecutor(4) as pool:
        done = dict(zip(commands, pool.map(operator.runs, commands), strict=True))

    assert len(commands) > 40
    assert {command: errors for command, (_, _, errors) in done.items() if errors} == {}
    for command, (status, output, _) in done.items():
        # Of `timeout`, and of `grep` that finds nothing.
        fine = {"timeout": (124,), "logs": (0, 1)}.get(command.split()[0], (0,))
        assert status in fine, (command, output)
        assert output or command.startswith(("logs", "ss")), command
    (streams,) = (output.splitlines() for command, (_, output, _) in done.items() if '"stream"' in command)
    assert [json.loads(line)["outcome"] for line in streams] == ["completed", "provider_error"]


def test_kubectl_takes_each_of_its_commands(tmp_path: Path) -> None:
    """There is no cluster here: a command that kubectl understands fails because no server answers."""
    kubectl, port = require_binary("kubectl"), free_port()
    on_page = [line.split(" | ")[0] for line in [*_BLOCKS[0].splitlines(), *COMMANDS] if "kubectl" in line]
    on_page += re.findall(r"`(kubectl [^`]+)`", PAGE)
    commands = [re.sub(r"^\w+\(\) { (.*); }$", r"\1", line) for line in on_page]
    assert len(commands) > 8

    for command in commands:
        done = subprocess.run(
            ["bash", "-c", command.replace("kubectl", f"{kubectl} --server=http://127.0.0.1:{port}", 1)],
            env={"HOME": str(tmp_path), "PATH": os.environ["PATH"]},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert "refused" in done.stderr, (command, done.stderr)
