"""Pooled connections to other services, with TCP keepalive, and with the proxies and CA bundle of the environment.

urllib3 logs addresses with their parameters; `hide_parameters` cuts them off.
"""

from __future__ import annotations

import logging
import os
import queue
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache, partial
from http.client import HTTPResponse
from io import BufferedReader, RawIOBase
from typing import Any, NamedTuple

from requests import Session
from requests.utils import (
    get_auth_from_url,
    prepend_scheme_if_needed,
    select_proxy,
)
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, PoolManager, ProxyManager, make_headers
from urllib3 import exceptions as urllib3_errors
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.util import parse_url

from services.http.certificates import bundle_of
from utils.running_time import running_time

#: TCP keepalive of provider connections: seconds of silence before the first probe, between two, and their number.
PROBES = (10, 5, 2)
#: Seconds a pooled connection may be idle and still be reused: a firewall may drop an idle one without a sign.
IDLE_SECONDS = 30.0
#: Seconds for which a read looks once more for bytes when its timeout is over.
MOMENT = 0.001

#: Guards the timers of all pools.
_timing = threading.Lock()


def keepalive(idle: int, interval: int, count: int) -> list[tuple[int, int, int]]:
    """Return the socket options with which a peer is lost after so many unacknowledged probes.

    So many seconds of unacknowledged bytes end the connection, too: a firewall that dropped it, or a machine that is
    down, sends nothing. Options that this system does not have are left out.
    """
    most = 1000 * (idle + interval * count)
    tcp = {"TCP_KEEPIDLE": idle, "TCP_KEEPINTVL": interval, "TCP_KEEPCNT": count, "TCP_USER_TIMEOUT": most}
    known = [(socket.IPPROTO_TCP, getattr(socket, name), value) for name, value in tcp.items() if hasattr(socket, name)]
    return [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1), *known]


def _options() -> list[tuple[int, int, int]]:
    return [*HTTPConnection.default_socket_options, *keepalive(*PROBES)]


class _Reader(RawIOBase):
    """Reads a socket with its timeout, of which a pause of this process is no part, and looks once more at its end.

    Bytes that came during the pause lie in the kernel, but an event loop that finds them together with a timeout that
    has passed reports the timeout.
    """

    def __init__(self, sock: socket.socket, file: RawIOBase) -> None:
        """Take a socket and its file, which is closed together with this one."""
        self._socket = sock
        self._file = file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        left = self._socket.gettimeout() or 0.0
        ends = running_time() + left
        while True:
            try:
                return self._socket.recv_into(buffer)
            except TimeoutError:
                if left <= 0.0:
                    raise
            left = ends - running_time()
            self._socket.settimeout(max(left, MOMENT))

    def close(self) -> None:
        self._file.close()
        super().close()


class _Response(HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, **options: Any) -> None:
        super().__init__(sock, *args, **options)
        self.fp = BufferedReader(_Reader(sock, self.fp.detach()))


class _Connection(HTTPConnection):
    response_class = _Response
    #: Until when it may be used again, in seconds of the monotonic clock.
    reusable_until = 0.0

    @property
    def is_connected(self) -> bool:
        """Whether the pool may reuse it: it was used lately, and the peer neither closed it nor sent anything.

        Peeking takes 5 µs, urllib3's poll 34 to 43 µs under gevent.
        """
        if self.sock is None or time.monotonic() > self.reusable_until:
            return False
        self.sock.settimeout(0.0)
        try:
            # Not SSLSocket.recv: as with urllib3's poll, any byte in the socket counts, before it is decrypted.
            socket.socket.recv(self.sock, 1, socket.MSG_PEEK)
        except OSError as exc:
            return isinstance(exc, BlockingIOError)
        return False


class _TLSConnection(_Connection, HTTPSConnection):
    pass


class _Pool(HTTPConnectionPool):
    """A pool that keeps a connection for as long as it may be used again, or until the pool is retired."""

    ConnectionCls = _Connection
    retired = False
    _timer: threading.Timer | None = None

    def __init__(self, *args: Any, idle_seconds: float = IDLE_SECONDS, **options: Any) -> None:
        super().__init__(*args, **options)
        self._idle_seconds = idle_seconds

    def retire(self) -> None:
        """Close the idle connections, and from now on each one that is given back.

        Requests that have chosen the pool before still get connections: urllib3's `close` would fail them.
        """
        self.retired = True
        self._reap()

    def _put_conn(self, conn: Any) -> None:
        conn.reusable_until = time.monotonic() + self._idle_seconds
        self._keep(conn)
        # Only now: a pool that is retired meanwhile would keep it.
        if self.retired:
            self._reap()

    def _keep(self, conn: Any) -> None:
        pool: Any = self.pool
        try:
            pool.put_nowait(conn)
        except queue.Full:
            # More requests at once than connections are kept: usual under load, where urllib3 logs a warning for each.
            conn.close()
        with _timing:
            if self._timer is None:
                self._timer = threading.Timer(self._idle_seconds, self._reap)
                self._timer.daemon = True
                self._timer.start()

    def _reap(self) -> None:
        """Close the idle connections that no request may use any more; look again later if others are left."""
        with _timing:
            if self._timer:
                self._timer.cancel()
            self._timer = None
        pool: Any = self.pool
        idle: list[Any] = []
        with suppress(queue.Empty):
            while True:
                idle.append(pool.get_nowait())
        # The latest is put back last, because it is taken first.
        for conn in reversed(idle):
            if conn and conn.is_connected and not self.retired:
                self._keep(conn)
            elif conn:
                conn.close()


class _TLSPool(_Pool, HTTPSConnectionPool):
    ConnectionCls = _TLSConnection


class Lease:
    """One connection taken from its pool. Until it is given back, any thread can shut it down."""

    def __init__(self, pool: HTTPConnectionPool, *, kept: bool = True) -> None:
        """Take a connection; unless it is `kept`, it is closed when it is given back."""
        self._pool = pool
        self._kept = kept
        self.connection: Any = pool._get_conn()
        self._given_back = False
        #: Whether a request may have left on it.
        self.used = False
        #: Whether `expire` was called.
        self.expired = False
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None

    def connect(self, timeout: float) -> socket.socket:
        """Return the connected socket; connecting takes `timeout` seconds at most, a tunnel and TLS included."""
        self.connection.timeout = timeout
        if self.connection.is_closed:
            self._open()
        sock: socket.socket = self.connection.sock
        with self._lock:
            self._socket = sock
        return sock

    def _open(self) -> None:
        """Connect as `urlopen` does, and raise the same errors."""
        try:
            if self._pool.proxy and self._pool.scheme == "https":
                self._pool._prepare_proxy(self.connection)
            else:
                self.connection.connect()
        except (urllib3_errors.HTTPError, OSError) as exc:
            if self._pool.proxy and not self.connection.has_connected_to_proxy:
                raise urllib3_errors.ProxyError("no connection to the proxy", exc) from exc
            if isinstance(exc, ssl.SSLError):
                raise urllib3_errors.SSLError(exc) from exc
            raise

    def interrupt(self) -> None:
        """Shut the socket down, which ends a read that another thread is blocked in; without one do nothing."""
        with self._lock:
            self._shut_down()

    def expire(self) -> None:
        """Interrupt the connection because its request's time is over.

        The socket's own timeout starts anew with each byte, also with those of a head or of a chunk's size.
        """
        self.expired = True
        self.interrupt()

    def _shut_down(self) -> None:
        if self._socket:
            # Not SSLSocket.shutdown: it would first remove the TLS state that the blocked reader uses.
            with suppress(OSError):
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def give_back(self, *, reusable: bool) -> None:
        """Return the connection to its pool, closed unless it is `reusable`; further calls do nothing."""
        if self._given_back:
            return
        self._given_back = True
        # Before another request can get the connection: a late abort must not shut it down.
        with self._lock:
            self._socket = None
        if reusable and self._kept:
            self._pool._put_conn(self.connection)
        else:
            self.connection.close()


class RequestRoute(NamedTuple):
    """How an address is reached."""

    pool: HTTPConnectionPool
    #: The target in the request line: a path, or the full address for a proxy.
    target: str
    #: Headers for the proxy, sent with each request.
    headers: Mapping[str, str]


class Pools:
    """The pools of one client. Each keeps up to `size` connections to one host; safe to use from many threads."""

    def __init__(self, size: int, idle_seconds: float) -> None:
        self._options: dict[str, Any] = {"num_pools": 10, "maxsize": size, "socket_options": _options()}
        kinds = {"http": _Pool, "https": _TLSPool}
        self._kinds: dict[str, Any] = {name: partial(kind, idle_seconds=idle_seconds) for name, kind in kinds.items()}
        self._managers: dict[tuple[str, str], PoolManager] = {}
        #: The route to an address, cached. The cache has a limit because each run has an address of its own.
        self.route = lru_cache(64)(self._find_route)

    def _find_route(self, url: str) -> RequestRoute:
        found = Session().merge_environment_settings(url, {}, None, None, None)
        proxy = select_proxy(url, found["proxies"]) or ""
        verify = found["verify"]
        bundle = bundle_of(verify)
        pool = self._manager(proxy, bundle).connection_from_url(url)
        address = parse_url(url)
        if proxy and address.scheme == "http":
            return RequestRoute(pool, address._replace(auth=None, fragment=None).url, pool.proxy_headers)
        return RequestRoute(pool, address.request_uri, {})

    def exact(self, url: str, target: str) -> RequestRoute:
        """Return the route to an address whose path and query are sent as `target`, not normalized."""
        route = self.route(url)
        # A proxy gets the full address.
        return route if route.target.startswith("http") else route._replace(target=target)

    def pinned(self, url: str, target: str, address: str) -> RequestRoute:
        """Return the route to an https address that connects to the IP `address`, for one request and without a proxy.

        The certificate has to be the one of the host in `url`.
        """
        verify = Session().merge_environment_settings(url, {}, None, None, None)["verify"]
        parts = parse_url(url)
        options: dict[str, Any] = {**_trusting(verify), "socket_options": _options()}
        pool = _TLSPool(address, parts.port, server_hostname=(parts.host or "").strip("[]"), **options)
        return RequestRoute(pool, target, {"Host": parts.netloc or ""})

    def _manager(self, proxy: str, bundle: str) -> PoolManager:
        found = self._managers.get((proxy, bundle))
        if found is None:
            options = {**self._options, **_trusting(bundle)}
            made = _proxied(proxy, options) if proxy else PoolManager(**options)
            made.pool_classes_by_scheme = self._kinds
            # Two threads may make one at the same time; both then use the first.
            found = self._managers.setdefault((proxy, bundle), made)
        return found

    def clear(self) -> None:
        """Close the idle connections. Connections in use are closed when they are given back."""
        managers = list(self._managers.values())
        self._managers.clear()
        self.route.cache_clear()
        for manager in managers:
            for pool in map(manager.pools.get, manager.pools.keys()):
                if isinstance(pool, _Pool):
                    pool.retire()


def _trusting(verify: Any) -> dict[str, str]:
    """Return the pool option that names the trusted certificates: a file or a folder."""
    bundle = bundle_of(verify)
    return {"ca_cert_dir" if os.path.isdir(bundle) else "ca_certs": bundle}


def _proxied(proxy: str, options: dict[str, Any]) -> ProxyManager:
    address: str = prepend_scheme_if_needed(proxy, "http")  # type: ignore[no-untyped-call]
    user, password = get_auth_from_url(address)
    headers = {"Proxy-Authorization": make_headers(basic_auth=f"{user}:{password}")["authorization"]} if user else {}
    return ProxyManager(address, proxy_headers=headers, **options)


def hide_parameters() -> None:
    """Cut the parameters off the address that urllib3 logs of a reply whose headers it cannot read, from now on."""
    logging.getLogger("urllib3.connection").addFilter(_without_parameters)


def _without_parameters(record: logging.LogRecord) -> bool:
    if isinstance(record.args, tuple):
        record.args = tuple(a.partition("?")[0] if isinstance(a, str) else a for a in record.args)
    return True
