"""A load generator: prebuilt requests over persistent connections, one thread, one epoll.

The work per request is a read, a search for the length and a write. Each outcome contains the generator's CPU time.
"""

from __future__ import annotations

import gc
import math
import select
import socket
import time
from array import array
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

#: Timeout of connecting, and seconds without any reply after which a job fails.
TIMEOUT = 10.0
#: Seconds for which connections are kept for the next job. The product closes them after 15 idle seconds.
KEPT = 5.0
#: Connections to each port, unless a job has another number.
CONNECTIONS = 64
_READ_BYTES = 256 * 1024


class LoadFailed(Exception):
    """A reply was invalid or missing."""


@dataclass(frozen=True, slots=True)
class Job:
    """The requests to send, in order. Connections are spread over the ports."""

    ports: Sequence[int]
    requests: Sequence[bytes]
    #: Duration in seconds, with the requests repeated in a loop; None sends each request once.
    seconds: float | None = None
    #: Connections to each port.
    connections: int = CONNECTIONS
    #: Requests a second, evenly spaced; None sends the next as soon as a connection has its reply.
    rate: float | None = None
    #: Number of first replies whose bodies are returned.
    samples: int = 0
    timeout: float = TIMEOUT


@dataclass(slots=True)
class Outcome:
    """The result of a job."""

    #: Seconds from each request's due time to its reply, in the order of arrival.
    delays: array[float] = field(default_factory=lambda: array("d"))
    #: Seconds from the first request to the last reply, and the generator's CPU seconds meanwhile.
    seconds: float = 0.0
    cpu: float = 0.0
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


class Generator(ExitStack):
    """Sends jobs from this process, one at a time. Connections stay open: opening them would distort short rounds."""

    def __init__(self) -> None:
        super().__init__()
        self._kept: dict[tuple[tuple[int, ...], int], tuple[float, _Pool]] = {}
        self.callback(self._close)

    def run(self, job: Job) -> Outcome:
        """Send the requests and return when every reply has arrived.

        Raises:
            LoadFailed: a reply's status is not 200, or none arrived within the job's timeout.
            OSError: a connection broke.
        """
        place = (tuple(job.ports), job.connections)
        used, pool = self._kept.pop(place, (-math.inf, None))
        if pool and time.monotonic() - used > KEPT:
            pool.close()
            pool = None
        pool = pool or _Pool(*place)
        # Pauses of Python's garbage collector would be part of the delays.
        gc.disable()
        try:
            outcome = pool.send(job)
        except BaseException:
            pool.close()
            raise
        finally:
            gc.enable()
        self._kept[place] = (time.monotonic(), pool)
        return outcome

    def _close(self) -> None:
        for _, pool in self._kept.values():
            pool.close()


class _Connection:
    """A connection with at most one pending request: its index, its due time, and the reply so far."""

    __slots__ = ("due", "number", "reply", "sock")

    def __init__(self, port: int) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), TIMEOUT)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # With a timeout, Python polls the socket before each read, although epoll has already reported it.
        self.sock.settimeout(None)
        self.number, self.due, self.reply = 0, 0.0, b""

    def send(self, request: bytes, number: int, due: float) -> None:
        self.number, self.due, self.reply = number, due, b""
        self.sock.sendall(request)

    def receive(self) -> bytes | None:
        """Read available bytes; return the body if the reply is complete. Raises: LoadFailed."""
        piece = self.sock.recv(_READ_BYTES)
        if not piece:
            raise LoadFailed("the server closed a connection instead of answering")
        self.reply = self.reply + piece if self.reply else piece
        head, complete, body = self.reply.partition(b"\r\n\r\n")
        if not complete:
            return None
        if not head.startswith(b"HTTP/1.1 200 "):
            raise LoadFailed(f"not a reply with status 200: {head[:200]!r}")
        # Searched with one space after the colon, as gunicorn and both applications write it.
        _, found, length = head.partition(b"ontent-Length: ")
        if not found:
            raise LoadFailed(f"a reply without a length: {head!r}")
        return body if len(body) >= int(length.partition(b"\r")[0]) else None


class _Pool:
    """Open connections to some ports."""

    def __init__(self, ports: Sequence[int], connections: int) -> None:
        self._epoll = select.epoll()
        opened = [_Connection(port) for _ in range(connections) for port in ports]
        self._connections = {connection.sock.fileno(): connection for connection in opened}
        # The connection idle for longest is used next, so that none reaches the server's keep-alive timeout.
        self._idle = deque(opened)
        for fd in self._connections:
            self._epoll.register(fd, select.EPOLLIN)

    def close(self) -> None:
        for connection in self._connections.values():
            connection.sock.close()
        self._epoll.close()

    def send(self, job: Job) -> Outcome:
        outcome, total = Outcome(), len(self._connections)
        began, cpu = time.perf_counter(), time.process_time()
        last_reply, number = began, 0
        while True:
            now = time.perf_counter()
            while (due := _due(job, number, began, now)) <= now and self._idle:
                connection = self._idle.popleft()
                connection.send(job.requests[number % len(job.requests)], number, due)
                number += 1
            if due == math.inf and len(self._idle) == total:
                break
            timeout = min(job.timeout, due - now) if self._idle else job.timeout
            if self._receive(job, outcome, timeout) or len(self._idle) == total:
                last_reply = time.perf_counter()
            elif time.perf_counter() - last_reply > job.timeout:
                raise LoadFailed(f"no reply for {job.timeout:g} s")
        outcome.seconds, outcome.cpu = time.perf_counter() - began, time.process_time() - cpu
        return outcome

    def _receive(self, job: Job, outcome: Outcome, timeout: float) -> bool:
        """Read the replies that arrive within `timeout` seconds; return whether there were any."""
        if job.rate:
            # epoll's own timeout has a resolution of one millisecond: a request would be sent up to 1 ms too late.
            select.select([self._epoll], [], [], timeout)
            timeout = 0
        ready = self._epoll.poll(timeout)
        for fd, _ in ready:
            connection = self._connections[fd]
            body = connection.receive()
            if body is not None:
                outcome.delays.append(time.perf_counter() - connection.due)
                outcome.received += len(connection.reply)
                if connection.number < job.samples:
                    outcome.bodies[connection.number] = body
                self._idle.append(connection)
        return bool(ready)


def _due(job: Job, number: int, began: float, now: float) -> float:
    """Return the due time of the request with this number; infinity after the last one. At least one is sent."""
    due = began + number / job.rate if job.rate else now
    over = number >= len(job.requests) if job.seconds is None else number > 0 and due >= began + job.seconds
    return math.inf if over else due
