"""The address of a Redis connection, and the timeouts of every wait: budgets, DNS lookups, Sentinels.

A socket's timeout bounds one read, not the sum of connecting, greeting and a slow reply; a DNS lookup and a hung
Sentinel have no timeout at all. A caller that must answer within two seconds sets a budget for its thread, and each
request that may hang runs in its own thread. The client library's Sentinel pool queries one Sentinel after the
other, waits for each that hangs, and takes the first answer.
"""

from __future__ import annotations

import ipaddress
import math
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from functools import partial
from typing import Any, Generic, TypeVar

import redis

T = TypeVar("T")
Address = tuple[str, int]

#: Minimal timeout in seconds, also when the budget is used up: a reply that has arrived is still read.
MOMENT = 0.001
#: Timeout in seconds for an answer if an older one can replace it.
FALLBACK_TIMEOUT = 0.2
#: Seconds after which the Sentinels are asked again without an error: after a planned failover the former master
#: accepts writes for ten more seconds, and loses them.
RECHECK_SECONDS = 2.0


class _Budget(threading.local):
    end = math.inf


_budget = _Budget()


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Limit the sum of this thread's waits for Redis to `seconds`."""
    outer = _budget.end
    _budget.end = min(outer, time.monotonic() + seconds)
    try:
        yield
    finally:
        _budget.end = outer


def left(limit: float) -> float:
    """Return the timeout of the next wait in seconds: `limit`, or the rest of the budget if that is less."""
    return max(MOMENT, min(limit, _budget.end - time.monotonic()))


def _in_thread(find: Callable[[], T]) -> Future[T]:
    """Call `find` in a daemon thread, which cannot keep the process from exiting if it hangs."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(find())
        except Exception as exc:
            future.set_exception(exc)

    threading.Thread(target=run, daemon=True).start()
    return future


class Lookup(Generic[T]):
    """An outside lookup that one thread at a time runs, however many threads need the answer."""

    def __init__(self, find: Callable[[], T], *, name: str) -> None:
        self._find = find
        self._name = name
        self._lock = threading.Lock()
        self._asked_at = -math.inf
        self._asking: Future[T] | None = None
        #: The last successful answer, None before the first.
        self.last: T | None = None

    def get(self, timeout: float) -> T:
        """Run the lookup; return the last answer if it fails or takes longer than `FALLBACK_TIMEOUT`.

        Raises:
            TimeoutError: no answer within `timeout` seconds, and no earlier one.
            Exception: the lookup failed, and there is no earlier answer.
        """
        asking, known = self.ask(), self.last is not None
        seconds = min(timeout, self._asked_at + FALLBACK_TIMEOUT - time.monotonic()) if known else timeout
        try:
            return asking.result(max(0.0, seconds))
        except Exception as exc:
            if self.last is not None:
                return self.last
            if asking.done():
                raise
            raise TimeoutError(f"{self._name}: no answer within {timeout:.1f} s") from exc

    def ask(self) -> Future[T]:
        """Start the lookup unless one is running, without waiting; `last` gets the answer."""
        with self._lock:
            if self._asking is None or self._asking.done():
                self._asked_at = time.monotonic()
                self._asking = _in_thread(self._answer)
            return self._asking

    @property
    def age(self) -> float:
        """Seconds since the last lookup began."""
        return time.monotonic() - self._asked_at

    def _answer(self) -> T:
        self.last = found = self._find()
        return found


def first_answers(requests: Sequence[Callable[[], T]], *, enough: int, timeout: float) -> list[T]:
    """Call all functions in parallel and return the first `enough` answers.

    Fewer if the others fail, take longer than `timeout` seconds, or longer than `FALLBACK_TIMEOUT` after the first
    answer.

    Raises:
        Exception: the error of one of them, if none answered.
    """
    pending = {_in_thread(request) for request in requests}
    answers: list[T] = []
    error: BaseException = TimeoutError(f"no answer within {timeout:.1f} s")
    end = time.monotonic() + timeout
    while pending and len(answers) < enough:
        done, pending = wait(pending, max(MOMENT, end - time.monotonic()), FIRST_COMPLETED)
        if not done:
            break
        for one in done:
            error = one.exception() or error
            if not one.exception():
                answers.append(one.result())
                end = min(end, time.monotonic() + FALLBACK_TIMEOUT)
    if not answers:
        raise error
    return answers[:enough]


class Resolver:
    """Resolves names for each new connection with a timeout; the last answer replaces one that hangs."""

    def __init__(self) -> None:
        self._lookups: dict[str, Lookup[list[str]]] = {}

    def addresses(self, host: str, timeout: float) -> list[str]:
        """Return the IP addresses of `host`.

        Raises:
            OSError: the name is unknown.
            redis.TimeoutError: no answer within `timeout` seconds, and no earlier one.
        """
        if _is_number(host):
            return [host]
        lookup = self._lookups.setdefault(host, Lookup(partial(_resolve, host), name=f"resolve {host}"))
        try:
            return lookup.get(timeout)
        except TimeoutError as exc:
            raise redis.TimeoutError(f"Timeout resolving the name {host}") from exc


def _resolve(host: str) -> list[str]:
    found = [address for *_, address in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)]
    # A link-local IPv6 address needs its interface.
    return [f"{address[0]}%{address[3]}" if len(address) > 3 and address[3] else str(address[0]) for address in found]


def _is_number(host: str) -> bool:
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


class Route:
    """The server address of a pool's connections."""

    def __init__(self, address: Address = ("", 0)) -> None:
        self._address = address
        #: Incremented when open connections may lead to the wrong server: each reconnects at its next use.
        self.generation = 0

    def target(self, timeout: float) -> Address:
        """Return the address for a new connection, looked up within `timeout` seconds."""
        return self._address

    def look(self) -> None:
        """Update the address without waiting; called before each use of an open connection."""

    def renew(self) -> None:
        self.generation += 1


class SentinelRoute(Route):
    """The address of the server that the Sentinels name as the master of a service.

    The Sentinels are asked for each new connection, and every `RECHECK_SECONDS`. If none answers, the last known master
    is used.
    """

    def __init__(self, service: str, ask: Callable[[], Sequence[tuple[Address, Mapping[str, Any]]]]) -> None:
        """Take the service's name, and the function that returns a majority's replies to SENTINEL MASTER."""
        super().__init__()
        self._service = service
        self._ask = ask
        self._lookup = Lookup(self._find, name=f"sentinels of {service}")

    def target(self, timeout: float) -> Address:
        try:
            address = self._lookup.get(timeout)
        except (redis.RedisError, OSError) as exc:
            raise redis.ConnectionError(f"no sentinel names a master of {self._service}: {exc}") from exc
        self._follow(address)
        return address

    def look(self) -> None:
        if self._lookup.age > RECHECK_SECONDS:
            self._lookup.ask()
        self._follow(self._lookup.last)

    def _follow(self, address: Address | None) -> None:
        if address and address != self._address:
            self._address = address
            self.renew()

    def _find(self) -> Address:
        """Return the master of the latest failover: a Sentinel that was cut off names an earlier one."""
        latest = max((state for _, state in self._ask()), key=lambda state: int(state["config-epoch"]))
        return latest["ip"], int(latest["port"])
