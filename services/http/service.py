"""An HTTP client for long answers: pooled connections whose blocked reads a `Deadline` interrupts from any thread.

Each request knows its socket before the first byte of the reply, so that another thread can shut it down. Every
failure is raised as a `ProviderError`.

Requests are sent on connections of urllib3's pools directly, because `urlopen` does not say which connection it uses.
"""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from datetime import UTC
from email.utils import parsedate_to_datetime
from http.client import HTTPException
from io import BytesIO
from typing import Any, TypeVar
from urllib.parse import urlencode

from requests.utils import default_headers
from urllib3 import HTTPResponse
from urllib3 import exceptions as urllib3_errors

from services.errors import ProviderError
from services.http.addresses import Target
from services.http.certificates import is_untrusted, tls_failure
from services.http.connections import IDLE_SECONDS, Lease, Pools, RequestRoute
from utils.deadline import Deadline

T = TypeVar("T")

#: Seconds: a request that fails this close to the deadline, or after it, has reached the deadline.
_SAME_INSTANT = 0.05
#: The most bytes of one read; a read returns as soon as there is one byte.
READ_BYTES = 65536
_DEFAULT_HEADERS = dict(default_headers())
#: Longest wait of a Retry-After in seconds; longer ones are cut to it.
LONGEST = 600.0
_SECONDS = re.compile(r"[0-9]+(\.[0-9]+)?")


class TransientError(ProviderError):
    """A failure before any part of an answer was seen; the same request may succeed a moment later."""


class CertificateRefused(ProviderError):
    """The other party's certificate is not trusted. A repetition has the same result."""


class HTTPReply:
    """A response whose body is read piece by piece."""

    def __init__(self, response: HTTPResponse, deadline: Deadline, lease: Lease, sock: socket.socket) -> None:
        self._response = response
        self._deadline = deadline
        self._lease = lease
        self._socket = sock
        self.status = response.status
        self.headers: Mapping[str, str] = response.headers
        # urllib3's buffer of decoded bytes costs a piece of an answer two microseconds, also where nothing is encoded.
        self._encoded = "Content-Encoding" in response.headers
        #: Whether the body ended before its length or its last chunk: the connection broke.
        self.broken = False
        self._failed = False

    @property
    def retry_after(self) -> float:
        """The service's Retry-After: seconds to wait before the next request, 600.0 at most; 0.0 without one."""
        headers = self.headers
        return retry_after(headers.get("Retry-After"), now=time.time(), date=headers.get("Date"))

    def read(self, timeout: float) -> bytes:
        """Return the bytes that have arrived, waiting up to `timeout` seconds for the first of them; b"" at the end.

        A broken connection ends the body too: only the end mark of the body's own format shows whether it is complete.

        Raises:
            ProviderError: `provider_timeout`, `answer_timeout` when the deadline has passed, `interrupted` after an
                abort.
        """
        deadline = self._deadline
        try:
            self._socket.settimeout(min(timeout, _left(deadline)))
            # Not read(): of a body that ends with its connection, it waits for a full block.
            chunk = self._response.read1(READ_BYTES, decode_content=self._encoded)
        except _FOREIGN as exc:
            chunk = self._end_of_failed(exc)
        except BaseException:
            # urllib3 closes the response on KeyboardInterrupt too: it would count as read to its end.
            self._failed = True
            raise
        if deadline.aborted or self._lease.expired:
            self._failed = True
            raise _translated(TimeoutError(), deadline)
        if not chunk:
            self._lease.give_back(reusable=self.ended)
        return chunk

    def _end_of_failed(self, exc: Exception) -> bytes:
        """Return b"" if the connection broke or timed out.

        Raises:
            ProviderError: the read failed otherwise.
        """
        self._failed = True
        if not isinstance(exc, TimeoutError) and isinstance(exc, _BROKEN):
            self.broken = True
            return b""
        raise _translated(exc, self._deadline) from (None if self._deadline.aborted else _safe_cause(exc))

    @property
    def ended(self) -> bool:
        """Whether the body was read to its end: False for one that broke off, or has more."""
        return self._response.closed and not self._failed

    def read_all(self, *, limit: int, timeout: float) -> bytes:
        """Return the body, or as much of it as arrives within `limit` bytes and `timeout` seconds."""
        body = b""
        ends = time.monotonic() + timeout
        with suppress(ProviderError):
            while len(body) < limit and (chunk := self.read(max(0.001, ends - time.monotonic()))):
                body += chunk
        return body[:limit]

    def close(self) -> None:
        """Give the connection back; one with an unread rest of the body is closed."""
        reusable = self.ended
        self._response.close()
        self._lease.give_back(reusable=reusable)


class HTTPService:
    """Pooled connections, safe to use from many threads."""

    def __init__(
        self,
        *,
        pool_size: int = 100,
        connect_timeout: float = 5.0,
        keeps_connections: bool = True,
        idle_seconds: float = IDLE_SECONDS,
    ) -> None:
        """Make a client; without `keeps_connections` each request has a connection of its own.

        A connection that was idle for `idle_seconds` is not used again, and closed at most as many seconds later.

        When a kept connection breaks as a request is sent, it is unknown whether the request was received.
        """
        self._keeps_connections = keeps_connections
        self._ends = {} if keeps_connections else {"Connection": "close"}
        self._connect_timeout = connect_timeout
        self._pools = Pools(pool_size, idle_seconds)

    @contextmanager
    def exchange(
        self,
        method: str,
        url: str,
        *,
        deadline: Deadline,
        timeout: float,
        headers: Mapping[str, str],
        json: Any = None,
        params: Mapping[str, Any] | None = None,
        body: tuple[str, bytes] | None = None,
        route: RequestRoute | None = None,
    ) -> Iterator[HTTPReply]:
        """Send a request and give its response to the block, of any status; it is closed after the block.

        The reply's head may take `timeout` seconds. `json` is the body, or `body` is its content type and its bytes;
        with neither none is sent. Redirects are not followed. `route` is how `url` is reached, where the caller chose.

        Raises:
            TransientError: no connection could be made.
            ProviderError: any other failure before the reply's head was read.
        """
        with foreign_errors(deadline):
            _left(deadline)
            if route is None:
                route = self._pools.route(f"{url}{'&' if '?' in url else '?'}{urlencode(params)}" if params else url)
            sent, typed = _sent(("application/json", _json(json)) if json is not None else body)
            merged = _merged(_DEFAULT_HEADERS, typed, headers, route.headers, self._ends)
            lease = Lease(route.pool, kept=self._keeps_connections)
        try:
            with deadline.interrupting(lease.interrupt), deadline.ending(lease.expire):
                with foreign_errors(deadline):
                    exchange = self._ask(lease, deadline, timeout, method, route.target, sent, merged)
                with closing(exchange):
                    yield exchange
        except ProviderError as exc:
            exc.unsent = not lease.used
            if exc.code == "provider_timeout":
                # The same fault may have silenced the connections in the pool: later requests must not wait for them.
                self.close()
            raise
        finally:
            lease.give_back(reusable=False)

    def reach(self, target: Target, send: Callable[[RequestRoute], T]) -> T:
        """Return the result of `send` for the first of the target's checked addresses that can be reached.

        A target without addresses is reached by its name. An error of `send` after a byte has left is raised at once.
        """
        pinned = [self._pools.pinned(target.url, target.path, address) for address in target.addresses]
        *others, last = pinned or [self._pools.exact(target.url, target.path)]
        for route in others:
            try:
                return send(route)
            except ProviderError as exc:
                if not exc.unsent:
                    raise
        return send(last)

    def _ask(self, lease: Lease, deadline: Deadline, timeout: float, *request: Any) -> HTTPReply:
        """Send a request, and return its reply as soon as the head has been read."""
        sock = lease.connect(min(self._connect_timeout, _left(deadline)))
        # An abort shuts the socket down from here on, but not while it was being connected: check for that one.
        _left(deadline)
        connection = lease.connection
        lease.used = True
        connection.request(*request, preload_content=False, decode_content=False)
        connection.timeout = min(timeout, _left(deadline))
        return HTTPReply(connection.getresponse(), deadline, lease, sock)

    def close(self) -> None:
        """Close the pooled connections. Connections in use are closed when their exchanges end."""
        self._pools.clear()


def _merged(*parts: Mapping[str, str]) -> dict[str, str]:
    """Return each header once, with the last name and value given; names are compared without regard to case."""
    return dict({name.lower(): (name, value) for part in parts for name, value in part.items()}.values())


def _sent(body: tuple[str, bytes] | None) -> tuple[Any, dict[str, str]]:
    """Return what is sent as the body, and its headers."""
    if body is None:
        return None, {}
    kind, content = body
    if len(content) <= READ_BYTES:
        return content, {"Content-Type": kind}
    # Sent in pieces: the socket's timeout is for each call, however much it sends.
    return BytesIO(content), {"Content-Type": kind, "Content-Length": str(len(content))}


def _json(value: Any) -> bytes:
    return json.dumps(value, allow_nan=False).encode()


def _left(deadline: Deadline) -> float:
    left = deadline.remaining()
    if left <= 0.0:
        raise aborted_error(deadline) if deadline.aborted else TimeoutError()
    return left


def aborted_error(deadline: Deadline) -> ProviderError:
    """Return the error of work that another thread aborted."""
    return ProviderError(f"aborted: {deadline.aborted}", code="interrupted")


def check_deadline(deadline: Deadline) -> None:
    """Raise `interrupted` if the deadline was aborted, `answer_timeout` if it has passed."""
    if deadline.aborted:
        raise aborted_error(deadline)
    if deadline.over:
        raise ProviderError("the total time is over", code="answer_timeout")


@contextmanager
def foreign_errors(deadline: Deadline) -> Iterator[None]:
    """Turn exceptions of urllib3, http.client and sockets into our errors, without addresses or content."""
    try:
        yield
    except _FOREIGN as exc:
        raise _translated(exc, deadline) from (None if deadline.aborted else _safe_cause(exc))


def _translated(exc: Exception, deadline: Deadline) -> ProviderError:
    return aborted_error(deadline) if deadline.aborted else _our_error(exc, deadline)


_FOREIGN = (urllib3_errors.HTTPError, HTTPException, OSError, ValueError)
#: How a body ends that broke off.
_BROKEN = (urllib3_errors.ProtocolError, urllib3_errors.DecodeError, OSError)
_NOT_CONNECTED = (urllib3_errors.ConnectTimeoutError, urllib3_errors.NewConnectionError)
_NO_REPLY = (urllib3_errors.ProtocolError, urllib3_errors.ProxyError, urllib3_errors.SSLError, HTTPException, OSError)


def _our_error(exc: Exception, deadline: Deadline) -> ProviderError:
    if isinstance(exc, _NOT_CONNECTED):
        return TransientError("no connection", code="provider_unreachable")
    if deadline.remaining() < _SAME_INSTANT:
        return ProviderError("the total time is over", code="answer_timeout")
    if isinstance(exc, (urllib3_errors.TimeoutError, TimeoutError)):
        return ProviderError("silent for too long", code="provider_timeout")
    if is_untrusted(exc):
        return CertificateRefused(tls_failure(exc), code="provider_untrusted")
    if isinstance(exc, _NO_REPLY) and not isinstance(exc, ValueError):
        words = tls_failure(exc) or "the connection failed before the reply"
        return ProviderError(words, code="provider_unreachable")
    return ProviderError(f"the request cannot be sent: {type(exc).__name__}", code="provider_error")


def _safe_cause(exc: Exception) -> Exception | None:
    # The text of the exception quotes a refused header value, which may be an API key.
    return None if isinstance(exc, ValueError) else exc


def retry_after(value: str | None, *, now: float, date: str | None = None) -> float:
    """Return the seconds to wait, at most `LONGEST`; 0.0 if the header is missing or invalid.

    `now` is the time in seconds since 1970. `date` is the reply's Date header: if it is valid, a date in Retry-After is
    measured against it, so that the difference between the two machines' clocks does not matter.
    """
    text = (value or "").strip()
    if _SECONDS.fullmatch(text):
        # Python refuses to parse very long integers, so only the first digits are used.
        return min(LONGEST, float(text[:32]))
    until, since = _moment(text), _moment(date or "")
    if until is None:
        return 0.0
    return min(LONGEST, max(0.0, until - (now if since is None else since)))


def seconds_ahead(date: str, *, clock: Callable[[], float] = time.time) -> float | None:
    """Return by how many seconds an HTTP `Date` header is ahead of the clock; None if it is missing or invalid."""
    moment = _moment(date)
    return None if moment is None else moment - clock()


def _moment(date: str) -> float | None:
    """Return an HTTP date as seconds since 1970; None if it is invalid."""
    try:
        moment = parsedate_to_datetime(date.strip())
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
