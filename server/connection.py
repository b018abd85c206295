"""Serve one connection of a worker that has the callbacks' fast path, request by request."""

from __future__ import annotations

import errno
from typing import Any, Protocol

import gevent
from gunicorn.http.errors import NoMoreData
from gunicorn.http.parser import RequestParser
from gunicorn.util import close

from server.connection_slots import ConnectionSlots
from server.lane import MOST, CallbackLane

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


class LanedConnection:
    """Answers callbacks on the fast path and passes all other requests to the worker."""

    def __init__(self, worker: Serving, lane: CallbackLane, slots: ConnectionSlots, client: Any, addr: Any) -> None:
        self._worker = worker
        self._lane = lane
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
        if not self._lane.takes(data):
            return False
        self._slots.exempt(self._client)
        reply = self._lane.reply(data)
        if reply is not None:
            self._client.sendall(reply)
        self._slots.wait(self._client)
        return reply is not None

    def _finished(self) -> bool:
        """Read the rest of the last request's body; return whether it ended within the timeout."""
        with self._worker.timeout_ctx():
            return bool(self._parser.finish_body())
        return False
