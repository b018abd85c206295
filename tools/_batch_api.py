"""The REST addresses of batches as a client sees them: answers, refusals in words, and what may be tried again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from typing import Any, TypeVar
from urllib.parse import urlsplit

import requests
from requests.exceptions import ChunkedEncodingError, ConnectionError, ContentDecodingError, SSLError, Timeout

#: Seconds to connect, and for one answer: a workbook of many rows takes the server its time.
TIMEOUT = (5.0, 90.0)
#: Seconds between two tries: the first, and the longest.
PAUSE = 0.5
PAUSE_MOST = 15.0
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
    """The batches at an address, for whoever has the key.

    Every call raises `Locked`, `Away`, or `Failed` where trying again will not help.
    """

    def __init__(self, url: str, key: str = "") -> None:
        self._url = url.rstrip("/")
        self._key = key
        self._session = requests.Session()
        # Else requests would take a machine's .netrc for what to authenticate with.
        self._session.auth = self._sign

    def close(self) -> None:
        self._session.close()

    def submit(self, key: str, **body: Any) -> Data:
        """Submit a task under an Idempotency-Key; `body` is what `requests` takes: json, or data and files."""
        return self._data(self._call("POST", "/tasks", headers={"Idempotency-Key": key}, **body))

    def task(self, task_id: str) -> Data:
        return self._data(self._call("GET", f"/tasks/{task_id}"))

    def tasks(self, **params: Any) -> Data:
        return self._data(self._call("GET", "/tasks", params=params))

    def status(self) -> Data:
        return self._data(self._call("GET", "/status"))

    def change(self, task_id: str, to: str) -> Data:
        """Change a task: `to` is pause, resume or cancel."""
        if to == "cancel":
            return self._data(self._call("DELETE", f"/tasks/{task_id}"))
        return self._data(self._call("POST", f"/tasks/{task_id}/{to}"))

    def results(self, task_id: str, format: str) -> Iterator[bytes]:
        """Yield a file of all results piece by piece; it may break off with `Away`."""
        reply = self._call("GET", f"/tasks/{task_id}/results", params={"format": format}, stream=True)
        with closing(reply), self._reach():
            yield from reply.iter_content(PIECE)

    def _sign(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._key:
            request.headers["Authorization"] = f"Bearer {self._key}"
        return request

    def _call(self, method: str, path: str, **more: Any) -> requests.Response:
        with self._reach():
            reply = self._session.request(
                method, f"{self._url}/api/batch{path}", timeout=TIMEOUT, allow_redirects=False, **more
            )
        if reply.status_code < 300:
            return reply
        with closing(reply):
            raise _refusal(reply)

    @contextmanager
    def _reach(self) -> Iterator[None]:
        """Have what goes wrong on the way leave in our words."""
        host = urlsplit(self._url).netloc
        try:
            yield
        except SSLError as exc:
            raise Failed(f"no safe connection to {host}: {exc}") from exc
        except Timeout as exc:
            raise Away(f"{host} does not answer") from exc
        except (ChunkedEncodingError, ContentDecodingError) as exc:
            raise Away(f"the connection to {host} broke off") from exc
        except ConnectionError as exc:
            raise Away(f"cannot connect to {host}") from exc
        except (requests.RequestException, ValueError) as exc:
            raise Failed(f"cannot ask {host}: {exc}") from exc

    def _data(self, reply: requests.Response) -> Data:
        """Return what an answer tells."""
        with suppress(ValueError, KeyError, TypeError):
            data = reply.json()["data"]
            if isinstance(data, dict):
                return data
        raise Failed(f"{urlsplit(self._url).netloc} does not answer as this product does: is --url right?")


class Patience:
    """Tries again what nobody can answer now, later each time, and says so once."""

    def __init__(
        self,
        seconds: float,
        say: Callable[[str], object],
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        """Take how long to try; `say` gets a line when it begins to wait, and one when that was over."""
        self._seconds = seconds
        self._say = say
        self._clock = clock
        self._sleep = sleep

    def ask(self, call: Callable[[], T]) -> T:
        """Return what `call` does in the end; raises `Failed`."""
        pause, end = PAUSE, 0.0
        while True:
            try:
                answer = call()
            except Away as away:
                now = self._clock()
                if not end:
                    end = now + self._seconds
                    self._say(f"{away}; trying again for up to {self._seconds:g} s")
                wait = max(pause, min(away.after, PAUSE_MOST))
                if now + wait > end:
                    raise Failed(f"{away}, and did not for {self._seconds:g} s") from away
                self._sleep(wait)
                pause = min(PAUSE_MOST, 2 * pause)
                continue
            if end:
                self._say("connected again")
            return answer


def _refusal(reply: requests.Response) -> Failed:
    """Return why there is no answer."""
    if reply.is_redirect:
        return Failed(f"the address has moved to {reply.headers['Location']}: give that as --url")
    told = _told(reply)
    data = told.get("data")
    details: Mapping[str, Any] = data if isinstance(data, dict) else {}
    words = f"{told.get('message') or reply.reason} (HTTP {reply.status_code}){_fields(details)}"
    if reply.status_code == 401:
        return Locked(words)
    if reply.status_code in LATER and details.get("reason") not in FINAL:
        return Away(words, _after(reply))
    return Failed(words)


def _told(reply: requests.Response) -> Data:
    with suppress(ValueError, requests.RequestException):
        told = reply.json()
        if isinstance(told, dict):
            return told
    return {}


def _fields(data: Mapping[str, Any]) -> str:
    """Return the fields that are wrong, in words."""
    errors = data.get("errors")
    found = [one for one in errors if isinstance(one, dict)] if isinstance(errors, list) else []
    return "".join(f"; {one.get('field')}: {one.get('problem')}" for one in found[:3])


def _after(reply: requests.Response) -> float:
    after = reply.headers.get("Retry-After", "")
    return float(after) if after.isdecimal() else 0.0
