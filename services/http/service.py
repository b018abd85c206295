"""HTTP for long answers: pooled connections whose blocked reads a `Deadline` interrupts from any thread.

`requests` alone can do neither: its read timeout starts anew with every byte, and a thread that waits for a silent
server cannot be woken. Here each request knows its socket from before the first byte of the reply, so that its timeout
can be set read by read and another thread can shut it down. What goes wrong leaves here as a `ProviderError`.

`requests` says how an address is reached, once; `urllib3` below it asks there. To have `requests` prepare, send and
wrap each question again took two thirds of a question's way to its provider (350 of 530 microseconds).
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import lru_cache, partial
from typing import Any, NamedTuple

import requests
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase
from urllib3 import BaseHTTPResponse, HTTPConnectionPool, Timeout
from urllib3 import exceptions as urllib3_errors

from services.errors import ProviderError
from services.http.connections import READ_BYTES, Call, TellingAdapter, current
from utils.deadline import Deadline
from utils.formats.retry_after import retry_after

#: A socket's timeout and a deadline never end at the same instant: nearer than this they count as the same, in seconds.
_SAME_INSTANT = 0.05


class TransientError(ProviderError):
    """Failed in a way that the same request may survive a moment later; nothing of an answer was seen."""


class _HeadersAreWhole(AuthBase):
    """Keep requests from looking for credentials in ~/.netrc, which would replace ours."""

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        return request


class _Way(NamedTuple):
    """How an address is reached."""

    pool: HTTPConnectionPool
    #: What the request's first line names: a path, or all of the address where a proxy is asked.
    target: str


class Exchange:
    """A response whose body is read piece by piece."""

    def __init__(self, call: Call, response: BaseHTTPResponse) -> None:
        self._call = call
        # read1 returns what is there: read() and iter_lines() wait for a full block of a close-delimited body.
        self._read1 = call.chunks(response) or partial(response.read1, READ_BYTES, decode_content=True)
        self.status = response.status
        self.headers: Mapping[str, str] = response.headers
        #: Whether the body ended before its length or its last chunk: the connection broke.
        self.broken = False

    @property
    def retry_after(self) -> float:
        """How long the service asks to be left alone, in seconds, ten minutes at most; 0.0 where it does not ask."""
        headers = self.headers
        return retry_after(headers.get("Retry-After"), now=time.time(), date=headers.get("Date"))

    def read(self, patience: float) -> bytes:
        """Return what has arrived, waiting up to `patience` seconds for the first byte of it; b"" at the end.

        A connection that broke ends like one that was closed: only the format's own end mark tells the two apart.
        """
        call, deadline = self._call, self._call.deadline
        try:
            call.patience(min(patience, _left(deadline)))
            chunk = self._read1()
        except (urllib3_errors.ProtocolError, urllib3_errors.DecodeError):
            self.broken = True
            chunk = b""
        except (urllib3_errors.HTTPError, OSError, ValueError) as exc:
            # As foreign_errors does; a context manager for each delta would cost more than all else here.
            raise _translated(TimeoutError() if call.late else exc, deadline) from (
                None if deadline.aborted else _safe_cause(exc)
            )
        call.read()
        if deadline.aborted:
            raise aborted_error(deadline)
        if call.late:
            raise _our_error(TimeoutError(), deadline)
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
    """Pooled connections, safe to use from many threads."""

    def __init__(self, *, pool_size: int = 100, connect_timeout: float = 5.0) -> None:
        self._connect_timeout = connect_timeout
        self._session = requests.Session()
        self._session.auth = _HeadersAreWhole()
        self._headers = {str(name): str(value) for name, value in self._session.headers.items()}
        adapter = TellingAdapter(pool_connections=10, pool_maxsize=pool_size, max_retries=0)
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, adapter)
        #: The way to an address, found once; the addresses of runs come and go.
        self._way = lru_cache(64)(self._find_way)

    @contextmanager
    def exchange(
        self,
        method: str,
        url: str,
        *,
        deadline: Deadline,
        patience: float,
        headers: Mapping[str, str],
        json: Any = None,
        params: Mapping[str, Any] | None = None,
    ) -> Iterator[Exchange]:
        """Send a request and give its response to the block, whatever its status; it is closed after the block.

        `patience` is how long the reply's first byte may take, in seconds; redirects are not followed. `json` is the
        body, None for none.

        Raises:
            TransientError: no connection came about.
            ProviderError: any other failure before the reply's headers were there.
        """
        call = Call(deadline)
        try:
            with deadline.interrupting(call.interrupt):
                with foreign_errors(deadline):
                    response = self._send(call, method, url, patience, headers, json, params)
                try:
                    yield Exchange(call, response)
                finally:
                    # What was read to its end is in the pool already.
                    response.close()
                    response.release_conn()
        except ProviderError as exc:
            if exc.code == "provider_timeout":
                # What silenced this connection may have silenced those in the pool: nobody else shall wait for them.
                self.close()
            raise
        finally:
            call.detach()

    def _send(
        self,
        call: Call,
        method: str,
        url: str,
        patience: float,
        headers: Mapping[str, str],
        body: Any,
        params: Mapping[str, Any] | None,
    ) -> BaseHTTPResponse:
        left = _left(call.deadline)
        way = self._way(url, tuple(params.items()) if params else ())
        sent, kind = (None, {}) if body is None else (_json(body), {"Content-Type": "application/json"})
        current.call = call
        try:
            return way.pool.urlopen(
                method,
                way.target,
                sent,
                _merged(self._headers, kind, headers),
                retries=False,
                redirect=False,
                assert_same_host=False,
                timeout=Timeout(connect=min(self._connect_timeout, left), read=min(patience, left)),
                preload_content=False,
                decode_content=False,
            )
        finally:
            current.call = None

    def _find_way(self, url: str, params: tuple[tuple[str, Any], ...]) -> _Way:
        """Have requests say how an address is reached: by which proxy of the environment, with which CA bundle."""
        request = self._session.prepare_request(requests.Request("GET", url, params=list(params)))
        address = request.url or ""
        found = self._session.merge_environment_settings(address, {}, None, None, None)
        adapter = self._session.get_adapter(address)
        assert isinstance(adapter, HTTPAdapter)
        pool = adapter.get_connection_with_tls_context(request, found["verify"], found["proxies"], found["cert"])
        assert isinstance(pool, HTTPConnectionPool)
        adapter.cert_verify(pool, address, found["verify"], found["cert"])  # type: ignore[no-untyped-call]
        return _Way(pool, adapter.request_url(request, found["proxies"]))

    def close(self) -> None:
        """Give the pooled connections back: they close when nobody holds their pool any more."""
        self._session.close()
        self._way.cache_clear()


def _merged(*parts: Mapping[str, str]) -> dict[str, str]:
    """Return each header once, as it was named and set last; case makes no difference."""
    return dict({name.lower(): (name, value) for part in parts for name, value in part.items()}.values())


def _json(value: Any) -> bytes:
    return json.dumps(value, allow_nan=False).encode()


def _left(deadline: Deadline) -> float:
    left = deadline.remaining()
    if left <= 0.0:
        raise aborted_error(deadline) if deadline.aborted else TimeoutError()
    return left


def aborted_error(deadline: Deadline) -> ProviderError:
    """Return the error of work that somebody ended from outside."""
    return ProviderError(f"aborted: {deadline.aborted}", code="interrupted")


@contextmanager
def foreign_errors(deadline: Deadline) -> Iterator[None]:
    """Turn what requests, urllib3 and the socket raise into our errors, without addresses or content."""
    try:
        yield
    except (urllib3_errors.HTTPError, OSError, ValueError) as exc:
        raise _translated(exc, deadline) from (None if deadline.aborted else _safe_cause(exc))


def _translated(exc: Exception, deadline: Deadline) -> ProviderError:
    return aborted_error(deadline) if deadline.aborted else _our_error(exc, deadline)


_NOT_CONNECTED = (urllib3_errors.ConnectTimeoutError, urllib3_errors.NewConnectionError)
_NO_REPLY = (urllib3_errors.ProtocolError, urllib3_errors.ProxyError, urllib3_errors.SSLError, OSError)


def _our_error(exc: Exception, deadline: Deadline) -> ProviderError:
    if isinstance(exc, _NOT_CONNECTED):
        return TransientError("no connection", code="provider_unreachable")
    if isinstance(exc, (urllib3_errors.TimeoutError, TimeoutError)):
        if deadline.remaining() < _SAME_INSTANT:
            return ProviderError("the total time is over", code="answer_timeout")
        return ProviderError("silent for too long", code="provider_timeout")
    if isinstance(exc, _NO_REPLY) and not isinstance(exc, (ValueError, requests.RequestException)):
        return ProviderError("the connection failed before the reply", code="provider_unreachable")
    return ProviderError(f"the request cannot be sent: {type(exc).__name__}", code="provider_error")


def _safe_cause(exc: Exception) -> Exception | None:
    # A refused header value is quoted in the exception's text, and ours is a key.
    return None if isinstance(exc, ValueError) else exc
