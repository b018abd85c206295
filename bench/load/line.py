"""One connection of the load generator: what it does for a request is all that a request costs the generator."""

from __future__ import annotations

import socket

#: Seconds for connecting.
_SECONDS = 10.0
_READ_BYTES = 256 * 1024


class LoadFailed(Exception):
    """A reply was none that may be counted, or there was none."""


class Line:
    """One connection, with at most one request under way; it reads and writes when told to."""

    __slots__ = ("_port", "_reply", "due", "number", "request", "sock")

    def __init__(self, port: int) -> None:
        self._port = port
        self._reply = b""
        self.request = b""
        #: The request's place among all, and when it was due.
        self.number = 0
        self.due = 0.0
        self.connect()

    def connect(self) -> None:
        self.sock = socket.create_connection(("127.0.0.1", self._port), _SECONDS)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # With a timeout Python would look whether it can read before each read; epoll has said so.
        self.sock.settimeout(None)

    def send(self, request: bytes, number: int, due: float) -> None:
        """Raises: OSError: the server hung up; `connect` and send it again."""
        self.request, self.number, self.due, self._reply = request, number, due, b""
        self.sock.sendall(request)

    def receive(self) -> bytes | None:
        """Read what is there; return the body of a reply that is complete, None for one that is not.

        Raises:
            EOFError, ConnectionError: the server hung up.
            LoadFailed: it is another reply than 200, or has no length.
        """
        piece = self.sock.recv(_READ_BYTES)
        if not piece:
            raise EOFError
        self._reply = reply = self._reply + piece if self._reply else piece
        head = reply.find(b"\r\n\r\n")
        if head < 0:
            return None
        if not reply.startswith(b"HTTP/1.1 200 "):
            raise LoadFailed(f"a reply that is none: {reply[:200]!r}")
        # One space after the colon: gunicorn and both applications write it so.
        length = reply.find(b"ontent-Length: ", 0, head) + 15
        if length < 15:
            raise LoadFailed(f"a reply without a length: {reply[:head]!r}")
        body = head + 4
        return reply[body:] if len(reply) - body >= int(reply[length : reply.find(b"\r", length)]) else None

    @property
    def size(self) -> int:
        """Bytes of the reply so far, its head included."""
        return len(self._reply)
