"""The supervisor file of deploy/ under a real supervisord: replicas start, reload and shut down."""

from __future__ import annotations

import getpass
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
import requests

from tests.support.replicas import settings_for
from tests.support.servers.installed import HOME, SUPERVISOR, install, write_settings
from tests.support.servers.processes import RedisServer, wait_until

pytestmark = [pytest.mark.scenario, pytest.mark.full]

#: Timeout in seconds of steps that take a moment on an idle machine.
TIMEOUT = 60.0
#: The rest of supervisord's configuration.
MAIN = """
[supervisord]
nodaemon=true
logfile={folder}/supervisord.log
pidfile={folder}/supervisord.pid
childlogdir={folder}
[unix_http_server]
file={folder}/s
[supervisorctl]
serverurl=unix://{folder}/s
[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface
"""


class Supervised:
    """The file's programs, installed in a folder of the test."""

    def __init__(self, folder: Path, redis_url: str) -> None:
        self.settings = {**settings_for(redis_url), "APP_NAME": "before"}
        self.home = install(folder / "home", self.settings)
        self.ports, operations = two_ports(), two_ports()
        programs = SUPERVISOR.read_text().replace(HOME, str(self.home)).replace("/var/log/supervisor", str(folder))
        programs = programs.replace("user=wechatlaibao", f"user={getpass.getuser()}")
        programs = programs.replace('OPS_PORT="1500%', f'OPS_PORT="{operations // 10}%')
        programs = programs.replace('PORT="500%', f'PORT="{self.ports // 10}%')
        self._config = folder / "supervisord.conf"
        self._config.write_text(MAIN.format(folder=folder) + programs)
        daemon = [sys.executable, "-m", "supervisor.supervisord", "--configuration", str(self._config)]
        env = {name: os.environ[name] for name in ("PATH", "HOME", "COVERAGE_PROCESS_START") if name in os.environ}
        self._log = (folder / "output").open("wb")
        self.process = subprocess.Popen(daemon, env=env, stdout=self._log, stderr=self._log, start_new_session=True)

    def says(self, number: int, path: str = "healthz") -> dict[str, str]:
        """Return a replica's JSON reply, {} while it does not answer."""
        with suppress(requests.RequestException):
            reply = requests.get(f"http://127.0.0.1:{self.ports + number}/{path}", timeout=2)
            return dict(reply.json())
        return {}

    @property
    def ready(self) -> bool:
        """Whether both replicas are ready."""
        return all(self.says(number, "readyz").get("status") == "ready" for number in (0, 1))

    def does(self, *words: str) -> str:
        """Run supervisorctl; return its output."""
        command = [sys.executable, "-m", "supervisor.supervisorctl", "-c", str(self._config), *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT).stdout

    @property
    def log(self) -> str:
        """Return supervisord's log."""
        file = self._config.with_name("supervisord.log")
        return file.read_text() if file.exists() else ""

    def close(self) -> None:
        """Shut everything down; after a timeout kill it."""
        self.process.terminate()
        try:
            self.process.wait(TIMEOUT)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self._log.close()


@pytest.fixture
def supervised(redis_server: RedisServer, tmp_path: Path) -> Iterator[Supervised]:
    supervised = Supervised(tmp_path, redis_server.url())
    try:
        yield supervised
    finally:
        supervised.close()


def two_ports() -> int:
    """Return a port that ends in 0 and, like the next one, is free and below the ports for outgoing connections."""
    while True:
        first = random.randrange(1100, 3200) * 10
        with suppress(OSError), ExitStack() as stack:
            for port in (first, first + 1):
                stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
            return first


def test_supervisord_runs_the_programs(supervised: Supervised) -> None:
    """Two replicas start and the batch worker does not; a reload reads .env again; `stop` ends a replica in order."""
    wait_until(lambda: supervised.ready or "FATAL" in supervised.log, TIMEOUT)
    assert supervised.ready, supervised.log
    listed = sorted(line.split()[:2] for line in supervised.does("status").splitlines())

    write_settings(supervised.home, {**supervised.settings, "APP_NAME": "after"})
    supervised.does("signal", "HUP", "wechatlaibao:5000")
    wait_until(lambda: supervised.says(0).get("service") == "after", TIMEOUT)
    supervised.does("stop", "wechatlaibao:5000")

    assert [name for name, _ in listed] == ["wechatlaibao-batch", "wechatlaibao:5000", "wechatlaibao:5001"]
    assert [state == "STOPPED" for _, state in listed] == [True, False, False]
    assert "exit status 0" in supervised.log
    assert (supervised.says(0), supervised.says(1).get("service")) == ({}, "before")
