"""Fetches a file from an address in a message or an answer, and posts to one in a request, such as a webhook.

The address follows `AddressRules`, each redirect of a fetch included; a post follows none. The size of a file is
bounded while the body arrives, and the time in all. Addresses may hold a credential, so they are in no log line and in
no error.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from urllib.parse import urljoin

from services.errors import FetchError, ProviderError
from services.http.addresses import AddressRules, Target
from services.http.connections import RequestRoute
from services.http.retries import attempts
from services.http.service import HTTPReply, HTTPService, TransientError, aborted_error
from utils.deadline import Deadline
from utils.formats.file_names import disposition_name

#: Seconds to connect, and between two pieces of a reply.
CONNECT_SECONDS, SILENT_SECONDS = 5.0, 15.0
#: Retries of a fetch, and the pause before the first in seconds; a server's Retry-After counts up to `MOST_PAUSE`.
RETRIES, BACKOFF = 2, 0.5
MOST_PAUSE = 10.0
#: The most redirects followed for one file.
MOST_REDIRECTS = 3
_REDIRECTS = (301, 302, 303, 307, 308)
#: Statuses of an address that is no longer valid: its time is over, or its file was removed.
_GONE = (401, 403, 404, 410)


@dataclass(frozen=True, slots=True)
class Fetched:
    """A file as it was sent. Its repr has no content."""

    content: bytes = field(repr=False)
    #: The name of `Content-Disposition` without a path; "" for none.
    name: str = field(default="", repr=False)
    #: The media type that the server sent, without parameters, in lower case; "" for none. It may be wrong.
    content_type: str = ""


class Fetcher:
    """Fetches files by one set of rules. Thread-safe; close it at the end."""

    def __init__(self, rules: AddressRules, *, backoff: float = BACKOFF) -> None:
        self._rules = rules
        self._backoff = backoff
        self._http = HTTPService(pool_size=10, connect_timeout=CONNECT_SECONDS, keeps_connections=False)

    def fetch(self, url: str, deadline: Deadline, max_bytes: int, *, also: Collection[str] = ()) -> Fetched:
        """Return the file at `url`, of `max_bytes` at most. Tries three times where another try may help.

        `also` are places (`scheme://host[:port]/path/`) that are allowed for this file beside the listed hosts; they
        may be http and private, like listed hosts. The fetch with its retries ends with the deadline.

        Raises:
            FetchError: code `media_too_large`; `media_too_old`: the server refuses the address (401, 403, 404, 410);
                `media_not_allowed`: the address or a redirect breaks the rules; `media_failed`: anything else.
            ProviderError: `interrupted` after `deadline.abort`.
        """
        try:
            for attempt in attempts(deadline, retries=RETRIES, backoff=self._backoff, longest_wait=MOST_PAUSE):
                with attempt:
                    file = self._follow(url, deadline, max_bytes, also)
        except (FetchError, TransientError) as exc:
            if deadline.aborted:
                raise aborted_error(deadline) from None
            raise exc if isinstance(exc, FetchError) else FetchError(str(exc)) from exc
        return file

    def close(self) -> None:
        """Close the pooled connections."""
        self._http.close()

    def _follow(self, url: str, deadline: Deadline, max_bytes: int, also: Collection[str]) -> Fetched:
        for _ in range(MOST_REDIRECTS + 1):
            found = self._once(self._rules.allowed(url, also), deadline, max_bytes)
            if isinstance(found, Fetched):
                return found
            url = urljoin(url, found)
        raise FetchError("too many redirects")

    def _once(self, target: Target, deadline: Deadline, max_bytes: int) -> Fetched | str:
        """Return the file, or the address of a redirect."""
        try:
            return self._http.reach(target, lambda route: self._get(route, target, deadline, max_bytes))
        except ProviderError as exc:
            raise TransientError(str(exc), retry_after=exc.retry_after) from exc

    def _get(self, route: RequestRoute, target: Target, deadline: Deadline, max_bytes: int) -> Fetched | str:
        # No Content-Type: WeCom's store answers 400 to a GET that has one.
        headers = {"Accept-Encoding": "identity"}
        with self._http.exchange(
            "GET", target.url, deadline=deadline, timeout=SILENT_SECONDS, headers=headers, route=route
        ) as reply:
            if reply.status in _REDIRECTS:
                return reply.headers.get("Location", "")
            _check_status(reply)
            content = _body(reply, max_bytes)
            kind = reply.headers.get("Content-Type", "").partition(";")[0].strip().lower()
            return Fetched(content, disposition_name(reply.headers.get("Content-Disposition", "")), kind)


def _check_status(reply: HTTPReply) -> None:
    if reply.status == 200:
        return
    if reply.status == 429 or reply.status >= 500:
        raise TransientError(f"HTTP {reply.status}", retry_after=min(reply.retry_after, MOST_PAUSE))
    code = "media_too_old" if reply.status in _GONE else "media_failed"
    raise FetchError(f"HTTP {reply.status}", code=code)


def _body(reply: HTTPReply, max_bytes: int) -> bytes:
    """Return the body; stop as soon as it is too large."""
    length = reply.headers.get("Content-Length", "")
    if length.isdecimal() and int(length) > max_bytes:
        raise FetchError("too large", code="media_too_large")
    pieces, size = [], 0
    while piece := reply.read(SILENT_SECONDS):
        pieces.append(piece)
        size += len(piece)
        if size > max_bytes:
            raise FetchError("too large", code="media_too_large")
    if reply.broken:
        raise TransientError("the connection broke")
    return b"".join(pieces)


class Poster:
    """Posts JSON by one set of rules. Thread-safe; close it at the end."""

    def __init__(self, rules: AddressRules) -> None:
        self._rules = rules
        self._http = HTTPService(pool_size=2, connect_timeout=CONNECT_SECONDS, keeps_connections=False)

    def check(self, url: str) -> None:
        """Raise `FetchError` if the rules do not allow the address now, or its name cannot be resolved."""
        self._rules.allowed(url)

    def post(self, url: str, body: bytes, headers: Mapping[str, str], *, timeout: float) -> int:
        """Post JSON and return the status of the reply, which has `timeout` seconds; resolving the name comes before.

        Raises:
            FetchError: as `check`.
            ProviderError: no reply came; the message may have arrived.
        """
        target = self._rules.allowed(url)
        deadline = Deadline(timeout)

        def send(route: RequestRoute) -> int:
            left, sent = max(0.001, deadline.remaining()), ("application/json", body)
            with self._http.exchange(
                "POST", target.url, deadline=deadline, timeout=left, headers=headers, body=sent, route=route
            ) as reply:
                return reply.status

        return self._http.reach(target, send)

    def close(self) -> None:
        self._http.close()
