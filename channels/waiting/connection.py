"""The client's connection of a long request: detects a client that has disconnected or does not read."""

from __future__ import annotations

import errno
import logging
import select
import socket
import ssl
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any, NoReturn

from channels.sockets.handshake import HandshakeRefused, raw_socket
from channels.sockets.socket import SEND_BUFFER
from services.errors import StoreUnavailable, StreamUnknown

log = logging.getLogger(__name__)

#: Seconds within which a client must read some of the data sent to it.
SEND_SECONDS = 30.0
#: Bytes sent at a time: less than is free once poll() reports a connection as writable, so that no write blocks.
PIECE_BYTES = 16 * 1024


class ClientConnection:
    """A request's connection. If the server does not expose it, the client counts as connected and reading."""

    def __init__(self, environ: Mapping[str, Any], *, send_seconds: float = SEND_SECONDS) -> None:
        self._send_seconds = send_seconds
        self._sock: socket.socket | None = None
        with suppress(HandshakeRefused):
            self._sock = raw_socket(environ)
        if self._sock:
            # By default the kernel buffers megabytes for a client that does not read.
            with suppress(OSError):
                self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
                self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    @property
    def gone(self) -> bool:
        """Whether the client has closed the connection; always False if this process terminates TLS."""
        if self._sock is None or isinstance(self._sock, ssl.SSLSocket):
            return False
        try:
            return self._is(select.POLLIN, 0.0) and not self._sock.recv(1, socket.MSG_PEEK)
        except OSError:
            return True

    def paced(self, data: bytes) -> Iterator[bytes]:
        """Yield pieces of `data`, each when it can be sent without blocking.

        Raises:
            BrokenPipeError: the client read nothing for `send_seconds`, and the connection was shut down.
        """
        for start in range(0, len(data), PIECE_BYTES):
            if self._sock and not self._is(select.POLLOUT, self._send_seconds):
                self.break_off("the client reads nothing")
            yield data[start : start + PIECE_BYTES]

    def _is(self, what: int, seconds: float) -> bool:
        assert self._sock
        poll = select.poll()
        poll.register(self._sock, what)
        return bool(poll.poll(seconds * 1000))

    def unless_missing(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        """Yield the pieces of a reply that are read from Redis.

        Raises:
            BrokenPipeError: the stream could not be read to its end, and the connection was shut down.
        """
        try:
            yield from pieces
        except (StreamUnknown, StoreUnavailable) as exc:
            log.warning("reply broken off", extra={"cause": str(exc)})
            self.break_off("the answer cannot be read to its end")

    def break_off(self, why: str) -> NoReturn:
        """Shut down the connection at once, and end the reply.

        Raises:
            BrokenPipeError: always; the server treats it as a client that has disconnected.
        """
        if self._sock:
            with suppress(OSError):
                self._sock.shutdown(socket.SHUT_RDWR)
        raise BrokenPipeError(errno.EPIPE, why)
