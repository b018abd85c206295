"""Where a connection to Redis leads, and how long anything may wait: budgets, name look-ups, Sentinels.

A socket's timeout bounds one read, not the sum of connecting, greeting and a slow reply; a name look-up and a hung
Sentinel have no bound at all. A caller that must answer within two seconds sets a budget for its thread, and each
question that may hang runs in a thread of its own. The client library's Sentinel pool asks one Sentinel after the
other, waits for each that hangs, and believes the first answer.
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

#: Seconds a wait has at least, also when the budget is used up: a reply that has arrived is still read.
MOMENT = 0.001
#: Seconds an answer is waited for where an older one can stand in.
PATIENCE = 0.2
#: Seconds after which the Sentinels are asked again though nothing is wrong: after a planned failover the former master
#: accepts writes for ten seconds more, and loses them.
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
    """Return how many seconds the next wait may take: `limit`, or what is left of the budget."""
    return max(MOMENT, min(limit, _budget.end - time.monotonic()))


def _in_thread(find: Callable[[], T]) -> Future[T]:
    """Call `find` in a daemon thread: one that hangs does not keep the process from ending."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(find())
        except Exception as exc:
            future.set_exception(exc)

    threading.Thread(target=run, daemon=True).start()
    return future


class Lookup(Generic[T]):
    """One question to the outside, asked by one thread at a time however many want the answer."""

    def __init__(self, find: Callable[[], T], *, name: str) -> None:
        self._find = find
        self._name = name
        self._lock = threading.Lock()
        self._asked_at = -math.inf
        self._asking: Future[T] | None = None
        #: The last good answer, None before the first.
        self.last: T | None = None

    def get(self, timeout: float) -> T:
        """Ask, and return the answer; the last good one where asking fails or takes longer than `PATIENCE`.

        Raises:
            TimeoutError: there is no answer within `timeout` seconds, and never was one.
            Exception: what asking raised, when there never was an answer.
        """
        asking, known = self.ask(), self.last is not None
        seconds = min(timeout, self._asked_at + PATIENCE - time.monotonic()) if known else timeout
        try:
            return asking.result(max(0.0, seconds))
        except Exception as exc:
            if self.last is not None:
                return self.last
            if asking.done():
                raise
            raise TimeoutError(f"{self._name}: no answer within {timeout:.1f} s") from exc

    def ask(self) -> Future[T]:
        """Ask, unless a thread does so already, without waiting: `last` is the answer once there is one."""
        with self._lock:
            if self._asking is None or self._asking.done():
                self._asked_at = time.monotonic()
                self._asking = _in_thread(self._answer)
            return self._asking

    @property
    def age(self) -> float:
        """Seconds since it was last asked."""
        return time.monotonic() - self._asked_at

    def _answer(self) -> T:
        self.last = found = self._find()
        return found


def first_answers(asks: Sequence[Callable[[], T]], *, enough: int, timeout: float) -> list[T]:
    """Ask all at once and return the first `enough` answers.

    Fewer where the others fail, take longer than `timeout` seconds, or than `PATIENCE` after the first.

    Raises:
        Exception: what one of them raised, where none answered.
    """
    pending = {_in_thread(ask) for ask in asks}
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
                end = min(end, time.monotonic() + PATIENCE)
    if not answers:
        raise error
    return answers[:enough]


class Resolver:
    """Resolves names anew for each connection, in bounded time; the last good answer stands in for one that hangs."""

    def __init__(self) -> None:
        self._lookups: dict[str, Lookup[list[str]]] = {}

    def addresses(self, host: str, timeout: float) -> list[str]:
        """Return the IP addresses of `host`.

        Raises:
            OSError: the name is unknown.
            redis.TimeoutError: there is no answer within `timeout` seconds, and never was one.
        """
        if _is_number(host):
            return [host]
        lookup = self._lookups.setdefault(host, Lookup(partial(_resolve, host), name=f"resolve {host}"))
        try:
            return lookup.get(timeout)
        except TimeoutError as exc:
            raise redis.TimeoutError(f"Timeout resolving the name {host}") from exc


def _resolve(host: str) -> list[str]:
    found = [place for *_, place in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)]
    # A link-local IPv6 address is of use with its interface only.
    return [f"{place[0]}%{place[3]}" if len(place) > 3 and place[3] else str(place[0]) for place in found]


def _is_number(host: str) -> bool:
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


class Route:
    """Where a pool's connections lead."""

    def __init__(self, address: Address = ("", 0)) -> None:
        self._address = address
        #: Counts up when connections made before may lead to the wrong server: each is made anew when next used.
        self.generation = 0

    def target(self, timeout: float) -> Address:
        """Return where a new connection is to go; asking others takes at most `timeout` seconds."""
        return self._address

    def look(self) -> None:
        """Take in news of where to go, without waiting; called before each use of a connection that is open."""

    def renew(self) -> None:
        self.generation += 1


class SentinelRoute(Route):
    """Leads to the server that the Sentinels call the master of a service.

    They are asked for each new connection, and every `RECHECK_SECONDS`. Where none answers, the last known master is
    used.
    """

    def __init__(self, service: str, ask: Callable[[], Sequence[tuple[Address, Mapping[str, Any]]]]) -> None:
        """Take the service's name, and what returns the replies of a majority to SENTINEL MASTER."""
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
        """Return the master of the latest failover: a Sentinel that was cut off names the one before."""
        latest = max((state for _, state in self._ask()), key=lambda state: int(state["config-epoch"]))
        return latest["ip"], int(latest["port"])
