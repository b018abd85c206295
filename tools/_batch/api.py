"""The REST addresses of batches as a client sees them: answers, refusals in words, and what may be tried again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any, TypeVar
from urllib.parse import urlsplit

import requests
from requests.exceptions import ChunkedEncodingError, ConnectionError, ContentDecodingError, SSLError, Timeout

#: Seconds to connect, and for one answer: a workbook of many rows takes the server its time.
TIMEOUT = (5.0, 90.0)
#: Seconds between two tries: the first, and the longest.
PAUSE, PAUSE_MOST = 0.5, 15.0
#: Bytes of a download that are read at once.
PIECE = 64 * 1024
#: Statuses that another moment may change; the gateways' among them.
LATER = (429, 502, 503, 504)
#: Why an answer of such a status is final all the same: there are no batches here.
FINAL = ("batch_unavailable",)

T = TypeVar("T")
Data = dict[str, Any]


class Failed(Exception):
    """It did not work, for a reason in words."""


class Locked(Failed):
    """The key is missing or wrong."""


class Away(Failed):
    """Nobody can answer now; `after` is the seconds that the server asks for."""

    def __init__(self, words: str, after: float = 0.0) -> None:
        super().__init__(words)
        self.after = after


class Api:
    """The batches at an address. Each call raises `Locked`, `Away`, or `Failed` where trying again will not help."""

    def __init__(self, url: str, key: str = "") -> None:
        self._url = url.rstrip("/")
        self._host = urlsplit(url).netloc
        self._key = key
        self._session = requests.Session()
        # Else requests would take a machine's .netrc for what to authenticate with.
        self._session.auth = self._sign

    def close(self) -> None:
        self._session.close()

    def ask(self, method: str, path: str, **more: Any) -> Data:
        """Return what the answer tells; `more` is what `requests` takes: params, json, headers, data and files."""
        reply = self._call(method, path, **more)
        with suppress(ValueError, KeyError, TypeError):
            data = reply.json()["data"]
            if isinstance(data, dict):
                return data
        raise Failed(f"{self._host} does not answer as this product does: is --url right?")

    def download(self, path: str, **params: str) -> Iterator[bytes]:
        """Yield a file piece by piece; it may break off with `Away`."""
        with closing(self._call("GET", path, params=params, stream=True)) as reply, self._reach():
            yield from reply.iter_content(PIECE)

    def _sign(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._key:
            request.headers["Authorization"] = f"Bearer {self._key}"
        return request

    def _call(self, method: str, path: str, **more: Any) -> requests.Response:
        url = f"{self._url}/api/batch{path}"
        with self._reach():
            reply = self._session.request(method, url, timeout=TIMEOUT, allow_redirects=False, **more)
        if reply.status_code < 300:
            return reply
        with closing(reply):
            raise _refusal(reply)

    @contextmanager
    def _reach(self) -> Iterator[None]:
        """Turn what goes wrong on the way into our words."""
        try:
            yield
        except SSLError as exc:
            raise Failed(f"no safe connection to {self._host}: {exc}") from exc
        except Timeout as exc:
            raise Away(f"{self._host} does not answer") from exc
        except (ChunkedEncodingError, ContentDecodingError) as exc:
            raise Away(f"the connection to {self._host} broke off") from exc
        except ConnectionError as exc:
            raise Away(f"cannot connect to {self._host}") from exc
        except (requests.RequestException, ValueError) as exc:
            raise Failed(f"cannot ask {self._host}: {exc}") from exc


def _refusal(reply: requests.Response) -> Failed:
    if reply.is_redirect:
        return Failed(f"the address has moved to {reply.headers['Location']}: give that as --url")
    told: Any = None
    # A gateway's refusal is a page, and of a broken connection there may be only the status.
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


def patiently(
    call: Callable[[], T],
    seconds: float,
    say: Callable[[str], object],
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], object] = time.sleep,
) -> T:
    """Return what `call` does in the end: an outage is tried again, later each time, for so many seconds.

    `say` gets a line when an outage begins, and one when it is over.

    Raises:
        Failed: it lasts longer, or trying again will not help.
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
