"""The servers of a benchmark: a real redis-server and real replicas, each a process on a free port of 127.0.0.1."""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

import redis

from demo.stage import free_port

ROOT = Path(__file__).resolve().parents[2]
PRODUCT, FLOOR = ROOT / "gunicorn.conf.py", ROOT / "bench" / "load" / "floor_conf.py"
#: Timeout of a server's start, and the interval of the checks whether it is ready, in seconds.
START_SECONDS, CHECK_EVERY = 60.0, 0.005
_PROBE = b"GET /readyz HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n"


def allow_files(count: int) -> None:
    """Raise the limit of open files and connections for this process and its children.

    Raises:
        ValueError, OSError: the system does not allow it.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = hard if hard == resource.RLIM_INFINITY else max(hard, count)
    resource.setrlimit(resource.RLIMIT_NOFILE, (count, wanted))


def wait_for(condition: Callable[[], bool], what: str, timeout: float = START_SECONDS) -> None:
    """Wait until the condition is true. Raises: TimeoutError: it is not within `timeout` seconds."""
    end = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not within {timeout:g} s")
        time.sleep(CHECK_EVERY)


def cpu_of(*pids: int) -> float:
    """Return the CPU seconds used by these processes so far, summed over their present threads.

    Read from the scheduler's count in nanoseconds: the ticks of /proc/<pid>/stat are 10 ms each.
    """
    threads = (task for pid in pids for task in Path(f"/proc/{pid}/task").iterdir())
    return sum(int((task / "schedstat").read_text().split()[0]) for task in threads) / 1e9


class RedisServer(NamedTuple):
    url: str
    pid: int


@contextmanager
def redis_server(folder: Path) -> Iterator[RedisServer]:
    """Run a redis-server without persistence."""
    port = free_port()
    options = {"port": port, "bind": "127.0.0.1", "dir": folder, "save": "", "appendonly": "no"}
    # The same value as in the deployments of this repository.
    options |= {"hash-max-listpack-value": 1024, "logfile": folder / "redis.log"}
    command = ["redis-server", *(str(part) for name, value in options.items() for part in (f"--{name}", value))]
    with subprocess.Popen(command) as process, redis.Redis(port=port) as client:
        try:
            wait_for(lambda: _responds(client), "redis-server")
            yield RedisServer(f"redis://127.0.0.1:{port}/1", process.pid)
        finally:
            process.terminate()


def _responds(client: redis.Redis) -> bool:
    with suppress(redis.RedisError):
        return bool(client.ping())
    return False


class Replica:
    """One gunicorn. Only its workers are measured."""

    def __init__(
        self, settings: Mapping[str, str], folder: Path, config: Path, *, workers: int, cores: Collection[int] | None
    ) -> None:
        """Start it with exactly these settings, on these cores (None: any), and wait until it is ready.

        Raises:
            TimeoutError: it is not ready within START_SECONDS.
        """
        self.port = free_port()
        local = {"PYTHONPATH": str(ROOT), "HOST": "127.0.0.1", "PORT": str(self.port), "WORKERS": str(workers)}
        inherited = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        log_file = folder / f"replica-{self.port}.log"
        began = time.perf_counter()
        with log_file.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "gunicorn", "--config", str(config)],
                cwd=folder,
                env={**inherited, **settings, **local},
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=partial(os.sched_setaffinity, 0, cores) if cores else None,
            )
        try:
            wait_for(lambda: is_ready(self.port), f"the replica (see {log_file})")
            #: Seconds from exec to the first 200 of /readyz.
            self.start_seconds = time.perf_counter() - began
            wait_for(lambda: len(self._children()) >= workers, f"the workers (see {log_file})")
        except BaseException:
            self.kill()
            raise
        self.workers = self._children()

    def _children(self) -> list[int]:
        pid = self._process.pid
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    @property
    def rss(self) -> int:
        """The workers' resident memory in KiB; shared pages are counted for each worker."""
        lines = (line for pid in self.workers for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        return sum(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))

    @property
    def pss(self) -> int:
        """The workers' proportional memory in KiB: a page that processes share counts for each with its part."""
        lines = (line for pid in self.workers for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines())
        return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))

    @property
    def cpu(self) -> float:
        """The workers' CPU seconds so far."""
        return cpu_of(*self.workers)

    def kill(self) -> None:
        """Kill it with SIGKILL, like a lost machine."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(10)


def is_ready(port: int) -> bool:
    """Return whether /readyz answers with 200."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), START_SECONDS) as connection:
        connection.sendall(_PROBE)
        return connection.recv(64).startswith(b"HTTP/1.1 200 ")
    return False
