"""How long a piece of work may go on, and the switch that ends it sooner."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Deadline:
    """A total bound in seconds that any thread can bring forward with `abort`."""

    def __init__(self, seconds: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._end = clock() + seconds
        self._lock = threading.Lock()
        self._hooks: list[Callable[[], None]] = []
        #: Why the work was aborted; "" while it was not.
        self.aborted = ""

    def remaining(self) -> float:
        """Return the seconds left, 0.0 when over or aborted."""
        return 0.0 if self.aborted else max(0.0, self._end - self._clock())

    @property
    def over(self) -> bool:
        return self.remaining() <= 0.0

    def abort(self, reason: str) -> None:
        """End the work now; the first reason stays. Hooks run in the caller's thread."""
        with self._lock:
            if self.aborted:
                return
            self.aborted = reason
            hooks = list(self._hooks)
        for hook in hooks:
            hook()

    @contextmanager
    def interrupting(self, hook: Callable[[], None]) -> Iterator[None]:
        """Call `hook` on abort for as long as the block runs; at once when already aborted.

        A blocked socket read ends this way: the hook shuts the socket down.
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
