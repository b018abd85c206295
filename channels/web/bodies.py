"""Bounds what request bodies cost this process, of all requests together and of each caller.

Their bytes in memory count as they arrive, until the request ends or `release_body` is called; WeCom's callbacks are
answered before. `UploadSlots` bounds the large ones that are parsed and stored at once.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, Protocol

from flask import request
from werkzeug.datastructures import EnvironHeaders
from werkzeug.wsgi import ClosingIterator

from channels.web.middleware import Wsgi
from channels.web.rest import RestError, credential
from services import metrics
from services.identity.callers import ANONYMOUS, owner_of
from utils.networks import network
from utils.slots import KeyedSlots

#: The first bytes of each body, which do not count, so that questions pass while large bodies use up the budget. The
#: limits on connections bound them.
FREE_BYTES = 64 * 1024
#: Value of `Retry-After` in seconds for a body beyond the budget.
RETRY_SECONDS = "5"


#: Bodies of more bytes than this take a slot.
LARGE_BYTES = 256 * 1024
#: Seconds that a request waits for a slot, and the value of its `Retry-After` if there was none.
SLOT_SECONDS, SLOT_RETRY_SECONDS = 15.0, "10"


class Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


class BodyBudget:
    """Counts the bytes of all bodies in memory. Thread-safe."""

    def __init__(self, *, most: int, most_per_caller: int) -> None:
        self._most = most
        self._most_per_caller = most_per_caller
        self._total = 0
        self._by_caller: Counter[str] = Counter()
        self._lock = threading.Lock()
        metrics.BODY_BYTES_MAX.inc(most)

    def take(self, caller: str, size: int) -> Literal["", "caller", "process"]:
        """Add bytes of a caller's body; return "", or whose budget does not have room for them."""
        with self._lock:
            if self._by_caller[caller] + size > self._most_per_caller:
                return "caller"
            if self._total + size > self._most:
                return "process"
            self._by_caller[caller] += size
            self._total += size
        metrics.BODY_BYTES.inc(size)
        return ""

    def give_back(self, caller: str, size: int) -> None:
        with self._lock:
            self._by_caller[caller] -= size
            self._total -= size
            if not self._by_caller[caller]:
                del self._by_caller[caller]
        metrics.BODY_BYTES.dec(size)


class CountedBody:
    """The body of a request, as WSGI's input, whose bytes count in a budget."""

    def __init__(self, body: Readable, budget: BodyBudget, caller: str) -> None:
        self._body = body
        self._budget = budget
        self._caller = caller
        self._received = 0
        self._counted = 0
        self._released = False

    def read(self, size: int, /) -> bytes:
        """Return the next bytes, `size` at most.

        Raises:
            RestError: 503 `bodies_full`, the budget has no room for them.
        """
        piece = self._body.read(size)
        self._received += len(piece)
        self._count(self._received - FREE_BYTES - self._counted)
        return piece

    def release(self) -> None:
        """Give all bytes back; bytes that are read and dropped after this do not count."""
        self._released = True
        if self._counted:
            self._budget.give_back(self._caller, self._counted)
            self._counted = 0

    def _count(self, more: int) -> None:
        if more <= 0 or self._released:
            return
        if whose := self._budget.take(self._caller, more):
            self.release()
            metrics.BODIES_REFUSED.labels(whose).inc()
            message = "Too many large bodies are being received. Send it again later."
            raise RestError(503, message, reason="bodies_full", headers={"Retry-After": RETRY_SECONDS})
        self._counted += more


class CountedBodies:
    """WSGI middleware that counts the bodies of requests.

    The caller is the credential, which is checked before the body is read, or the address where none is needed.
    """

    def __init__(self, behind: Wsgi, budget: BodyBudget, *, open_to_all: bool) -> None:
        self._behind = behind
        self._budget = budget
        self._open_to_all = open_to_all

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
        length = environ.get("CONTENT_LENGTH") or ""
        small = length.isdecimal() and int(length) <= FREE_BYTES
        # A WebSocket's handshake, which is a GET, needs the server's own input.
        if small or environ["REQUEST_METHOD"] == "GET":
            return self._behind(environ, start_response)
        body = CountedBody(environ["wsgi.input"], self._budget, self._caller(environ))
        environ["wsgi.input"] = body
        try:
            reply = self._behind(environ, start_response)
        except BaseException:
            body.release()
            raise
        return ClosingIterator(reply, body.release)

    def _caller(self, environ: dict[str, Any]) -> str:
        shown = None if self._open_to_all else credential(EnvironHeaders(environ))
        return f"address:{network(environ.get('REMOTE_ADDR', ''))}" if shown is None else f"credential:{shown}"


def release_body() -> None:
    """Give back the bytes of the Flask request's body, which is in memory no longer, before the request ends."""
    if isinstance(body := request.environ.get("wsgi.input"), CountedBody):
        body.release()


class UploadSlots:
    """Bounds the uploads of an address that are parsed and stored at once: each takes several times its memory.

    A body is in memory before it takes a slot, so that a slow client holds none.
    """

    def __init__(
        self, reason: str, message: str, *, most: int, most_per_caller: int, seconds: float = SLOT_SECONDS
    ) -> None:
        """Take the reason and the sentence for people of a request that waited `seconds` in vain."""
        self._reason = reason
        self._message = message
        self._slots = KeyedSlots(most, most_per_caller)
        self._seconds = seconds

    @contextmanager
    def held(self, principal: str, *, size: int = LARGE_BYTES + 1) -> Iterator[None]:
        """Hold a slot for a body of this caller, if it is a large one, during the block.

        Raises:
            RestError: 503, there was no slot in time.
        """
        if size <= LARGE_BYTES:
            yield
            return
        caller = network(request.remote_addr or "") if owner_of(principal) == ANONYMOUS else principal
        with self._slots.held(caller, self._seconds) as free:
            if not free:
                metrics.BODIES_REFUSED.labels("slots").inc()
                later = {"Retry-After": SLOT_RETRY_SECONDS}
                raise RestError(503, self._message, reason=self._reason, headers=later)
            yield
