"""Real servers for tests, each in a temporary folder on a free port of 127.0.0.1; all end with the tests."""

from __future__ import annotations

import fcntl
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar, cast

import pymysql
import pytest
import redis
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.retry import Retry
from redis.sentinel import Sentinel

from config.addresses import parse_redis_url

#: Timeout in seconds until a server answers its first command: long, for a busy machine.
START_TIMEOUT = 60.0

T = TypeVar("T")


class FakeClock:
    """A clock that only `advance` moves; pass it where a function that returns seconds is expected."""

    def __init__(self, now: float = 1_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


def wait_until(predicate: Callable[[], T], timeout: float = 30.0, *, every: float = 0.01) -> T:
    """Poll until `predicate` is true, and return what it returned; fail the test after `timeout` seconds."""
    end = time.monotonic() + timeout
    while not (value := predicate()):
        if time.monotonic() > end:
            pytest.fail(f"not true within {timeout:g} s: {predicate!r}")
        time.sleep(every)
    return value


def when(fact: Callable[[], object], act: Callable[[], object]) -> None:
    """Call `act` in a thread once `fact` is true; give up after 60 seconds."""

    def watch() -> None:
        end = time.monotonic() + 60.0
        while time.monotonic() < end:
            if fact():
                act()
                return
            time.sleep(0.01)

    threading.Thread(target=watch, daemon=True).start()


#: Ports for servers, below 32768, where Linux's ports for outgoing connections begin.
_PORTS = range(10_000, 32_000)


class _Ports:
    """Ports of 127.0.0.1 that no other process of any run on this machine is given while this process runs.

    Without a claim, another test's server could start on a port that a test has just seen free: on one where the test
    expects that nobody listens, or where its own server is about to start. A claim is a locked byte of a shared file,
    which the kernel unlocks when the process ends.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._claimed: set[int] = set()
        self._file: int | None = None

    def claim(self) -> int:
        with self._guard:
            if self._file is None:
                path = Path(tempfile.gettempdir(), f"laibao-test-ports-{os.getuid()}")
                self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
            for _ in range(10_000):
                port = random.choice(_PORTS)
                if port not in self._claimed and self._locked(self._file, port) and _bindable(port):
                    self._claimed.add(port)
                    return port
        raise RuntimeError("no free port is left for tests")

    def _locked(self, file: int, port: int) -> bool:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
        except OSError:
            return False
        return True


def _bindable(port: int) -> bool:
    with socket.socket() as probe, suppress(OSError):
        probe.bind(("127.0.0.1", port))
        return True
    return False


_ports = _Ports()


def free_port() -> int:
    """Return a free port of 127.0.0.1 that no other test of this machine gets until this process ends."""
    return _ports.claim()


def require_binary(name: str) -> str:
    """Return the path of a server's binary; without it skip the test, or fail it under REQUIRE_REAL_SERVERS=1."""
    path = shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"]))
    if path is None:
        reason = f"{name} is not installed: the tests on a real server need it"
        if os.environ.get("REQUIRE_REAL_SERVERS") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    return path


def redis_client_for(url: str, *, socket_timeout: float = 5.0, **options: Any) -> redis.Redis:
    """Return a client independent of the product: text replies, bounded waits, no retries.

    With Sentinel it connects to the present master, with a cluster to all nodes.
    """
    timeouts = {"socket_timeout": socket_timeout, "socket_connect_timeout": socket_timeout}
    options = {"decode_responses": True, "retry": Retry(NoBackoff(), 0), **timeouts, **options}
    place = parse_redis_url(url)
    if place.kind == "cluster":
        nodes = [ClusterNode(*host) for host in place.hosts]  # type: ignore[no-untyped-call]
        return cast(redis.Redis, _WholeCluster(startup_nodes=nodes, **options))
    if place.kind == "sentinel":
        sentinels = Sentinel(place.hosts, sentinel_kwargs=timeouts)  # type: ignore[no-untyped-call]
        host, port = sentinels.discover_master(place.service)  # type: ignore[no-untyped-call]
        url = f"redis://{host}:{port}/{place.db}"
    return redis.Redis.from_url(url, **options)


class _WholeCluster(RedisCluster):
    def keys(self, *args: Any, **options: Any) -> Any:
        """Return the keys of all nodes; the library would ask one."""
        return super().keys(*args, target_nodes=RedisCluster.PRIMARIES, **options)


#: Bytes that must be free in memory for the folders of a run's servers.
MEMORY_BYTES = 4 * 1024**3


@cache
def _memory() -> str | None:
    """Return a folder in memory, None if there is no large one.

    A server that writes to disk before it replies waits for everything else that is being written: for the product, a
    fsync of 0.6 s is an outage of Redis. Files in memory outlive a killed server all the same.
    """
    shm = Path("/dev/shm")
    return str(shm) if shm.is_dir() and shutil.disk_usage(shm).free > MEMORY_BYTES else None


class Server(ABC):
    """One server process; a context manager that starts it, and at the end kills it and removes its folder."""

    def __init__(self, *, port: int = 0) -> None:
        self._pinned = port
        self.port = port
        self.process: subprocess.Popen[bytes] | None = None
        # A short path: MariaDB's socket is in it, and a socket's path may have 107 bytes.
        self.directory = Path(tempfile.mkdtemp(prefix="laibao-", dir=_memory()))

    @abstractmethod
    def command(self) -> list[str]:
        """Return the command line that serves `self.port` from `self.directory`."""

    @abstractmethod
    def answers(self) -> bool:
        """Return whether the server takes commands."""

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def start(self) -> None:
        """Start, or start again on the same port and folder, and wait until it answers."""
        for _ in range(3):
            self.port = self.port or free_port()
            if self._launch():
                return
            # Another process took the free port meanwhile: try another, unless the port was given or used before.
            self.port = self._pinned
        raise RuntimeError(f"{type(self).__name__} did not start:\n{self.log()}")

    def _launch(self) -> bool:
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen([*_dying_with_us(), *self.command()], stdout=log, stderr=log)
        end = time.monotonic() + START_TIMEOUT
        while self.process.poll() is None and time.monotonic() < end:
            if self.answers():
                self._pinned = self.port
                return True
            time.sleep(0.02)
        self.kill()
        return False

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def stop(self) -> None:
        """Send SIGTERM and wait for the end."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL, as a crash, and wait for the end."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Stop and start on the same port with the same folder."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """Stop it with SIGSTOP: connections stay open and nothing answers, until `resume`."""
        os.kill(self.pid, signal.SIGSTOP)
        # On a busy machine its threads run on for a moment after the signal.
        wait_until(lambda: all(_state(task) == "T" for task in Path(f"/proc/{self.pid}/task").iterdir()))

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def log(self) -> str:
        """Return the last 2,000 characters of the server's output."""
        path = self.directory / "log"
        return path.read_text(errors="replace")[-2000:] if path.exists() else ""

    def close(self) -> None:
        """End the process in any state, and remove its folder."""
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _end(self, signum: signal.Signals) -> None:
        if not self.running or self.process is None:
            return
        self.process.send_signal(signum)
        # A stopped process handles SIGTERM only after SIGCONT.
        self.process.send_signal(signal.SIGCONT)
        try:
            self.process.wait(30.0)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(30.0)


class RedisServer(Server):
    """A redis-server; with `aof=True` every write survives `kill` and `restart`."""

    def __init__(self, *, aof: bool = False, port: int = 0, options: tuple[str, ...] = ()) -> None:
        super().__init__(port=port)
        self._binary = require_binary("redis-server")
        durable = ("--appendonly", "yes", "--appendfsync", "always") if aof else ("--appendonly", "no")
        self._options = (*durable, *options)

    def command(self) -> list[str]:
        where = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.directory), "--save", ""]
        return [self._binary, *where, *self._options]

    def answers(self) -> bool:
        try:
            with self.client(socket_timeout=1.0) as client:
                return bool(client.ping())
        except redis.AuthenticationError:
            return True
        except redis.RedisError:
            return False

    def url(self, db: int = 1) -> str:
        return f"redis://127.0.0.1:{self.port}/{db}"

    def client(self, db: int = 1, **options: Any) -> redis.Redis:
        return redis_client_for(self.url(db), **options)


class MariaServer(Server):
    """A mariadbd whose root logs in over TCP without a password."""

    def __init__(self, *, port: int = 0) -> None:
        super().__init__(port=port)
        self._binary = require_binary("mariadbd")
        self._installer = require_binary("mariadb-install-db")

    def start(self) -> None:
        if not (self.directory / "data").exists():
            self._install()
        super().start()

    def _install(self) -> None:
        where = [f"--datadir={self.directory / 'data'}", "--auth-root-authentication-method=normal"]
        command = [self._installer, "--no-defaults", *where, "--skip-test-db", *_as_root()]
        # It failed once for an unknown reason: try twice, and report its output.
        for _ in range(2):
            done = subprocess.run(command, capture_output=True, text=True, timeout=START_TIMEOUT)
            if not done.returncode:
                return
            shutil.rmtree(self.directory / "data", ignore_errors=True)
        pytest.fail(f"mariadb-install-db: {done.stdout[-1000:]}{done.stderr[-1000:]}")

    def command(self) -> list[str]:
        place = [f"--datadir={self.directory / 'data'}", f"--socket={self.directory / 'sock'}"]
        place += [f"--pid-file={self.directory / 'pid'}", "--bind-address=127.0.0.1", f"--port={self.port}"]
        # A starting server removes the temporary tables of all others that share its folder for them.
        place += [f"--tmpdir={self.directory}"]
        # Small, and not safe against power cuts: it runs for seconds.
        light = ["--innodb-buffer-pool-size=16M", "--innodb-log-file-size=8M", "--innodb-flush-log-at-trx-commit=0"]
        light += ["--skip-log-bin", "--skip-name-resolve", "--performance-schema=OFF"]
        return [self._binary, "--no-defaults", *_as_root(), *place, *light]

    def answers(self) -> bool:
        try:
            self.execute("SELECT 1")
        except pymysql.MySQLError:
            return False
        return True

    def execute(self, statement: str) -> tuple[tuple[Any, ...], ...]:
        """Run one statement as root and return its rows."""
        with (
            pymysql.connect(host="127.0.0.1", port=self.port, user="root", connect_timeout=5, autocommit=True) as root,
            root.cursor() as cursor,
        ):
            cursor.execute(statement)
            return tuple(cursor.fetchall())

    def url(self, database: str) -> str:
        return f"mysql+pymysql://root@127.0.0.1:{self.port}/{database}"

    def fresh_database(self, name: str = "laibao") -> str:
        """Create the database, dropping an existing one, and return its URL."""
        self.execute(f"DROP DATABASE IF EXISTS {name}")
        self.execute(f"CREATE DATABASE {name} CHARACTER SET utf8mb4")
        return self.url(name)


def _state(task: Path) -> str:
    """Return a thread's state from /proc: R running, S sleeping, T stopped."""
    return (task / "stat").read_text().rpartition(")")[2].split()[0]


def _as_root() -> list[str]:
    return ["--user=root"] if os.geteuid() == 0 else []


def _dying_with_us() -> list[str]:
    """Return a command prefix that makes the kernel kill the server when the tests die, even by SIGKILL."""
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "KILL"] if setpriv else []
