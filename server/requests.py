"""Handle bad requests that gunicorn does not: bodies that arrive too slowly, and malformed HTTP."""

from __future__ import annotations

import errno
import json
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http import HTTPStatus
from typing import Any

import gevent
from gunicorn.http import errors

from server.connection_slots import Reason
from utils.limited_log import LimitedLog

log = logging.getLogger(__name__)
refused = LimitedLog(log, "request refused")

#: Seconds that every body may take, and the rate in bytes per second that extends this for longer bodies: after that
#: time it has to be faster.
BODY_SECONDS = 30.0
BODY_RATE = 512 * 1024
#: Bytes that are read at a time.
PIECE_BYTES = 64 * 1024

#: Timeout in seconds for sending an error reply.
ANSWER_SECONDS = 1.0
#: Value of `Retry-After` in seconds for a client that got no slot.
RETRY_SECONDS = 5

_NO_SLOT: dict[Reason, int] = {"address": 429, "full": 503}
#: HTTP status → code of the REST error table, where it is not 400 or 500.
_CODES = {403: 403, 429: 20000, 503: 503}

#: Parser errors whose status is not 400.
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
    """The client sends its body more slowly than `BODY_SECONDS` and `BODY_RATE` allow."""

    def __init__(self) -> None:
        # With the errno of a lost client, gunicorn closes the connection without a traceback.
        super().__init__(errno.EPIPE, "the body does not come")


class BodyBroken(OSError):
    """The client's body is malformed: for example a chunk without a size, or a forbidden trailer."""

    def __init__(self) -> None:
        super().__init__(errno.EPIPE, "the body is malformed")


class BoundedBody:
    """A request's body with a time limit: `BODY_SECONDS`, plus a second for each `BODY_RATE` bytes received."""

    def __init__(
        self,
        body: Any,
        *,
        seconds: float = BODY_SECONDS,
        rate: float = BODY_RATE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._body = body
        self._clock = clock
        self._seconds = seconds
        self._rate = rate
        self._spent = 0.0
        self._received = 0
        #: gunicorn's reader; it may already hold bytes after the request, such as the first frames of a WebSocket.
        self.reader = getattr(body, "reader", None)

    @property
    def failed(self) -> bool:
        """Whether reading the body failed, so that the start of the connection's next request is unknown."""
        return getattr(self._body, "failed", False)

    def read(self, size: int | None = None) -> bytes:
        """Return `size` bytes, fewer at the end of the body; None or a negative size reads all.

        Raises:
            BodyTooSlow: the body does not arrive in time.
            BodyBroken: the body is malformed; this is counted and logged.
        """
        pieces, left = [], float("inf") if size is None or size < 0 else size
        while left > 0 and (piece := self._timed(self._body.read, min(left, PIECE_BYTES))):
            pieces.append(piece)
            left -= len(piece)
            if self._received >= PIECE_BYTES:
                # Serve other requests too while a large body arrives quickly.
                gevent.sleep(0)
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
        began = self._clock()
        try:
            if left <= 0.0:
                raise BodyTooSlow
            with gevent.Timeout(left, BodyTooSlow()):
                piece: bytes = read(None if size is None else int(size))
        except BodyTooSlow:
            count("slow")
            raise
        except errors.ParseException as exc:
            note_malformed(exc)
            raise BodyBroken from exc
        # Only the time spent reading counts, not the application's time between two reads.
        self._spent += self._clock() - began
        self._received += len(piece)
        return piece


def refuse(client: Any, error: Exception) -> None:
    """Reply to an unreadable request, or to one whose handler failed, with a REST error.

    Neither the reply nor the log contains the parser's message, because it may quote the request and a key in it.
    """
    status = status_of(error)
    if status == 500:
        log.error("request failed", exc_info=error)
    else:
        note_malformed(error)
    answer(client, status)


def turn_away(client: Any, reason: Reason) -> None:
    """Reply 429 or 503 to a request that got no slot."""
    status = _NO_SLOT[reason]
    count(reason)
    refused.warning({"cause": reason, "status": status})
    answer(client, status, retry_after=RETRY_SECONDS)


def answer(client: Any, status: int, *, retry_after: int = 0) -> None:
    """Send a complete reply that closes the connection; give up after `ANSWER_SECONDS`."""
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
    """Count and log a malformed request."""
    count("malformed")
    refused.warning({"cause": type(error).__name__, "status": status_of(error)})


def count(reason: str) -> None:
    """Count a connection that is closed because of its client's behaviour or a limit."""
    # Imported late: prometheus_client reads the metrics folder from the environment at import, and gunicorn.conf.py
    # sets it after this module is loaded.
    from services import metrics

    metrics.CONNECTIONS_REFUSED.labels(reason).inc()


def status_of(error: Exception) -> int:
    """Return the HTTP status of the reply to an error: 4xx for errors of gunicorn's parser, 500 for all others."""
    known = next((status for kind, status in _STATUS.items() if isinstance(error, kind)), None)
    return known or (400 if isinstance(error, errors.ParseException) else 500)
