"""The external auth API exchanges credentials for a token. Neither ever appears in a message or a log.

POST JSON {"usercode", "password"}, or GET with the same as parameters. Success is HTTP 200 and
{"success": true, "data": "<token>"}, where data may also be {"token", "expires_in"}. Every reply that is not the API's
own (a proxy's page, a redirect, a 5xx, a timeout) is `auth_unavailable`, never `auth_refused`.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal

from services.errors import AuthError, ProviderError
from services.http.connections import hide_parameters
from services.http.service import HTTPReply, HTTPService
from services.identity.user_store import UserRecord
from utils.deadline import Deadline
from utils.running_time import running_time, wait_running

Method = Literal["post", "get"]

#: Bytes of the longest accepted reply; a longer one is `auth_unavailable`.
MAX_ANSWER = 65_536
#: Characters of the longest accepted token; it must fit into a header.
MAX_TOKEN = 4096
#: The credentials of a probe: a user who does not exist.
PROBE = {"usercode": "wechatlaibao-probe", "password": "not-a-real-password"}
#: Seconds the last proper reply proves that the API works: each probe is a failed login in the API's own log.
PROVEN_SECONDS = 600.0
CONNECT_TIMEOUT = 5.0


class AuthApi:
    """Call the auth API over a bounded pool. Thread-safe. `timeout` is in seconds, for one whole reply."""

    def __init__(
        self,
        url: str,
        *,
        method: Method = "post",
        timeout: float = 10.0,
        pool_size: int = 10,
        clock: Callable[[], float] = running_time,
    ) -> None:
        self._url = url
        self._method = method
        self._timeout = timeout
        self._clock = clock
        #: When the API last replied in its own form, by the clock, and the status of HEAD since then.
        self._proven = float("-inf")
        self._head: int | None = None
        self._slots = threading.BoundedSemaphore(pool_size)
        self._http = HTTPService(pool_size=pool_size)
        if method == "get":
            hide_parameters()

    def token(self, record: UserRecord) -> tuple[str, float]:
        """Return a new token and its life in seconds, infinite if the API names none.

        Raises:
            AuthError: `auth_refused`, or `auth_unavailable` for every reply that is not the API's own.
        """
        # Some directories treat an empty password as an anonymous login, which succeeds.
        if not record.password:
            raise AuthError("no password in the user database", code="auth_refused")
        return self._login({"usercode": record.user.user_code, "password": record.password})

    def check(self) -> None:
        """Check that the API works, without a real user's password.

        The first call logs in as a user who does not exist. Later calls send HEAD, which is no login, and log in again
        only if its status changed, a login failed, or the last proper reply is older than `PROVEN_SECONDS`.

        Raises:
            AuthError: `auth_unavailable`.
        """
        with self._call("HEAD") as reply:
            status = reply.status
        if self._clock() - self._proven > PROVEN_SECONDS or self._head not in (None, status):
            self.refuses_strangers()
        self._head = status

    def refuses_strangers(self) -> bool:
        """Log in as a user who does not exist. Return whether the API refused it, as it should.

        Raises:
            AuthError: `auth_unavailable`, the reply is not the API's own.
        """
        try:
            self._login(PROBE)
        except AuthError as exc:
            if exc.code == "auth_refused":
                return True
            raise
        return False

    def close(self) -> None:
        self._http.close()

    def _login(self, credentials: dict[str, str]) -> tuple[str, float]:
        """Return the token and its life in seconds, and record whether the API replied in its own form."""
        try:
            granted = _granted(*self._ask(credentials))
        except AuthError as exc:
            self._proven = self._clock() if exc.code == "auth_refused" else float("-inf")
            raise
        self._proven = self._clock()
        return granted

    def _ask(self, credentials: dict[str, str]) -> tuple[int, dict[str, Any]]:
        sent = {"json": credentials} if self._method == "post" else {"params": credentials}
        with self._call(self._method.upper(), **sent) as reply:
            return reply.status, _parse(reply.status, self._body(reply))

    @contextmanager
    def _call(self, verb: str, **sent: Any) -> Iterator[HTTPReply]:
        if not wait_running(partial(self._slots.acquire, True), self._timeout):
            raise _unavailable("every connection to the auth API is in use")
        until = Deadline(self._timeout, clock=self._clock)
        options: dict[str, Any] = {"timeout": self._timeout, "headers": {"Accept": "application/json"}, **sent}
        try:
            with self._http.exchange(verb, self._url, deadline=until, **options) as reply:
                yield reply
        except ProviderError as exc:
            # The cause of a timeout here may affect the pooled connections too, so later calls open new ones.
            self._http.close()
            raise _unavailable(_reason(exc)) from None
        finally:
            self._slots.release()

    def _body(self, reply: HTTPReply) -> bytes:
        """Read the reply in pieces. One that is too long ends here, a slow one at the deadline."""
        body = b""
        while piece := reply.read(self._timeout):
            body += piece
            if len(body) > MAX_ANSWER:
                raise _unavailable("the answer is too long")
        return body


def _parse(status: int, body: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        kind = "a redirect" if 300 <= status < 400 else "not JSON"
        raise _unavailable(f"HTTP {status}, {kind}") from None
    if not isinstance(answer, dict):
        raise _unavailable(f"HTTP {status}, not a JSON object")
    return answer


def _granted(status: int, answer: dict[str, Any]) -> tuple[str, float]:
    if status == 200 and answer.get("success") is True:
        return _token(answer.get("data"))
    if status < 500 and status != 429 and answer.get("success") is False:
        raise AuthError(f"the auth API refused, HTTP {status}", code="auth_refused")
    raise _unavailable(f"HTTP {status} without a success that is true or false")


def _token(given: Any) -> tuple[str, float]:
    life = float("inf")
    if isinstance(given, dict):
        life = _seconds(given.get("expires_in"))
        given = given.get("token")
    # A token becomes part of a header and of a Redis key, so it must be printable ASCII.
    if not isinstance(given, str) or not given.isascii() or not given.isprintable():
        raise _unavailable("success without a token")
    if given != given.strip() or not 0 < len(given) <= MAX_TOKEN:
        raise _unavailable("success with a token that is empty, padded or too long")
    return given, life


def _seconds(given: Any) -> float:
    if given is None:
        return float("inf")
    try:
        seconds = float(given)
    except (TypeError, ValueError):
        seconds = 0.0
    if not seconds > 0 or isinstance(given, bool):
        raise _unavailable("expires_in is not a number above 0")
    return seconds


def _reason(exc: ProviderError) -> str:
    """Return the error and the class of its cause. The cause's text has the address, with GET also the password."""
    return f"{exc} ({type(exc.__cause__).__name__})" if exc.__cause__ else str(exc)


def _unavailable(cause: str) -> AuthError:
    return AuthError(cause, code="auth_unavailable")
