"""The servers of a benchmark: a real redis-server, real replicas, and a mock Dify whose answers hold send times.

Each server is a process on this machine, on a free port of 127.0.0.1, and ends with the block.
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
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

import redis
import requests

from demo.mocks.dify import player as mock_dify_player
from demo.mocks.dify.scripts import DifyScript
from demo.mocks.dify.server import SCRIPTS, MockDify
from demo.mocks.dify.wire import Gap, Run, Step

ROOT = Path(__file__).resolve().parents[2]
#: Timeout of a server's start, in seconds.
START_SECONDS = 60.0
#: Separators of the fields of a piece, and of pieces.
WITHIN, BETWEEN = "@", "|"


def allow_files(count: int) -> None:
    """Raise the limit of open files and connections for this process and its children.

    Raises:
        ValueError, OSError: the system does not allow it.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = hard if hard == resource.RLIM_INFINITY else max(hard, count)
    resource.setrlimit(resource.RLIMIT_NOFILE, (count, wanted))


def wait_for(happened: Callable[[], bool], what: str, seconds: float = START_SECONDS) -> None:
    """Wait until the condition is true; raises `TimeoutError` after this many seconds."""
    end = time.monotonic() + seconds
    while not happened():
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not within {seconds:g} s")
        time.sleep(0.02)


def free_port() -> int:
    """Return a free port of 127.0.0.1."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def on_cores(cores: Collection[int] | None) -> Callable[[], None] | None:
    """Return a `preexec_fn` for `Popen` that pins the child to these cores; None for any core."""
    return partial(os.sched_setaffinity, 0, cores) if cores else None


def cpu_of(*pids: int) -> float:
    """Return the CPU seconds used by these processes so far, summed over their present threads.

    Read from the scheduler's count in nanoseconds: the ticks of /proc/<pid>/stat are 10 ms each.
    """
    threads = (task for pid in pids for task in Path(f"/proc/{pid}/task").iterdir())
    return sum(int((task / "schedstat").read_text().split()[0]) for task in threads) / 1e9


def rss_of(*pids: int) -> int:
    """Return the resident memory of these processes in KiB; shared pages are counted for each process."""
    lines = (line for pid in pids for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return sum(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


@dataclass(frozen=True, slots=True)
class RedisServer:
    """A redis-server started for a benchmark."""

    url: str
    port: int
    pid: int

    @property
    def cpu(self) -> float:
        """Its CPU seconds so far."""
        return cpu_of(self.pid)


@contextmanager
def redis_server(folder: Path, cores: Collection[int] | None = None) -> Iterator[RedisServer]:
    """Run a redis-server without persistence, on these cores; None means any."""
    port = free_port()
    place = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", "", "--appendonly", "no"]
    # The same value as in the deployments of this repository.
    place += ["--hash-max-listpack-value", "1024"]
    log = folder / "redis.log"
    command = [shutil.which("redis-server") or "redis-server", *place, "--logfile", str(log)]
    process = subprocess.Popen(command, preexec_fn=on_cores(cores))
    try:
        with redis.Redis(port=port) as client:
            wait_for(lambda: _answers(client), "redis-server")
        yield RedisServer(f"redis://127.0.0.1:{port}/1", port, process.pid)
    finally:
        process.terminate()
        process.wait(30)


def _answers(client: redis.Redis) -> bool:
    with suppress(redis.RedisError):
        return bool(client.ping())
    return False


class Replica:
    """One gunicorn. Only its workers are measured."""

    def __init__(
        self,
        settings: Mapping[str, str],
        folder: Path,
        *,
        workers: int = 1,
        cores: Collection[int] | None = None,
        config: Path = ROOT / "gunicorn.conf.py",
    ) -> None:
        """Start it with exactly these settings, on these cores; None means any."""
        self.port = free_port()
        self.log = folder / f"replica-{self.port}.log"
        local = {"PYTHONPATH": str(ROOT), "HOST": "127.0.0.1", "PORT": str(self.port), "WORKERS": str(workers)}
        inherited = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        command = [sys.executable, "-m", "gunicorn", "--config", str(config)]
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                cwd=folder,
                env={**inherited, **settings, **local},
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=on_cores(cores),
            )
        self._count = workers
        self.workers: list[int] = []

    def wait_ready(self) -> None:
        """Wait until the replica is ready. Raises: TimeoutError: it is not within START_SECONDS."""
        wait_for(self._ready, f"the replica (see {self.log})")

    def _ready(self) -> bool:
        pid = self._process.pid
        self.workers = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        if len(self.workers) < self._count:
            return False
        with suppress(requests.RequestException):
            return requests.get(f"http://127.0.0.1:{self.port}/readyz", timeout=2).ok
        return False

    @property
    def rss(self) -> int:
        """The workers' resident memory in KiB."""
        return rss_of(*self.workers)

    @property
    def cpu(self) -> float:
        """The workers' CPU seconds so far."""
        return cpu_of(*self.workers)

    def kill(self) -> None:
        """Kill it with SIGKILL, like a lost machine."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(10)


@contextmanager
def replicas(
    count: int,
    settings: Mapping[str, str],
    folder: Path,
    *,
    workers: int = 1,
    cores: Collection[int] | None = None,
    config: Path = ROOT / "gunicorn.conf.py",
) -> Iterator[list[Replica]]:
    """Run this many replicas on these cores (None: any), wait until all are ready, and end all with the block."""
    started = [Replica(settings, folder, workers=workers, cores=cores, config=config) for _ in range(count)]
    try:
        for replica in started:
            replica.wait_ready()
        yield started
    finally:
        for replica in started:
            replica.kill()


class Dify:
    """A mock Dify in its own process; every piece of its answers contains its send time."""

    def __init__(self, pipe: Connection, base_url: str) -> None:
        self._pipe = pipe
        self.base_url = base_url

    def told(self) -> tuple[dict[str, str], Counter[str]]:
        """Return the answer to each question, and how often each was asked."""
        self._pipe.send("told")
        answers, asks = self._pipe.recv()
        return answers, asks


@contextmanager
def stamping_dify(pieces: int, every: float) -> Iterator[Dify]:
    """Run a mock Dify that answers every question with `pieces` pieces, `every` seconds apart."""
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
            yield Gap(every)
        run.answer = run.final = answers[run.query] = "".join(said)
        yield run.message_end()
        yield run.workflow_finished(answer=run.answer)

    # Runs are never stopped here: checking only every ten seconds leaves the CPU to the replica.
    mock_dify_player._LOOK = 10.0
    threading.stack_size(256 * 1024)
    SCRIPTS["stamps"] = DifyScript(play, "times")
    with MockDify(default="stamps", limit=3600.0, after_disconnect="runs on") as dify:
        pipe.send(dify.base_url)
        while pipe.recv():
            pipe.send((answers, Counter(str(request.body["query"]) for request in dify.requests)))
