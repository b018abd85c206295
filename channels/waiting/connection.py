"""The client's connection of a long request: detects a client that has disconnected, and breaks off a reply.

A reply's pieces are made one by one, each after the server has sent the one before it. `server/sockets.py` disconnects
a client that reads nothing.
"""

from __future__ import annotations

import errno
import logging
import select
import socket
import ssl
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any, NoReturn

from channels.web.rest import connection_of
from services.errors import StoreUnavailable, StreamUnknown

log = logging.getLogger(__name__)


class ClientConnection:
    """A request's connection. If the server does not expose it, the client counts as connected."""

    def __init__(self, environ: Mapping[str, Any]) -> None:
        self._sock = connection_of(environ)

    @property
    def gone(self) -> bool:
        """Whether the client has closed the connection; always False if this process terminates TLS."""
        if self._sock is None or isinstance(self._sock, ssl.SSLSocket):
            return False
        poll = select.poll()
        try:
            poll.register(self._sock, select.POLLIN)
            return bool(poll.poll(0)) and not self._sock.recv(1, socket.MSG_PEEK)
        except OSError:
            return True

    def unless_missing(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        """Yield the pieces of a reply that are read from Redis.

        Raises:
            BrokenPipeError: the stream could not be read to its end, and the connection was shut down.
        """
        try:
            yield from pieces
        except (StreamUnknown, StoreUnavailable) as exc:
            log.warning("reply broken off", extra={"cause": str(exc)})
            self._break_off("the answer cannot be read to its end")

    def _break_off(self, why: str) -> NoReturn:
        """Shut down the connection at once; the server handles the error as that of a client that has disconnected."""
        if self._sock:
            with suppress(OSError):
                self._sock.shutdown(socket.SHUT_RDWR)
        raise BrokenPipeError(errno.EPIPE, why)
