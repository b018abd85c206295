"""What a benchmark stands on: a real redis-server, real replicas of one worker, and a Dify that says when it spoke.

Everything is a process of its own on this machine, on a free port of 127.0.0.1, and ends with the block.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path

import redis
import requests

from demo import mock_dify_player
from demo.mock_dify import SCRIPTS, MockDify
from demo.mock_dify_scripts import Script
from demo.mock_dify_wire import Pause, Run, Step

ROOT = Path(__file__).resolve().parent.parent
TICKS = os.sysconf("SC_CLK_TCK")
#: Seconds a server may take until it answers.
START_SECONDS = 60.0
#: Stands between the parts of a piece, and between the pieces.
WITHIN, BETWEEN = "@", "|"


def allow_files(count: int) -> None:
    """Let this process and its children hold so many files and connections.

    Raises:
        ValueError, OSError: the system does not allow it.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = hard if hard == resource.RLIM_INFINITY else max(hard, count)
    resource.setrlimit(resource.RLIMIT_NOFILE, (count, wanted))


def wait_for(happened: Callable[[], bool], what: str, seconds: float = START_SECONDS) -> None:
    """Wait until something is the case; raises `TimeoutError` after so many seconds."""
    end = time.monotonic() + seconds
    while not happened():
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not within {seconds:g} s")
        time.sleep(0.02)


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def redis_server(folder: Path) -> Iterator[str]:
    """Run a redis-server that keeps nothing on disk; yield its address."""
    port = free_port()
    place = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", "", "--appendonly", "no"]
    log = folder / "redis.log"
    process = subprocess.Popen([shutil.which("redis-server") or "redis-server", *place, "--logfile", str(log)])
    try:
        with redis.Redis(port=port) as client:
            wait_for(lambda: _answers(client), "redis-server")
        yield f"redis://127.0.0.1:{port}/1"
    finally:
        process.terminate()
        process.wait(30)


def _answers(client: redis.Redis) -> bool:
    with suppress(redis.RedisError):
        return bool(client.ping())
    return False


class Replica:
    """One gunicorn with one worker; what is measured is the worker."""

    def __init__(self, settings: Mapping[str, str], folder: Path) -> None:
        self.port = free_port()
        self.log = folder / f"replica-{self.port}.log"
        local = {"PYTHONPATH": str(ROOT), "HOST": "127.0.0.1", "PORT": str(self.port), "WORKERS": "1"}
        inherited = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        command = [sys.executable, "-m", "gunicorn", "--config", str(ROOT / "gunicorn.conf.py")]
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                cwd=folder,
                env={**inherited, **settings, **local},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.worker = 0

    def wait_ready(self) -> None:
        """Raises: TimeoutError: it does not serve."""
        wait_for(self._ready, f"the replica (see {self.log})")
        pid = self._process.pid
        self.worker = int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])

    def _ready(self) -> bool:
        with suppress(requests.RequestException):
            return requests.get(f"http://127.0.0.1:{self.port}/readyz", timeout=2).ok
        return False

    @property
    def rss(self) -> int:
        """The worker's resident memory in KiB."""
        status = Path(f"/proc/{self.worker}/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))

    @property
    def cpu(self) -> float:
        """The worker's CPU seconds so far."""
        fields = Path(f"/proc/{self.worker}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def kill(self) -> None:
        """End it as a lost machine does."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(10)


@contextmanager
def replicas(count: int, settings: Mapping[str, str], folder: Path) -> Iterator[list[Replica]]:
    """Run so many replicas, all ready; none is left behind."""
    started = [Replica(settings, folder) for _ in range(count)]
    try:
        for replica in started:
            replica.wait_ready()
        yield started
    finally:
        for replica in started:
            replica.kill()


class Dify:
    """A Dify in a process of its own; every piece of its answers holds the time at which it was sent."""

    def __init__(self, pipe: Connection, base_url: str) -> None:
        self._pipe = pipe
        self.base_url = base_url

    def told(self) -> tuple[dict[str, str], Counter[str]]:
        """Return what was answered to each question, and how often each was asked."""
        self._pipe.send("told")
        answers, asks = self._pipe.recv()
        return answers, asks


@contextmanager
def stamping_dify(pieces: int, every: float) -> Iterator[Dify]:
    """Answer every question with so many pieces, so many seconds apart."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve_dify, args=(theirs, pieces, every), daemon=True)
    process.start()
    try:
        if not ours.poll(START_SECONDS):
            raise TimeoutError("the mock Dify did not start")
        yield Dify(ours, ours.recv())
    finally:
        process.terminate()
        process.join(10)
        ours.close()
        theirs.close()


def _serve_dify(pipe: Connection, pieces: int, every: float) -> None:
    answers: dict[str, str] = {}

    def play(run: Run) -> Iterator[Step]:
        said: list[str] = []
        yield run.workflow_started()
        for number in range(pieces):
            said.append(f"{number:04} 年假申请{WITHIN}{time.time():.6f}{BETWEEN}")
            yield run.piece(said[-1])
            yield Pause(every)
        run.answer = run.final = answers[run.query] = "".join(said)
        yield run.message_end()
        yield run.workflow_finished(answer=run.answer)

    # Nobody stops these runs: a look in ten seconds leaves the machine to the replica.
    mock_dify_player._LOOK = 10.0
    threading.stack_size(256 * 1024)
    SCRIPTS["stamps"] = Script(play, "times")
    with MockDify(default="stamps", limit=3600.0, after_disconnect="runs on") as dify:
        pipe.send(dify.base_url)
        while pipe.recv():
            pipe.send((answers, Counter(str(request.body["query"]) for request in dify.requests)))
