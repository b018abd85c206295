"""A client of the REST APIs: replies, errors in words, and which errors may be retried."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any, TypeVar
from urllib.parse import urlsplit

import requests
from requests.exceptions import (
    ChunkedEncodingError,
    ConnectionError,
    ConnectTimeout,
    ContentDecodingError,
    SSLError,
    Timeout,
)

from services.http.certificates import tls_failure
from tools._command import NO_KEY, NOT_THERE, OTHER_KEY

#: Seconds to connect, and to wait for a reply: the server may need long to read a large workbook.
TIMEOUT = (5.0, 90.0)
#: Seconds between two attempts: the first pause, and the longest.
PAUSE, PAUSE_MOST = 0.5, 15.0
#: Bytes of a download per read.
PIECE = 64 * 1024
#: HTTP statuses that may be retried, those of gateways included.
LATER = (429, 502, 503, 504)
#: Reasons that make such a status final: the server has no batches.
FINAL = ("batch_unavailable",)

T = TypeVar("T")
Data = dict[str, Any]


class Failed(Exception):
    """A call failed; the message says why."""


class Locked(Failed):
    """The key is missing or wrong."""


class Away(Failed):
    """The server cannot answer now. `after` is its `Retry-After` in seconds, 0 without one."""

    def __init__(self, words: str, after: float = 0.0) -> None:
        super().__init__(words)
        self.after = after


class Api:
    """The REST API of a server below `root`. Each call may raise `Locked`, `Away`, or `Failed` if no retry can help."""

    def __init__(self, url: str, key: str = "", *, root: str = "/api/batch") -> None:
        self._root = url.rstrip("/") + root
        self._host = urlsplit(url).netloc
        self._key = key
        #: Whether the service ever answered; until then no outage is assumed.
        self._answered = False
        self._session = requests.Session()
        # Otherwise requests would authenticate with the machine's .netrc.
        self._session.auth = self._sign

    def close(self) -> None:
        self._session.close()

    def ask(self, method: str, path: str, **more: Any) -> Data:
        """Return the `data` of the reply. `more` is passed to `requests`: params, json, headers, data, files."""
        reply = self._call(method, path, **more)
        with suppress(ValueError, KeyError, TypeError):
            data = reply.json()["data"]
            if isinstance(data, dict):
                return data
        raise Failed(f"{self._host} does not answer as this product does: is --url right?")

    def download(self, path: str, **params: str) -> Iterator[bytes]:
        """Yield a file in pieces. May raise `Away` between two pieces."""
        with closing(self._call("GET", path, params=params, stream=True)) as reply, self._reach():
            yield from reply.iter_content(PIECE)

    def _sign(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._key:
            request.headers["Authorization"] = f"Bearer {self._key}"
        return request

    def _call(self, method: str, path: str, **more: Any) -> requests.Response:
        with self._reach():
            reply = self._session.request(method, f"{self._root}{path}", timeout=TIMEOUT, allow_redirects=False, **more)
        self._answered = True
        if reply.status_code < 300:
            return reply
        with closing(reply):
            error = _error(reply)
            if isinstance(error, Locked):
                raise Locked(f"{error}; {OTHER_KEY if self._key else NO_KEY}")
            raise error

    @contextmanager
    def _reach(self) -> Iterator[None]:
        """Turn errors of `requests` into `Away` and `Failed`."""
        try:
            yield
        except SSLError as exc:
            raise Failed(f"no safe connection to {self._host}: {tls_failure(exc) or exc}") from exc
        except ConnectTimeout as exc:
            raise self._absent(f"{self._host} does not answer") from exc
        except Timeout as exc:
            raise Away(f"{self._host} does not answer") from exc
        except (ChunkedEncodingError, ContentDecodingError) as exc:
            raise Away(f"the connection to {self._host} broke off") from exc
        except ConnectionError as exc:
            raise self._absent(f"cannot connect to {self._host}") from exc
        except (requests.RequestException, ValueError) as exc:
            raise Failed(f"cannot ask {self._host}: {exc}") from exc

    def _absent(self, words: str) -> Failed:
        """Return the error of a connection that could not be made: an outage only if the service has answered."""
        if self._answered:
            return Away(words)
        return Failed(f"{words}: {NOT_THERE}")


def _error(reply: requests.Response) -> Failed:
    if reply.is_redirect:
        return Failed(f"the address has moved to {reply.headers['Location']}: give that as --url")
    told: Any = None
    # A gateway's error is an HTML page, and after a broken connection there may be no body.
    with suppress(ValueError, requests.RequestException):
        told = reply.json()
    told = told if isinstance(told, dict) else {}
    data = told["data"] if isinstance(told.get("data"), dict) else {}
    words = f"{told.get('message') or reply.reason} (HTTP {reply.status_code}){_wrong_fields(data.get('errors'))}"
    if reply.status_code == 401:
        return Locked(words)
    if reply.status_code in LATER and data.get("reason") not in FINAL:
        after = reply.headers.get("Retry-After", "")
        return Away(words, float(after) if after.isdecimal() else 0.0)
    return Failed(words)


def _wrong_fields(errors: Any) -> str:
    found = [one for one in errors if isinstance(one, dict)] if isinstance(errors, list) else []
    return "".join(f"; {one.get('field')}: {one.get('problem')}" for one in found[:3])


def retried(
    call: Callable[[], T],
    seconds: float,
    say: Callable[[str], object],
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], object] = time.sleep,
) -> T:
    """Return the result of `call`. During an outage retry it for up to `seconds`, with growing pauses.

    `say` gets a line when an outage begins, and one when it ends.

    Raises:
        Failed: the outage lasts longer, or a retry cannot help.
    """
    pause, end = PAUSE, 0.0
    while True:
        try:
            answer = call()
        except Away as away:
            if not end:
                end = clock() + seconds
                say(f"{away}; trying again for up to {seconds:g} s")
            wait = max(pause, min(away.after, PAUSE_MOST))
            if clock() + wait > end:
                raise Failed(f"{away}, and did not for {seconds:g} s") from away
            sleep(wait)
            pause = min(PAUSE_MOST, 2 * pause)
        else:
            if end:
                say("connected again")
            return answer
