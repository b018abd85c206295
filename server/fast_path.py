"""The fast path for WeCom callbacks: gunicorn's C parser reads the request, and one send writes the reply.

gunicorn's request, environ and response objects cost 150 of the 320 µs of CPU time that a poll takes; the fast path
does the same work in 25 µs. Requests that are not clearly one complete callback are served by gunicorn as usual.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from email.utils import formatdate
from http import HTTPStatus
from typing import Any, Protocol

import gevent
from gunicorn.http.errors import NoMoreData
from gunicorn.http.parser import RequestParser
from gunicorn.util import close

from server.connection_slots import ConnectionSlots

try:
    from gunicorn_h1c import parse_request_fast  # type: ignore[import-untyped]
except ImportError:
    parse_request_fast = None

#: Set to False to serve callbacks through gunicorn's own request handling, for instance after an update of gunicorn
#: that this module does not fit.
ENABLED = True

#: Largest request in bytes that the fast path accepts; it must arrive in a single read.
MOST = 16 * 1024

#: Takes path, query and body of a callback; returns status, content type and body, or None for any other path.
AnswerCallback = Callable[[str, str, bytes], tuple[int, str, bytes] | None]


class FastPath:
    """Turns the bytes of a complete callback request into the bytes of its reply."""

    def __init__(self, answer: AnswerCallback, prefix: str, *, clock: Callable[[], float] = time.time) -> None:
        """`answer` handles a callback; `prefix` is the beginning of every callback's path."""
        self._answer = answer
        self._begins = f"POST {prefix}".encode()
        self._clock = clock
        self._second = -1
        self._head = ""

    @staticmethod
    def possible() -> bool:
        """Return whether the fast path is enabled and gunicorn's C parser is installed."""
        return ENABLED and parse_request_fast is not None

    def takes(self, request: bytes) -> bool:
        """Return whether a request has the method and path prefix of a callback."""
        return request.startswith(self._begins)

    def reply(self, request: bytes) -> bytes | None:
        """Return the reply to a complete callback request; None if gunicorn must serve the request."""
        if not self.takes(request):
            return None
        try:
            parsed = parse_request_fast(request)
        except Exception:
            # Incomplete or malformed: gunicorn reads the rest or replies with the error.
            return None
        # The parser returns -1 for a header that is missing.
        plain = parsed.minor_version == 1 and not parsed.has_chunked and parsed.connection_close < 1
        complete = parsed.content_length >= 0 and len(request) == parsed.consumed + parsed.content_length
        head = request[: parsed.consumed]
        folded = b"\n " in head or b"\n\t" in head
        if not (plain and complete) or folded or parsed.get_header(b"Expect") or parsed.get_header(b"Upgrade"):
            return None
        path, _, query = parsed.path.partition(b"?")
        if b"%" in path or b"#" in parsed.path or not parsed.path.isascii():
            return None
        answer = self._answer(path.decode(), query.decode(), request[parsed.consumed :])
        return None if answer is None else self._written(*answer)

    def _written(self, status: int, kind: str, body: bytes) -> bytes:
        now = int(self._clock())
        if now != self._second:
            self._second, self._head = now, f"Server: gunicorn\r\nDate: {formatdate(now, usegmt=True)}\r\n"
        head = (
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n{self._head}Connection: keep-alive\r\n"
            f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return b"".join((head.encode(), body))


#: Error numbers of a connection that the client has closed.
_GONE = (errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN)


class Serving(Protocol):
    """The attributes of the worker that a connection uses; `keeps`: connections stay open after a reply."""

    cfg: Any
    log: Any
    keeps: bool
    alive: bool

    def timeout_ctx(self) -> gevent.Timeout: ...
    def handle_request(self, listener_name: Any, req: Any, sock: Any, addr: Any) -> None: ...
    def handle_error(self, req: Any, client: Any, addr: Any, exc: Exception) -> None: ...


class FastConnection:
    """Answers callbacks on the fast path and passes all other requests to the worker."""

    def __init__(self, worker: Serving, fast_path: FastPath, slots: ConnectionSlots, client: Any, addr: Any) -> None:
        self._worker = worker
        self._fast_path = fast_path
        self._slots = slots
        self._client = client
        self._addr = addr
        self._parser = RequestParser(worker.cfg, client, addr)

    def serve(self, listener_name: Any) -> None:
        """Answer the connection's requests in order until there are no more, then close it."""
        worker, client, request = self._worker, self._client, None
        try:
            while request := self._next():
                worker.handle_request(listener_name, request, client, self._addr)
        except (NoMoreData, StopIteration):
            pass
        except OSError as exc:
            if exc.errno not in _GONE:
                worker.log.exception("Socket error processing request.")
        except Exception as exc:
            worker.handle_error(request, client, self._addr, exc)
        finally:
            close(client)

    def _next(self) -> Any:
        """Answer callbacks until another request arrives, and return that; None if the client sends no more.

        Raises:
            StopIteration: gunicorn's parser accepts no further request on this connection.
        """
        worker, parser, client = self._worker, self._parser, self._client
        if parser.mesg and (parser.mesg.should_close() or not self._finished()):
            return None
        while True:
            data = parser.unreader.take_buffered()
            with worker.timeout_ctx():
                data = data or client.recv(MOST)
            if not data:
                return None
            # While the worker drains, replies must say "Connection: close"; only gunicorn's own do.
            if not (worker.keeps and self._answered(data)):
                return self._parsed(data)
            # The worker has already closed its idle connections. This one would become idle after that, so nothing
            # else would close it. New connections are still answered until the listener is closed.
            if not worker.alive:
                return None

    def _parsed(self, data: bytes) -> Any:
        """Return the request that begins with `data`; None if its headers are not complete within the timeout."""
        self._parser.unreader.unread(data)
        with self._worker.timeout_ctx():
            return next(self._parser)
        return None

    def _answered(self, data: bytes) -> bool:
        """Answer `data` if it is one complete callback; return whether it was."""
        if not self._fast_path.takes(data):
            return False
        self._slots.exempt(self._client)
        reply = self._fast_path.reply(data)
        if reply is not None:
            self._client.sendall(reply)
        self._slots.wait(self._client)
        return reply is not None

    def _finished(self) -> bool:
        """Read the rest of the last request's body; return whether it ended within the timeout."""
        with self._worker.timeout_ctx():
            return bool(self._parser.finish_body())
        return False
