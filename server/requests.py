"""What gunicorn leaves open about requests: a body that never comes to its end, and what is no HTTP at all."""

from __future__ import annotations

import errno
import json
import logging
import time
from collections.abc import Iterator
from contextlib import suppress
from http import HTTPStatus
from typing import Any

import gevent
from gunicorn.http import errors

from server.connection_slots import Reason
from utils.limited_log import LimitedLog

log = logging.getLogger(__name__)
refused = LimitedLog(log, "request refused")

#: Seconds any body may take, and bytes a second that a longer one must bring.
BODY_SECONDS = 20.0
BODY_RATE = 16 * 1024

#: Seconds a client has to take an error's answer.
ANSWER_SECONDS = 1.0
#: Seconds after which a client without a slot may come back.
RETRY_SECONDS = 5

_NO_SLOT: dict[Reason, int] = {"address": 429, "full": 503}
#: Codes of the table of REST, where they are not 400 or 500.
_CODES = {403: 403, 429: 20000, 503: 503}

#: Errors of the parser that are more than a bad request.
_STATUS: dict[type[Exception], int] = {
    errors.LimitRequestLine: 414,
    errors.LimitRequestHeaders: 431,
    errors.ExpectationFailed: 417,
    errors.UnsupportedTransferCoding: 501,
    errors.ForbiddenProxyRequest: 403,
    errors.ConfigurationProblem: 500,
    errors.InvalidResponseHeader: 500,
    errors.InvalidResponseHeaderName: 500,
}


class BodyTooSlow(OSError):
    """The client sends its body too slowly to be waited for."""

    def __init__(self) -> None:
        # gunicorn ends a connection without a traceback for an errno of a lost client.
        super().__init__(errno.EPIPE, "the body does not come")


class BodyBroken(OSError):
    """The client's body is not what its headers say: a chunk without a size, a trailer that is not allowed."""

    def __init__(self) -> None:
        super().__init__(errno.EPIPE, "the body is malformed")


class BoundedBody:
    """A request's body that must come in time: `BODY_SECONDS`, and a second more for each `BODY_RATE` bytes."""

    def __init__(self, body: Any, *, seconds: float = BODY_SECONDS, rate: float = BODY_RATE) -> None:
        self._body = body
        self._seconds = seconds
        self._rate = rate
        self._spent = 0.0
        self._received = 0
        #: gunicorn's own, which may have read beyond the request: a socket's first frames.
        self.reader = getattr(body, "reader", None)

    @property
    def failed(self) -> bool:
        """Whether it could not be read to its end: nobody knows where the connection's next request begins."""
        return getattr(self._body, "failed", False)

    def read(self, size: int | None = None) -> bytes:
        """Return so many bytes, or all; fewer at the end.

        Raises:
            BodyTooSlow: they do not come in time.
            BodyBroken: they are no body; that is counted and logged.
        """
        pieces, left = [], float("inf") if size is None or size < 0 else size
        while left > 0 and (piece := self._timed(self._body.read, min(left, BODY_RATE))):
            pieces.append(piece)
            left -= len(piece)
        return b"".join(pieces)

    def readline(self, size: int | None = None) -> bytes:
        return self._timed(self._body.readline, size)

    def readlines(self, size: int | None = None) -> list[bytes]:
        return list(self)

    def __iter__(self) -> Iterator[bytes]:
        while line := self.readline():
            yield line

    def _timed(self, read: Any, size: float | None) -> bytes:
        left = self._seconds + self._received / self._rate - self._spent
        began = time.monotonic()
        try:
            with gevent.Timeout(max(0.001, left), BodyTooSlow()):
                piece: bytes = read(None if size is None else int(size))
        except errors.ParseException as exc:
            note_malformed(exc)
            raise BodyBroken from exc
        # The application's own time between two reads is not the client's.
        self._spent += time.monotonic() - began
        self._received += len(piece)
        return piece


def refuse(client: Any, error: Exception) -> None:
    """Answer a request that could not be read, or whose answer failed, in the one shape of REST.

    The parser's words are in neither the answer nor the log: they may quote the request, a key included.
    """
    status = status_of(error)
    if status == 500:
        log.error("request failed", exc_info=error)
    else:
        note_malformed(error)
    answer(client, status)


def turn_away(client: Any, reason: Reason) -> None:
    """Answer a request that there is no slot for."""
    status = _NO_SLOT[reason]
    count(reason)
    refused.warning({"cause": reason, "status": status})
    answer(client, status, retry_after=RETRY_SECONDS)


def answer(client: Any, status: int, *, retry_after: int = 0) -> None:
    """Send a whole reply that ends the connection, to a client that takes it at once."""
    phrase = HTTPStatus(status).phrase
    body = json.dumps({"code": _CODES.get(status, 400 if status < 500 else 500), "message": phrase, "data": None})
    later = f"Retry-After: {retry_after}\r\n" if retry_after else ""
    head = (
        f"HTTP/1.1 {status} {phrase}\r\nConnection: close\r\n{later}"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with suppress(OSError), gevent.Timeout(ANSWER_SECONDS, False):
        client.sendall((head + body).encode())


def note_malformed(error: Exception) -> None:
    """Count and log what is no request of HTTP."""
    count("malformed")
    refused.warning({"cause": type(error).__name__, "status": status_of(error)})


def count(reason: str) -> None:
    """Count a connection that is closed for what its client does."""
    # Not before gunicorn.conf.py has named the folder of metrics: prometheus_client looks for it when it is imported.
    from services import metrics

    metrics.CONNECTIONS_REFUSED.labels(reason).inc()


def status_of(error: Exception) -> int:
    """Return the HTTP status that an error of gunicorn's parser, or any other, is answered with."""
    known = next((status for kind, status in _STATUS.items() if isinstance(error, kind)), None)
    return known or (400 if isinstance(error, errors.ParseException) else 500)
