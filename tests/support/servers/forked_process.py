"""Processes started by `tests/support/servers/fork_server.py`, with the part of `subprocess.Popen` that tests use."""

from __future__ import annotations

import atexit
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]
#: Seconds between two polls of a process in `wait`.
LOOK = 0.01


class ForkServer:
    """The fork server of this process: started by the first request, ended when this process ends."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None

    def ask(self, request: Mapping[str, Any]) -> Any:
        """Send a request and return the reply.

        Raises: RuntimeError when the server has ended.
        """
        with self._lock:
            server = self._process = self._process or self._start()
            assert server.stdin
            assert server.stdout
            server.stdin.write(json.dumps(request) + "\n")
            server.stdin.flush()
            if not (reply := server.stdout.readline()):
                raise RuntimeError(f"the fork server ended with code {server.wait(10)}")
        return json.loads(reply)

    def _start(self) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "tests.support.servers.fork_server"]
        # In its own session: after Ctrl-C the tests still need it to end the processes that it started.
        server = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        atexit.register(server.communicate, timeout=10)
        return server


_server = ForkServer()


class ForkedProcess:
    """A gunicorn with these arguments, the leader of its own session."""

    def __init__(self, arguments: Sequence[str], *, cwd: Path, env: Mapping[str, str], log: Path) -> None:
        request = {"arguments": list(arguments), "cwd": str(cwd), "env": dict(env), "log": str(log)}
        self.pid: int = _server.ask(request)["pid"]
        self.returncode: int | None = None
        self._lock = threading.Lock()

    def poll(self) -> int | None:
        """Return the exit code, negative for a signal; None while it runs."""
        with self._lock:
            if self.returncode is None:
                self.returncode = _server.ask({"poll": self.pid})["code"]
            return self.returncode

    def wait(self, timeout: float) -> int:
        """Wait for its end and return the exit code.

        Raises: subprocess.TimeoutExpired after `timeout` seconds.
        """
        end = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired("gunicorn", timeout)
            time.sleep(LOOK)
        return code

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal, unless the process has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)
