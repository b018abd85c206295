"""Client connections with a send timeout, and the server that accepts them."""

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
from utils.slow_peers import SEND_BUFFER, SEND_SECONDS

log = logging.getLogger(__name__)

#: Files that a process opens besides client connections: Redis, SQL and provider connections, logs, pipes.
OTHER_FILES = 1000


class PacedSocket(socket.socket):  # type: ignore[misc]
    """A client connection with a send timeout; gevent's own socket waits for ever for a client that reads nothing.

    This limits every reply, event streams included. A WebSocket's writer sets shorter timeouts and has the same limit
    among its deadlines (`channels.sockets.wire`), also for connections that this process opens.
    """

    send_seconds = SEND_SECONDS

    def sendall(self, data: Any, flags: int = 0) -> None:
        """Send all of `data`.

        Raises:
            BrokenPipeError: the client read nothing for `send_seconds`; the connection is shut down.
        """
        sent = self.send(data, flags)
        if sent < len(data):
            rest = memoryview(data)[sent:]
            while rest:
                rest = rest[self.send(rest, flags) :]

    def send(self, data: Any, flags: int = 0, timeout: Any = None) -> int:
        """Send some of `data`; `timeout`, or else the socket's own timeout, applies if it is shorter."""
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
    """A server that accepts `PacedSocket`s with a bounded send buffer."""

    def __init__(self, listener: Any, **options: Any) -> None:
        # Accepted connections inherit the option from the listener.
        listener.setsockopt(plain.SOL_SOCKET, plain.SO_SNDBUF, SEND_BUFFER)
        super().__init__(listener, **options)

    def do_read(self) -> tuple[Any, Any] | None:
        accepted = super().do_read()
        if accepted is None:
            return None
        client, address = accepted
        return PacedSocket(client.family, client.type, client.proto, fileno=client.detach()), address


def allow_files(connections: int) -> None:
    """Raise the process's limit of open files for `connections`, at most to the hard limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = connections + OTHER_FILES
    if soft >= needed or soft == resource.RLIM_INFINITY:
        return
    most = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    if most < needed:
        log.warning("too few open files", extra={"limit": most, "needed": needed})
