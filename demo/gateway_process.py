"""Run the demo's gateway: the production server in a child process that ends with this one."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import requests

ROOT = Path(__file__).resolve().parent.parent
#: Timeouts in seconds for the gateway to become ready and to stop.
START_TIMEOUT = 60.0
STOP_TIMEOUT = 15.0
#: Environment variables that the gateway inherits. None is a setting of the product; settings are passed explicitly.
INHERITED = (
    *("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "VIRTUAL_ENV", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"),
    *("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"),
)
LOG_LINES = 12


class GatewayFailed(Exception):
    """The gateway did not start, or stopped unexpectedly; the message contains its last log lines."""


class GatewayProcess:
    """A context manager that starts the gateway, waits until it is ready, and stops it at the end.

    `folder` is its working directory and contains its log, so that the gateway reads no other `.env` file.
    """

    def __init__(self, settings: Mapping[str, str], *, folder: Path, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.log = folder / "gateway.log"
        self._folder = folder
        self._env = {name: os.environ[name] for name in INHERITED if name in os.environ}
        local = {"NO_PROXY": "127.0.0.1,localhost", "no_proxy": "127.0.0.1,localhost", "PYTHONPATH": str(ROOT)}
        self._env |= {**local, "HOST": "127.0.0.1", "PORT": str(port), **settings}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def __enter__(self) -> Self:
        try:
            self._start()
            self._wait_ready()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self._stop()

    def last_warning(self) -> str:
        """Return the last WARNING or ERROR line of the log, or ""."""
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return next((line for line in reversed(lines) if " - WARNING - " in line or " - ERROR - " in line), "")

    def failure(self) -> GatewayFailed:
        """Return an exception with the end of the log."""
        lines = self.log.read_text(errors="replace").splitlines()[-LOG_LINES:] if self.log.exists() else []
        return GatewayFailed("\n".join(["The gateway does not run. The end of its log:", *lines]))

    def _start(self) -> None:
        command = [*_leash(), sys.executable, "-m", "gunicorn", "--config", str(ROOT / "gunicorn.conf.py")]
        with self.log.open("wb") as log:
            # A separate session: Ctrl-C in the terminal reaches only this process, which then stops the gateway.
            self._process = subprocess.Popen(
                command, cwd=self._folder, env=self._env, stdout=log, stderr=log, start_new_session=True
            )

    def _wait_ready(self) -> None:
        end = time.monotonic() + START_TIMEOUT
        with requests.Session() as http:
            http.trust_env = False
            while self.running and time.monotonic() < end:
                with suppress(requests.RequestException):
                    if http.get(f"{self.url}/readyz", timeout=2.0).status_code == 200:
                        return
                time.sleep(0.1)
        raise self.failure()

    def _stop(self) -> None:
        if self._process is None:
            return
        self._process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_TIMEOUT)
        # The workers are in the same process group; kill those that are still running.
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def _leash() -> list[str]:
    """Return a command prefix with which the kernel terminates the gateway when this process dies, even by SIGKILL."""
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "TERM"] if setpriv else []
