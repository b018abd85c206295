"""A time limit for a piece of work that another thread can end early."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from utils.running_time import running_time, wait_running


class Deadline:
    """A time limit in seconds; any thread can end it early with `abort`."""

    def __init__(self, seconds: float, *, clock: Callable[[], float] = running_time) -> None:
        self._clock = clock
        self._end = clock() + seconds
        self._lock = threading.Lock()
        self._hooks: list[Callable[[], None]] = []
        #: The reason given to `abort`; "" if it was not called.
        self.aborted = ""

    def remaining(self) -> float:
        """Return the seconds left; 0.0 after the end or an abort."""
        return 0.0 if self.aborted else max(0.0, self._end - self._clock())

    @property
    def over(self) -> bool:
        return self.remaining() <= 0.0

    def abort(self, reason: str) -> None:
        """End the work now. Later calls do nothing; the first reason is kept. Hooks run in the caller's thread."""
        with self._lock:
            if self.aborted:
                return
            self.aborted = reason
            hooks = list(self._hooks)
        for hook in hooks:
            hook()

    @contextmanager
    def interrupting(self, hook: Callable[[], None]) -> Iterator[None]:
        """Call `hook` if the deadline is aborted while the block runs; at once if it is aborted already.

        Used to end blocked socket reads: the hook shuts the socket down.
        """
        with self._lock:
            self._hooks.append(hook)
            already = bool(self.aborted)
        if already:
            hook()
        try:
            yield
        finally:
            with self._lock:
                self._hooks.remove(hook)

    @contextmanager
    def ending(self, act: Callable[[], None]) -> Iterator[None]:
        """Call `act` in a thread of its own if the time ends while the block runs."""
        left = threading.Event()

        def watch() -> None:
            if not wait_running(left.wait, self.remaining()):
                act()

        threading.Thread(target=watch, name="deadline", daemon=True).start()
        try:
            yield
        finally:
            left.set()


@contextmanager
def ended_in_time(seconds: float) -> Iterator[Deadline]:
    """Give a deadline that is aborted when its time is over: a reply that comes byte by byte never times out itself."""
    deadline = Deadline(seconds)
    with deadline.ending(lambda: deadline.abort("too slow")):
        yield deadline


@contextmanager
def ended_within(outer: Deadline, seconds: float) -> Iterator[Deadline]:
    """Give a deadline for a part of some work: aborted after `seconds`, and as soon as `outer` ends or is aborted.

    `outer` itself is not aborted when the part's time is over.
    """
    with (
        ended_in_time(min(seconds, outer.remaining())) as inner,
        outer.interrupting(lambda: inner.abort(outer.aborted)),
    ):
        yield inner
