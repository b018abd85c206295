"""A load generator in its own process: prebuilt requests over persistent connections, one thread, one epoll.

The work per request is a read, a search for the length and a write. Each outcome contains the generator's CPU time.
"""

from __future__ import annotations

import math
import multiprocessing
import select
import signal
import time
from array import array
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection

from bench.load.line import Line, LoadFailed
from bench.stage.replicas import START_SECONDS, on_cores

__all__ = ["Generator", "Job", "LoadFailed", "Outcome", "generator", "send"]

#: How often a server may close each connection.
RECONNECTS = 10


@dataclass(frozen=True, slots=True)
class Job:
    """The requests to send, in order."""

    port: int
    requests: Sequence[bytes]
    #: Duration in seconds, with the requests repeated in a loop; None sends each request once.
    seconds: float | None = None
    connections: int = 64
    #: Requests a second, evenly spaced; None sends the next as soon as a connection has its reply.
    rate: float | None = None
    #: Number of first replies whose bodies are returned.
    samples: int = 0
    #: Timeout in seconds without any reply.
    patience: float = 10.0


@dataclass(slots=True)
class Outcome:
    """The result of a job."""

    #: Seconds from each request's due time to its reply, in the order of arrival.
    delays: array[float] = field(default_factory=lambda: array("d"))
    #: Seconds from the first request to the last reply.
    seconds: float = 0.0
    #: CPU seconds of the generator during the job.
    cpu: float = 0.0
    #: Connections that the server closed instead of answering. Closed idle connections are not counted.
    reconnects: int = 0
    #: Bytes of all replies, including headers.
    received: int = 0
    #: Bodies of the replies to the first requests, by the request's index.
    bodies: dict[int, bytes] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        """Replies a second."""
        return len(self.delays) / self.seconds

    @property
    def share(self) -> float:
        """The generator's CPU use in percent of a core."""
        return 100 * self.cpu / self.seconds


class Generator:
    """The sending process. It runs one job at a time."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe

    def run(self, job: Job) -> Outcome:
        """Send the requests and return when every reply has arrived.

        Raises:
            LoadFailed: a reply's status is not 200, or none arrived within the job's timeout.
        """
        self._pipe.send(job)
        outcome: Outcome | LoadFailed = self._pipe.recv()
        if isinstance(outcome, LoadFailed):
            raise outcome
        return outcome


@contextmanager
def generator(cores: Collection[int] | None = None) -> Iterator[Generator]:
    """Run a generator on these cores; None means any."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, cores), daemon=True)
    process.start()
    theirs.close()
    try:
        if not ours.poll(START_SECONDS):
            raise TimeoutError("the load generator did not start")
        ours.recv()
        yield Generator(ours)
    finally:
        process.terminate()
        process.join(10)
        ours.close()


def _serve(pipe: Connection, cores: Collection[int] | None) -> None:
    # Ctrl-C is handled by the parent process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if pin := on_cores(cores):
        pin()
    pipe.send("ready")
    kept: dict[tuple[int, int], _Lines] = {}
    while True:
        try:
            job: Job = pipe.recv()
        except EOFError:
            return
        place = (job.port, job.connections)
        try:
            # Connections stay open between jobs: opening them would distort rounds of a second.
            lines = kept.pop(place, None) or _Lines(*place)
            pipe.send(lines.send(job))
            kept[place] = lines
        except (LoadFailed, OSError) as exc:
            pipe.send(LoadFailed(str(exc)))


def send(job: Job) -> Outcome:
    """Run a job in this process; see `Generator.run`."""
    with closing(_Lines(job.port, job.connections)) as lines:
        return lines.send(job)


class _Lines:
    """The connections to one server."""

    def __init__(self, port: int, connections: int) -> None:
        self._epoll = select.epoll()
        self._lines: dict[int, Line] = {}
        # The connection idle for longest is used next, so that none reaches the server's keep-alive timeout.
        self._idle: deque[Line] = deque()
        for _ in range(connections):
            self._enter(line := Line(port))
            self._idle.append(line)
        self._job = Job(port, ())
        self._outcome = Outcome()

    def close(self) -> None:
        for line in self._lines.values():
            line.sock.close()
        self._epoll.close()

    def send(self, job: Job) -> Outcome:
        """Send the requests. Raises: LoadFailed, OSError: the connections cannot be used any more."""
        self._job, self._outcome = job, Outcome()
        began, cpu = time.perf_counter(), time.process_time()
        heard, number, most = began, 0, len(self._lines)
        while True:
            now = time.perf_counter()
            while (due := self._due(number, began, now)) <= now and self._idle:
                self._send(number, due)
                number += 1
            if due == math.inf and len(self._idle) == most:
                break
            if self._receive(min(job.patience, due - now) if self._idle else job.patience) or len(self._idle) == most:
                heard = time.perf_counter()
            elif time.perf_counter() - heard > job.patience:
                raise LoadFailed(f"no reply for {job.patience:g} s")
        self._outcome.seconds, self._outcome.cpu = time.perf_counter() - began, time.process_time() - cpu
        return self._outcome

    def _due(self, number: int, began: float, now: float) -> float:
        """Return the due time of the request with this number; infinity after the last one."""
        job = self._job
        due = began + number / job.rate if job.rate else now
        over = number >= len(job.requests) if job.seconds is None else due >= began + job.seconds
        return math.inf if over else due

    def _send(self, number: int, due: float) -> None:
        requests = self._job.requests
        line = self._idle.popleft()
        try:
            line.send(requests[number % len(requests)], number, due)
        except OSError:
            self._again(line)

    def _receive(self, timeout: float) -> bool:
        """Read the replies that arrive within `timeout` seconds; return whether there were any."""
        if self._job.rate:
            # epoll's own timeout has a resolution of one millisecond: a request would be sent up to 1 ms too late.
            select.select([self._epoll], [], [], timeout)
            timeout = 0
        ready = self._epoll.poll(timeout)
        for fd, _ in ready:
            line = self._lines[fd]
            try:
                body = line.receive()
            except (EOFError, ConnectionError):
                self._again(line)
                continue
            if body is not None:
                self._take(line, body)
                self._idle.append(line)
        return bool(ready)

    def _take(self, line: Line, body: bytes) -> None:
        outcome = self._outcome
        outcome.delays.append(time.perf_counter() - line.due)
        outcome.received += line.size
        if line.number < self._job.samples:
            outcome.bodies[line.number] = body

    def _again(self, line: Line) -> None:
        """Reconnect after the server closed a connection. A pending request is sent again with its old due time."""
        del self._lines[line.sock.fileno()]
        line.sock.close()
        line.connect()
        self._enter(line)
        if line in self._idle:
            return
        self._outcome.reconnects += 1
        if self._outcome.reconnects > RECONNECTS * len(self._lines):
            raise LoadFailed("the server keeps hanging up")
        line.send(line.request, line.number, line.due)

    def _enter(self, line: Line) -> None:
        self._lines[line.sock.fileno()] = line
        self._epoll.register(line.sock, select.EPOLLIN)
