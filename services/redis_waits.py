"""Waits that end: a budget for all a thread does with Redis, and questions whose answers are not waited for too long.

A socket's timeout bounds one read, not the sum of connecting, greeting and a reply that drips; a name's resolution and
a hung sentinel have no bound at all. So whoever must answer within two seconds gives a budget, and what may hang is
asked in a thread of its own.
"""

from __future__ import annotations

import math
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Generic, TypeVar

T = TypeVar("T")

#: Seconds a wait has at least, also when the budget is used up: what has come already is still taken.
MOMENT = 0.001
#: Seconds an answer is waited for where an older one can stand in.
PATIENCE = 0.2


class _Budget(threading.local):
    end = math.inf


_budget = _Budget()


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Have all that this thread does with Redis end within `seconds`, whatever it waits for."""
    outer = _budget.end
    _budget.end = min(outer, time.monotonic() + seconds)
    try:
        yield
    finally:
        _budget.end = outer


def left(limit: float) -> float:
    """Return how many seconds the next wait may take: `limit`, or what is left of the budget."""
    return max(MOMENT, min(limit, _budget.end - time.monotonic()))


class Lookup(Generic[T]):
    """One question to the outside, asked by one thread at a time however many want the answer."""

    def __init__(self, find: Callable[[], T], *, name: str) -> None:
        self._find = find
        self._name = name
        self._changed = threading.Condition()
        self._asking = False
        self._asked_at = -math.inf
        self._answers: tuple[T, ...] = ()
        self._error: Exception | None = None

    def get(self, timeout: float) -> T:
        """Ask, and return the answer; the last good one where asking fails or takes longer than `PATIENCE`.

        Raises:
            TimeoutError: there is no answer within `timeout` seconds, and never was one.
            Exception: what asking raised, when there never was an answer.
        """
        with self._changed:
            if not self._asking:
                self._begin()
            end = min(time.monotonic() + timeout, self._asked_at + PATIENCE if self._answers else math.inf)
            done = self._changed.wait_for(lambda: not self._asking, max(0.0, end - time.monotonic()))
            if self._answers:
                return self._answers[0]
            if done and self._error:
                raise self._error
        raise TimeoutError(f"{self._name}: no answer within {timeout:.1f} s")

    def ask(self) -> None:
        """Have it asked, without waiting: `last` is the answer once there is one."""
        with self._changed:
            if not self._asking:
                self._begin()

    @property
    def last(self) -> T | None:
        """The last good answer."""
        return self._answers[0] if self._answers else None

    @property
    def age(self) -> float:
        """Seconds since it was last asked."""
        return time.monotonic() - self._asked_at

    def _begin(self) -> None:
        self._asking, self._asked_at = True, time.monotonic()
        threading.Thread(target=self._ask, name=self._name, daemon=True).start()

    def _ask(self) -> None:
        answers: tuple[T, ...] = ()
        error: Exception | None = None
        try:
            answers = (self._find(),)
        except Exception as exc:
            error = exc
        with self._changed:
            self._asking, self._error = False, error
            self._answers = answers or self._answers
            self._changed.notify_all()


def first_answers(asks: Sequence[Callable[[], T]], *, enough: int, timeout: float) -> list[T]:
    """Ask all at once and return the first `enough` answers.

    Fewer where the others fail, take longer than `timeout` seconds, or than `PATIENCE` after the first.

    Raises:
        Exception: what one of them raised, where none answered.
    """
    results: queue.SimpleQueue[tuple[T | None, Exception | None]] = queue.SimpleQueue()

    def ask(one: Callable[[], T]) -> None:
        try:
            results.put((one(), None))
        except Exception as exc:
            results.put((None, exc))

    for one in asks:
        threading.Thread(target=ask, args=(one,), daemon=True).start()
    answers: list[T] = []
    error: Exception = TimeoutError(f"no answer within {timeout:.1f} s")
    end = time.monotonic() + timeout
    for _ in asks:
        try:
            answer, failure = results.get(timeout=max(MOMENT, end - time.monotonic()))
        except queue.Empty:
            break
        if failure:
            error = failure
        else:
            answers.append(answer)  # type: ignore[arg-type]
            end = min(end, time.monotonic() + PATIENCE)
        if len(answers) >= enough:
            break
    if not answers:
        raise error
    return answers
