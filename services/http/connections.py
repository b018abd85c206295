"""Connections to other services: watched, pooled, and each known to the request that waits on it.

A peer that vanishes without a word is noticed, a connection that may be forgotten is not asked on, and a `Call` knows
its socket from before the first byte of the reply.
"""

from __future__ import annotations

import math
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from http.client import HTTPResponse as HTTPReply
from types import MappingProxyType
from typing import Any

from requests.adapters import HTTPAdapter
from urllib3 import BaseHTTPResponse, HTTPConnectionPool, HTTPSConnectionPool, PoolManager
from urllib3 import exceptions as urllib3_errors
from urllib3.connection import HTTPConnection, HTTPSConnection

from services.http.body import BrokenBody, ChunkedBody
from services.http.patience import LONG, watch
from utils.deadline import Deadline

#: One read takes at most this many bytes; it returns as soon as there is one.
READ_BYTES = 65536
#: Seconds a peer may leave bytes or probes of ours unacknowledged before its connection counts as broken: a firewall
#: that forgot it, or a machine that is gone, says nothing at all.
PEER_TIMEOUT = 20.0
#: Seconds a pooled connection may lie idle: what is between us and the peer may have forgotten it, and says nothing.
IDLE_SECONDS = 30.0


def _watched_socket() -> list[tuple[int, int, int]]:
    """Return the options of a socket whose silent peer is probed; what this system does not know is left out."""
    tcp = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 2, "TCP_USER_TIMEOUT": int(1000 * PEER_TIMEOUT)}
    known = [(socket.IPPROTO_TCP, getattr(socket, name), value) for name, value in tcp.items() if hasattr(socket, name)]
    return [*HTTPConnection.default_socket_options, (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1), *known]


class _Pool(HTTPConnectionPool):
    """Connections that lay idle for long are made anew; one that comes back is its call's no longer."""

    def _put_conn(self, conn: Any) -> None:
        if conn:
            conn.idle_since = time.monotonic()
            if call := getattr(conn, "call", None):
                # Before anybody else may have it: what ends the call would end theirs.
                call.detach()
                conn.call = None
        super()._put_conn(conn)

    def _get_conn(self, timeout: float | None = None) -> Any:
        conn = super()._get_conn(timeout)
        if time.monotonic() - getattr(conn, "idle_since", math.inf) > IDLE_SECONDS:
            conn.close()
        return conn


class _TLSPool(_Pool, HTTPSConnectionPool):
    pass


class WatchedAdapter(HTTPAdapter):
    """Notices peers that vanish without a word, and does not ask on a connection that may be forgotten."""

    pools: Mapping[str, type[HTTPConnectionPool]] = MappingProxyType({"http": _Pool, "https": _TLSPool})

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs, socket_options=_watched_socket())
        self._use_our_pools(self.poolmanager)

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **kwargs, socket_options=_watched_socket())
        self._use_our_pools(manager)
        return manager

    def _use_our_pools(self, manager: PoolManager) -> None:
        manager.pool_classes_by_scheme = dict(self.pools)


#: Of each thread, the `call` that is on its way.
current = threading.local()


class Call:
    """One request on its way: the deadline it obeys and, once it waits for the reply, its socket."""

    def __init__(self, deadline: Deadline) -> None:
        self.deadline = deadline
        #: Whether a read was ended because it had waited for too long.
        self.late = False
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        #: When the present read is over, by the monotonic clock: for those that `watch` looks at.
        self._ends = math.inf
        self._watched = False

    def attach(self, sock: socket.socket) -> None:
        """Take the socket the reply will come on; one that was aborted meanwhile is shut down at once."""
        with self._lock:
            self._socket = sock
        if self.deadline.aborted:
            self.interrupt()

    def detach(self) -> None:
        """Let go of the socket, as its pool has it done before another request may get it."""
        with self._lock:
            self._socket = None
        self._unwatch()

    def interrupt(self) -> None:
        """Shut the socket down, which ends a read that another thread is blocked in."""
        with self._lock:
            self._shut_down()

    def _shut_down(self) -> None:
        if self._socket is not None:
            # Not SSLSocket.shutdown: it would first take the TLS state away under the reader's feet.
            with suppress(OSError):
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def patience(self, seconds: float) -> None:
        """Let the next read of the socket wait this long; for the thread that reads, which alone lets go of it."""
        if self._socket is None:
            return
        if seconds < LONG:
            self._unwatch()
            self._socket.settimeout(seconds)
            return
        self._ends = time.monotonic() + seconds
        if not self._watched:
            self._watched = True
            self._socket.settimeout(None)
            watch.add(self)

    def read(self) -> None:
        """Take in that the read is over: what its reader does with it takes as long as it takes."""
        self._ends = math.inf

    def give_up(self, now: float) -> None:
        """End a read that has waited for too long, for `watch`."""
        if now < self._ends:
            return
        with self._lock:
            # It may be over since: then the socket is whole, and perhaps another's.
            if now >= self._ends and self._socket is not None:
                self.late = True
                self._shut_down()

    def _unwatch(self) -> None:
        self._ends = math.inf
        if self._watched:
            self._watched = False
            watch.discard(self)

    def chunks(self, response: BaseHTTPResponse) -> Callable[[], bytes] | None:
        """Return what reads a reply's chunks past the layers above the socket; None where it has none, or in a code."""
        reply: HTTPReply | None = getattr(response, "_original_response", None)
        if self._socket is None or reply is None or not reply.chunked or "content-encoding" in response.headers:
            return None
        return _Chunks(self._socket, response, reply).read1


class _Chunks:
    """Reads a reply's chunks; its connection goes back to the pool with the last one."""

    def __init__(self, sock: socket.socket, response: BaseHTTPResponse, reply: HTTPReply) -> None:
        self._response = response
        #: What came along with the head lies in its buffer: one read of that gives all of it, or asks the socket.
        self._reply = reply
        self._body = ChunkedBody()
        self._first = True
        self._recv = sock.recv

    def read1(self) -> bytes:
        try:
            while not self._body.over:
                if self._first:
                    self._first = False
                    wire = self._reply.fp.read1(READ_BYTES)
                else:
                    wire = self._recv(READ_BYTES)
                if not wire:
                    self._body.end()
                elif held := self._body.feed(wire):
                    return held
        except TimeoutError:
            raise
        except (OSError, BrokenBody) as exc:
            raise urllib3_errors.ProtocolError("connection broken") from exc
        self._reply.close()
        self._response.release_conn()
        return b""


class _TellsItsSocket(HTTPConnection):
    """Sends a request in one piece and tells its call the socket on which the reply will come."""

    #: Whose reply comes on it.
    call: Call | None = None
    _held: list[Any] | None = None

    @property
    def is_connected(self) -> bool:
        """Whether the peer has neither hung up nor said what nobody asked for: a peek costs less than a poll."""
        if self.sock is None:
            return False
        self.sock.settimeout(0.0)
        try:
            # Not SSLSocket.recv: as with urllib3's poll, what counts is what lies in the socket.
            socket.socket.recv(self.sock, 1, socket.MSG_PEEK)
        except OSError as exc:
            return isinstance(exc, BlockingIOError)
        return False

    def request(self, *args: Any, **options: Any) -> None:
        """Send head and body together: each by itself is a system call, and a packet."""
        held = self._held = []
        try:
            super().request(*args, **options)
        finally:
            self._held = None
        super().send(b"".join(held))

    def send(self, data: Any) -> None:
        if self._held is None:
            super().send(data)
        else:
            self._held.append(data)

    def getresponse(self) -> Any:
        self.call = getattr(current, "call", None)
        if self.call is not None:
            self.call.attach(self.sock)
        return super().getresponse()


class _TellsItsTLSSocket(_TellsItsSocket, HTTPSConnection):
    pass


class _TellingPool(_Pool):
    ConnectionCls = _TellsItsSocket


class _TellingTLSPool(_TLSPool):
    ConnectionCls = _TellsItsTLSSocket


class TellingAdapter(WatchedAdapter):
    pools = MappingProxyType({"http": _TellingPool, "https": _TellingTLSPool})
