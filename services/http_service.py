"""HTTP for long answers: one pooled session whose blocked reads a `Deadline` interrupts from any thread.

`requests` alone can do neither: its read timeout starts anew with every byte, and a thread that waits for a silent
server cannot be woken. Here each request knows its socket from before the first byte of the reply, so that its timeout
can be set read by read and another thread can shut it down. What goes wrong leaves here as a `ProviderError`.
"""

from __future__ import annotations

import math
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from http.cookiejar import DefaultCookiePolicy
from types import MappingProxyType
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, PoolManager
from urllib3 import exceptions as urllib3_errors
from urllib3.connection import HTTPConnection, HTTPSConnection

from services.errors import ProviderError
from utils.deadline import Deadline

#: One read takes at most this many bytes; it returns as soon as there is one.
READ_BYTES = 65536
#: A socket's timeout and a deadline never end at the same instant: nearer than this they count as the same, in seconds.
_SAME_INSTANT = 0.05
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
    """Connections that lay idle for long are made anew."""

    def _put_conn(self, conn: Any) -> None:
        if conn:
            conn.idle_since = time.monotonic()
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


_current = threading.local()


class TransientError(ProviderError):
    """Failed in a way that the same request may survive a moment later; nothing of an answer was seen."""


class Call:
    """One request on its way: the deadline it obeys and, once it waits for the reply, its socket."""

    def __init__(self, deadline: Deadline) -> None:
        self.deadline = deadline
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None

    def attach(self, sock: socket.socket) -> None:
        """Take the socket the reply will come on; one that was aborted meanwhile is shut down at once."""
        with self._lock:
            self._socket = sock
        if self.deadline.aborted:
            self.interrupt()

    def detach(self) -> None:
        """Let go of the socket before another request may get it from the pool."""
        with self._lock:
            self._socket = None

    def interrupt(self) -> None:
        """Shut the socket down, which ends a read that another thread is blocked in."""
        with self._lock:
            if self._socket is not None:
                # Not SSLSocket.shutdown: it would first take the TLS state away under the reader's feet.
                with suppress(OSError):
                    socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def patience(self, seconds: float) -> None:
        """Let the next read of the socket wait this long."""
        with self._lock:
            if self._socket is not None:
                self._socket.settimeout(seconds)


class _TellsItsSocket(HTTPConnection):
    def getresponse(self) -> Any:
        call: Call | None = getattr(_current, "call", None)
        if call is not None:
            call.attach(self.sock)
        return super().getresponse()


class _TellsItsTLSSocket(_TellsItsSocket, HTTPSConnection):
    pass


class _TellingPool(_Pool):
    ConnectionCls = _TellsItsSocket


class _TellingTLSPool(_TLSPool):
    ConnectionCls = _TellsItsTLSSocket


class _Adapter(WatchedAdapter):
    pools = MappingProxyType({"http": _TellingPool, "https": _TellingTLSPool})


class _HeadersAreWhole(AuthBase):
    """Keep requests from looking for credentials in ~/.netrc, which would replace ours."""

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        return request


class Exchange:
    """A response whose body is read piece by piece."""

    def __init__(self, call: Call, response: requests.Response) -> None:
        self._call = call
        self._response = response
        self.status = response.status_code
        #: Whether the body ended before its length or its last chunk: the connection broke.
        self.broken = False

    def read(self, patience: float) -> bytes:
        """Return what has arrived, waiting up to `patience` seconds for the first byte of it; b"" at the end.

        A connection that broke ends like one that was closed: only the format's own end mark tells the two apart.
        """
        deadline = self._call.deadline
        with foreign_errors(deadline):
            self._call.patience(min(patience, _left(deadline)))
            try:
                # read1 returns what is there: read() and iter_lines() wait for a full block of a close-delimited body.
                chunk: bytes = self._response.raw.read1(READ_BYTES, decode_content=True)
            except (urllib3_errors.ProtocolError, urllib3_errors.DecodeError):
                self.broken = True
                chunk = b""
            if deadline.aborted:
                raise aborted_error(deadline)
            if not chunk:
                self._call.detach()
            return chunk

    def read_all(self, *, limit: int, patience: float) -> bytes:
        """Return the body, or as much of it as comes before `limit` bytes or the end of patience."""
        body = b""
        ends = time.monotonic() + patience
        with suppress(ProviderError):
            while len(body) < limit and (chunk := self.read(max(0.001, ends - time.monotonic()))):
                body += chunk
        return body[:limit]


class HTTPService:
    """One pooled session, safe to use from many threads."""

    def __init__(self, *, pool_size: int = 100, connect_timeout: float = 5.0) -> None:
        self._connect_timeout = connect_timeout
        self._session = requests.Session()
        self._session.auth = _HeadersAreWhole()
        # One session serves all users: a cookie of one must not travel with the next.
        self._session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        adapter = _Adapter(pool_connections=10, pool_maxsize=pool_size, max_retries=0)
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, adapter)

    @contextmanager
    def exchange(
        self, method: str, url: str, *, deadline: Deadline, patience: float, headers: Mapping[str, str], **options: Any
    ) -> Iterator[Exchange]:
        """Send a request and give its response to the block, whatever its status; it is closed after the block.

        `patience` is how long the reply's first byte may take, in seconds; redirects are not followed.

        Raises:
            TransientError: no connection came about.
            ProviderError: any other failure before the reply's headers were there.
        """
        call = Call(deadline)
        try:
            with deadline.interrupting(call.interrupt):
                response = self._send(call, method, url, patience=patience, headers=headers, **options)
                with closing(response):
                    yield Exchange(call, response)
        except ProviderError as exc:
            if exc.code == "provider_timeout":
                # What silenced this connection may have silenced those in the pool: nobody else shall wait for them.
                self._session.close()
            raise
        finally:
            call.detach()

    def _send(self, call: Call, method: str, url: str, *, patience: float, **options: Any) -> requests.Response:
        with foreign_errors(call.deadline):
            left = _left(call.deadline)
            options |= {"timeout": (min(self._connect_timeout, left), min(patience, left))}
            _current.call = call
            try:
                return self._session.request(method, url, stream=True, allow_redirects=False, **options)
            finally:
                _current.call = None

    def close(self) -> None:
        """Give the pooled connections back."""
        self._session.close()


def _left(deadline: Deadline) -> float:
    if deadline.aborted:
        raise aborted_error(deadline)
    if deadline.over:
        raise TimeoutError
    return deadline.remaining()


def aborted_error(deadline: Deadline) -> ProviderError:
    """Return the error of work that somebody ended from outside."""
    return ProviderError(f"aborted: {deadline.aborted}", code="interrupted")


@contextmanager
def foreign_errors(deadline: Deadline) -> Iterator[None]:
    """Turn what requests, urllib3 and the socket raise into our errors, without addresses or content."""
    try:
        yield
    except (requests.RequestException, urllib3_errors.HTTPError, OSError) as exc:
        if deadline.aborted:
            raise aborted_error(deadline) from None
        raise _our_error(exc, deadline) from _safe_cause(exc)


def _our_error(exc: Exception, deadline: Deadline) -> ProviderError:
    if isinstance(exc, requests.ConnectTimeout) or _never_connected(exc):
        return TransientError("no connection", code="provider_unreachable")
    if isinstance(exc, (requests.Timeout, urllib3_errors.TimeoutError, TimeoutError)):
        if deadline.remaining() < _SAME_INSTANT:
            return ProviderError("the total time is over", code="answer_timeout")
        return ProviderError("silent for too long", code="provider_timeout")
    if isinstance(exc, (requests.ConnectionError, OSError)) and not isinstance(exc, ValueError):
        return ProviderError("the connection failed before the reply", code="provider_unreachable")
    return ProviderError(f"the request cannot be sent: {type(exc).__name__}", code="provider_error")


def _never_connected(exc: Exception) -> bool:
    cause = exc.args[0] if exc.args else None
    reason = getattr(cause, "reason", None)
    return isinstance(reason, (urllib3_errors.NewConnectionError, urllib3_errors.ConnectTimeoutError))


def _safe_cause(exc: Exception) -> Exception | None:
    # A refused header value is quoted in the exception's text, and ours is a key.
    return None if isinstance(exc, requests.exceptions.InvalidHeader) else exc
