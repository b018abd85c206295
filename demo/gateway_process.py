"""The gateway of the demo: the production server in a process of its own that cannot outlive this one."""

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
#: How long the gateway may take to be ready, and to end, in seconds.
START_TIMEOUT = 60.0
STOP_TIMEOUT = 15.0
#: What the gateway takes from this process's environment, beside the settings it is given: nothing of the product's.
INHERITED = (
    *("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "VIRTUAL_ENV", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"),
    *("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"),
)
LOG_LINES = 12


class GatewayFailed(Exception):
    """The gateway did not start, or ended by itself; the message holds its last log lines."""


class GatewayProcess:
    """A context manager: entered when the gateway is ready, left when it is gone.

    `folder` is where it runs and logs, so that it finds no `.env` of anybody.
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
        """Return the log's last line that says what went wrong, "" where there is none."""
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return next((line for line in reversed(lines) if " - WARNING - " in line or " - ERROR - " in line), "")

    def failure(self) -> GatewayFailed:
        """Return the error that tells why it is not running."""
        lines = self.log.read_text(errors="replace").splitlines()[-LOG_LINES:] if self.log.exists() else []
        return GatewayFailed("\n".join(["The gateway does not run. The end of its log:", *lines]))

    def _start(self) -> None:
        command = [*_leash(), sys.executable, "-m", "gunicorn", "--config", str(ROOT / "gunicorn.conf.py")]
        with self.log.open("wb") as log:
            # A session of its own: Ctrl-C in the terminal is for this process, which then stops the gateway in order.
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
        # Its workers are in the same group; whatever is left of it ends here.
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def _leash() -> list[str]:
    """Return a prefix that has the kernel end the gateway when this process dies, also when it is killed."""
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "TERM"] if setpriv else []
