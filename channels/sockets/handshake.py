"""Opens a WebSocket inside a WSGI request, and ends that request without a response when the socket is closed."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from flask import Response
from websockets.datastructures import Headers
from websockets.http11 import Request
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from channels.web.rest import connection_of
from config.errors import LaibaoError
from utils.tracing import current_trace

# The library logs message contents at DEBUG and every connection at INFO.
PROTOCOL_LOG = logging.getLogger("channels.sockets.socket.protocol")
PROTOCOL_LOG.setLevel(logging.WARNING)

_HEADERS = ("Connection", "Upgrade", "Sec-WebSocket-Key", "Sec-WebSocket-Version", "Sec-WebSocket-Protocol")


class HandshakeRefused(LaibaoError):
    """The request is not a valid WebSocket handshake. Nothing was written; reply with `status`."""

    code = "handshake_refused"
    status = 400

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class SocketOver(Response):
    """Ends a request whose connection was a WebSocket: the server closes it without writing or logging anything."""

    def __init__(self) -> None:
        super().__init__(status=101)

    def __call__(self, environ: Mapping[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        # These exceptions mean "the client left": StopIteration ends the loop of gunicorn's workers over a
        # connection's requests, and werkzeug drops a connection on ConnectionError.
        raise StopIteration if "gunicorn.socket" in environ else ConnectionAbortedError


def raw_socket(environ: Mapping[str, Any]) -> socket.socket:
    """Return the connection of a request.

    Raises:
        HandshakeRefused: the server does not expose it (501).
    """
    if sock := connection_of(environ):
        return sock
    raise HandshakeRefused("the server shows no socket", 501)


def over_read(environ: Mapping[str, Any]) -> bytes:
    """Return the bytes gunicorn read beyond the request: some clients send frames before the handshake's response."""
    reader = getattr(environ.get("wsgi.input"), "reader", None)
    take = getattr(getattr(reader, "unreader", None), "take_buffered", bytes)
    return bytes(take())


def answer_handshake(environ: Mapping[str, Any], subprotocol: str = "") -> bytes:
    """Return the 101 response to a request; `subprotocol` is selected when the client offers it.

    Raises:
        HandshakeRefused: the request is not a WebSocket handshake (426) or an invalid one (400, 405, 505).
    """

    def select(protocol: ServerProtocol, offered: Sequence[Subprotocol]) -> Subprotocol | None:
        return Subprotocol(subprotocol) if subprotocol in offered else None

    response = ServerProtocol(select_subprotocol=select, logger=PROTOCOL_LOG).accept(_request(environ))
    if response.status_code != 101:
        raise HandshakeRefused(response.body.decode().strip(), response.status_code)
    response.headers.update(current_trace().headers)
    return response.serialize()


def _request(environ: Mapping[str, Any]) -> Request:
    names = {name: "HTTP_" + name.upper().replace("-", "_") for name in _HEADERS}
    headers = Headers({name: environ[key] for name, key in names.items() if key in environ})
    return Request("/", headers, environ["REQUEST_METHOD"], environ["SERVER_PROTOCOL"])
