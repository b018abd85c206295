"""The connection under a request whose answer takes its time: is its client still there, and does it read?"""

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

#: Seconds in which a client must have read some of what lies ready for it.
SEND_SECONDS = 30.0
#: Bytes sent at a time: less than is free when a connection can be written to at all, so that no write ever blocks.
PIECE_BYTES = 16 * 1024


class ClientConnection:
    """A request's connection; where the server does not show it, its client counts as there and reading."""

    def __init__(self, environ: Mapping[str, Any], *, send_seconds: float = SEND_SECONDS) -> None:
        self._send_seconds = send_seconds
        self._sock: socket.socket | None = None
        with suppress(HandshakeRefused):
            self._sock = raw_socket(environ)
        if self._sock:
            # Left alone, what the kernel keeps for a client that does not read grows to megabytes.
            with suppress(OSError):
                self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
                self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    @property
    def gone(self) -> bool:
        """Whether the client has closed the connection; never known of TLS that ends in this process."""
        if self._sock is None or isinstance(self._sock, ssl.SSLSocket):
            return False
        try:
            return self._is(select.POLLIN, 0.0) and not self._sock.recv(1, socket.MSG_PEEK)
        except OSError:
            return True

    def paced(self, data: bytes) -> Iterator[bytes]:
        """Yield pieces of `data`, each when it can be sent; a client that reads nothing for too long is cut off.

        Raises:
            BrokenPipeError: it was.
        """
        for place in range(0, len(data), PIECE_BYTES):
            if self._sock and not self._is(select.POLLOUT, self._send_seconds):
                self.break_off("the client reads nothing")
            yield data[place : place + PIECE_BYTES]

    def _is(self, what: int, seconds: float) -> bool:
        assert self._sock
        poll = select.poll()
        poll.register(self._sock, what)
        return bool(poll.poll(seconds * 1000))

    def unless_missing(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        """Yield the pieces of a reply; where the stream they are read from is gone or away, the reply breaks off.

        Raises:
            BrokenPipeError: it does.
        """
        try:
            yield from pieces
        except (StreamUnknown, StoreUnavailable) as exc:
            log.warning("reply broken off", extra={"cause": str(exc)})
            self.break_off("the answer cannot be read to its end")

    def break_off(self, why: str) -> NoReturn:
        """End the connection, so that not even an end is waited for, and the reply with it.

        Raises:
            BrokenPipeError: always; the server takes it for a client that has gone.
        """
        if self._sock:
            with suppress(OSError):
                self._sock.shutdown(socket.SHUT_RDWR)
        raise BrokenPipeError(errno.EPIPE, why)
