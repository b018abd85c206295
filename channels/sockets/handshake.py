"""The opening of a WebSocket inside a WSGI request, and the request's silent end when the socket is over."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast

from flask import Response
from websockets.datastructures import Headers
from websockets.http11 import Request
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from services.errors import LaibaoError

# At DEBUG the library would log what people write, at INFO every connection.
PROTOCOL_LOG = logging.getLogger("channels.sockets.socket.protocol")
PROTOCOL_LOG.setLevel(logging.WARNING)

#: Where servers put the connection that a request came by.
_PLACES = ("gunicorn.socket", "werkzeug.socket")

_HEADERS = ("Connection", "Upgrade", "Sec-WebSocket-Key", "Sec-WebSocket-Version", "Sec-WebSocket-Protocol")


class HandshakeRefused(LaibaoError):
    """A request that is no proper WebSocket handshake; `status` is what to answer, and nothing was written yet."""

    code = "handshake_refused"
    status = 400

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class SocketOver(Response):
    """Ends a request whose connection was a WebSocket: the server closes it, and writes and logs nothing."""

    def __init__(self) -> None:
        super().__init__(status=101)

    def __call__(self, environ: Mapping[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        # What each server takes for a client that left: gunicorn's workers end their loop over a connection's requests
        # by StopIteration, werkzeug drops a connection on ConnectionError.
        raise StopIteration if "gunicorn.socket" in environ else ConnectionAbortedError


def raw_socket(environ: Mapping[str, Any]) -> socket.socket:
    """Return the connection of a request.

    Raises:
        HandshakeRefused: the server does not give it away (501).
    """
    for place in _PLACES:
        if place in environ:
            return cast(socket.socket, environ[place])
    raise HandshakeRefused("the server shows no socket", 501)


def over_read(environ: Mapping[str, Any]) -> bytes:
    """Return what gunicorn read beyond the request: a client should wait for the handshake's answer, some do not."""
    reader = getattr(environ.get("wsgi.input"), "reader", None)
    take = getattr(getattr(reader, "unreader", None), "take_buffered", bytes)
    return bytes(take())


def answer_handshake(environ: Mapping[str, Any], subprotocol: str = "") -> bytes:
    """Return the 101 response to a request; `subprotocol` is selected when the client offers it.

    Raises:
        HandshakeRefused: the request is no WebSocket handshake (426), or a wrong one (400, 405, 505).
    """

    def select(protocol: ServerProtocol, offered: Sequence[Subprotocol]) -> Subprotocol | None:
        return Subprotocol(subprotocol) if subprotocol in offered else None

    response = ServerProtocol(select_subprotocol=select, logger=PROTOCOL_LOG).accept(_request(environ))
    if response.status_code != 101:
        raise HandshakeRefused(response.body.decode().strip(), response.status_code)
    return response.serialize()


def _request(environ: Mapping[str, Any]) -> Request:
    names = {name: "HTTP_" + name.upper().replace("-", "_") for name in _HEADERS}
    headers = Headers({name: environ[key] for name, key in names.items() if key in environ})
    return Request("/", headers, environ["REQUEST_METHOD"], environ["SERVER_PROTOCOL"])
