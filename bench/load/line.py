"""One connection of the load generator. Its work per request is the generator's whole cost of a request."""

from __future__ import annotations

import socket

#: Timeout of connecting, in seconds.
_SECONDS = 10.0
_READ_BYTES = 256 * 1024


class LoadFailed(Exception):
    """A reply was invalid or missing."""


class Line:
    """One connection with at most one pending request. It reads and writes only when called."""

    __slots__ = ("_port", "_reply", "due", "number", "request", "sock")

    def __init__(self, port: int) -> None:
        self._port = port
        self._reply = b""
        self.request = b""
        #: The request's index and its due time.
        self.number = 0
        self.due = 0.0
        self.connect()

    def connect(self) -> None:
        self.sock = socket.create_connection(("127.0.0.1", self._port), _SECONDS)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # With a timeout, Python polls the socket before each read, although epoll has already reported it.
        self.sock.settimeout(None)

    def send(self, request: bytes, number: int, due: float) -> None:
        """Send a request. Raises: OSError: the server closed the connection; call `connect` and send it again."""
        self.request, self.number, self.due, self._reply = request, number, due, b""
        self.sock.sendall(request)

    def receive(self) -> bytes | None:
        """Read available bytes; return the body if the reply is complete, else None.

        Raises:
            EOFError, ConnectionError: the server closed the connection.
            LoadFailed: the status is not 200, or the reply has no length.
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
        # Searched with one space after the colon, as gunicorn and both applications write it.
        length = reply.find(b"ontent-Length: ", 0, head) + 15
        if length < 15:
            raise LoadFailed(f"a reply without a length: {reply[:head]!r}")
        body = head + 4
        return reply[body:] if len(reply) - body >= int(reply[length : reply.find(b"\r", length)]) else None

    @property
    def size(self) -> int:
        """Bytes of the reply so far, including headers."""
        return len(self._reply)
