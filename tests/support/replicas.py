"""Replicas of the product for tests: in this process on a real port, or as gunicorn processes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

import requests
from flask import Flask
from werkzeug.serving import make_server

from app import create_app
from bootstrap.container import Container
from config.settings import load_settings
from demo.wecom.simulator import MediaStore, ResponseServer, SimulatedBot, WeComUser
from tests.support.servers.forked_process import ForkedProcess
from tests.support.servers.processes import free_port, wait_until

ROOT = Path(__file__).parents[2]
TOKEN = "TESTTOKEN0123456789"
ADMIN_TOKEN = "obviously-fake-admin-token-of-tests"
VIEWER_TOKEN = "obviously-fake-viewer-token-of-tests"
AES_KEY = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"


def settings_for(redis_url: str, **changes: str) -> dict[str, str]:
    """Return a replica's environment: the mock provider and no authentication, with `changes` over it."""
    return {
        "REDIS_URL": redis_url,
        "REDIS_POOL_SIZE": "16",
        "AUTH_MODE": "none",
        "RAG_PROVIDER": "mock",
        "WECHAT_TOKEN": TOKEN,
        "WECHAT_ENCODING_AES_KEY": AES_KEY,
        "DRAIN_SECONDS": "5",
        "WORKERS": "1",
        "ADMIN_TOKEN": ADMIN_TOKEN,
        **changes,
    }


def dify_settings(base_url: str, **changes: str) -> dict[str, str]:
    return {"RAG_PROVIDER": "dify", "DIFY_BASE_URL": base_url, "DIFY_API_KEY": "app-test-key-not-real", **changes}


#: The arguments with which Python runs gunicorn as in the project's folder.
GUNICORN = ("-m", "gunicorn", "--config", str(ROOT / "gunicorn.conf.py"))


class AppServer:
    """One replica in this process, served over HTTP by werkzeug."""

    def __init__(self, redis_url: str, **changes: str) -> None:
        self.app: Flask = create_app(load_settings(settings_for(redis_url, **changes), None))
        self.container: Container = self.app.extensions["wechatlaibao"]
        wait_until(lambda: self.container.readiness == "ready", timeout=60.0)
        self._server = make_server("127.0.0.1", 0, self.app, threaded=True)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()

    def user(
        self,
        userid: str = "zhangsan",
        chatid: str = "",
        bot: str = "",
        responses: ResponseServer | None = None,
        store: MediaStore | None = None,
    ) -> WeComUser:
        return wecom_user([self.url], userid, chatid, bot, responses, store)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self.container.close()

    def __enter__(self) -> AppServer:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


class Replica:
    """One gunicorn of the product, in its own process group.

    The fork server (`tests/support/servers/fork_server.py`) starts it, unless `command` or PYTHONPATH name another
    program. With `forked=False` Python is executed anew, so that the process shares no memory with others.
    """

    def __init__(
        self,
        env: Mapping[str, str],
        folder: Path,
        *,
        command: Sequence[str] = GUNICORN,
        cwd: Path | None = None,
        forked: bool = True,
    ) -> None:
        """Start it in `cwd`, by default `folder`, which has no developer's `.env`. The log is written to `folder`."""
        self._forked = forked
        self._command = command
        self._cwd = cwd or folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log_path = folder / f"replica-{self.port}.log"
        self._env = {"PYTHONPATH": str(ROOT), **env, "HOST": "127.0.0.1", "PORT": str(self.port)}
        self.process = self._launch()

    def _launch(self) -> subprocess.Popen[bytes] | ForkedProcess:
        inherited = {
            name: os.environ[name] for name in ("PATH", "HOME", "COVERAGE_PROCESS_START") if name in os.environ
        }
        env = {**inherited, **self._env}
        if self._forked and tuple(self._command[: len(GUNICORN)]) == GUNICORN and env["PYTHONPATH"] == str(ROOT):
            return ForkedProcess(self._command[2:], cwd=self._cwd, env=env, log=self.log_path)
        with self.log_path.open("wb") as log:
            return subprocess.Popen(
                [sys.executable, *self._command],
                cwd=self._cwd,
                env=env,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def ready(self) -> bool:
        # `wait_ready` polls every 10 ms: without a listener, a whole HTTP request would cost CPU that the start needs.
        with socket.socket() as probe:
            probe.settimeout(2)
            if probe.connect_ex(("127.0.0.1", self.port)):
                return False
        try:
            return requests.get(f"{self.url}/readyz", timeout=2).ok
        except requests.RequestException:
            return False

    def wait_ready(self) -> Replica:
        wait_until(lambda: self.ready or self.process.poll() is not None, timeout=60.0)
        assert self.process.poll() is None, self.log
        return self

    @property
    def workers(self) -> list[int]:
        """The pids of the worker processes."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(pid) for pid in children.split()]

    @property
    def log(self) -> str:
        return self.log_path.read_text("utf-8", "replace")

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        """Kill master and workers at once with SIGKILL, as the loss of a machine does."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(10)

    def stop(self) -> int:
        """Send SIGTERM and wait up to 30 seconds; return the exit code."""
        self.signal(signal.SIGTERM)
        return self.process.wait(30)


@contextmanager
def replicas(count: int, env: Mapping[str, str], folder: Path) -> Iterator[list[Replica]]:
    """Run `count` replicas for the block, all of them ready; kill them at its end."""
    started: list[Replica] = []
    try:
        started.extend(Replica(env, folder) for _ in range(count))
        yield [replica.wait_ready() for replica in started]
    finally:
        for replica in started:
            replica.kill()


def wecom_user(
    urls: list[str],
    userid: str = "zhangsan",
    chatid: str = "",
    bot: str = "",
    responses: ResponseServer | None = None,
    store: MediaStore | None = None,
) -> WeComUser:
    """Return a WeCom user whose callbacks go to the replicas in turn."""
    path = f"/wechat/callback/{bot}" if bot else "/wechat/callback"
    bot_known = SimulatedBot(TOKEN, AES_KEY)
    return WeComUser([url + path for url in urls], bot_known, userid, chatid, responses=responses, store=store)
