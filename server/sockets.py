"""Connections whose replies end when the client takes nothing, and the server that accepts them."""

from __future__ import annotations

import errno
import logging
import resource
import socket as plain
from contextlib import suppress
from typing import Any

from gevent import socket
from gevent.server import StreamServer

from server.requests import count

log = logging.getLogger(__name__)

#: Seconds in which a client must have taken some of what is sent to it.
SEND_SECONDS = 30.0
#: Bytes that lie in the kernel for a client that does not read (Linux doubles it): left alone they grow to megabytes.
SEND_BUFFER = 128 * 1024
#: Files that a process opens besides connections of clients: of Redis, SQL and providers, logs, pipes.
OTHER_FILES = 1000


class PacedSocket(socket.socket):  # type: ignore[misc]
    """A client's connection; gevent's own waits for ever for a client that reads nothing."""

    send_seconds = SEND_SECONDS

    def sendall(self, data: Any, flags: int = 0) -> None:
        """Send all of `data`, as long as the client takes some of it in any `send_seconds`.

        Raises:
            BrokenPipeError: it did not, and the connection is shut down.
        """
        sent = self.send(data, flags)
        if sent < len(data):
            rest = memoryview(data)[sent:]
            while rest:
                rest = rest[self.send(rest, flags) :]

    def send(self, data: Any, flags: int = 0, timeout: Any = None) -> int:
        """Send some of `data`; where the socket has a timeout of its own, or one is given, that counts if shorter."""
        while True:
            try:
                sent: int = super().send(data, flags, 0.0)
                return sent
            except BlockingIOError:
                self._await_reader(self.gettimeout() if timeout is None else timeout)

    def _await_reader(self, timeout: float | None) -> None:
        if timeout is not None and timeout < self.send_seconds:
            if timeout == 0.0:
                raise BlockingIOError(errno.EWOULDBLOCK, "nothing can be sent now")
            socket.wait_write(self.fileno(), timeout)
            return
        try:
            socket.wait_write(self.fileno(), self.send_seconds)
        except TimeoutError as exc:
            count("stalled")
            with suppress(OSError):
                self.shutdown(plain.SHUT_RDWR)
            raise BrokenPipeError(errno.EPIPE, "the client reads nothing") from exc


class PacedServer(StreamServer):  # type: ignore[misc]
    """A server of `PacedSocket`s with a bounded send buffer."""

    def __init__(self, listener: Any, **options: Any) -> None:
        # Accepted connections have it from their listener.
        listener.setsockopt(plain.SOL_SOCKET, plain.SO_SNDBUF, SEND_BUFFER)
        super().__init__(listener, **options)

    def do_read(self) -> tuple[Any, Any] | None:
        accepted = super().do_read()
        if accepted is None:
            return None
        client, address = accepted
        return PacedSocket(client.family, client.type, client.proto, fileno=client.detach()), address


def allow_files(connections: int) -> None:
    """Raise this process's limit of open files for so many connections, as far as it may be raised."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = connections + OTHER_FILES
    if soft >= needed or soft == resource.RLIM_INFINITY:
        return
    most = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    if most < needed:
        log.warning("too few open files", extra={"limit": most, "needed": needed})
