"""A stream that a test tells, in place of one that is followed in Redis."""

from __future__ import annotations

import queue

from services.streams.following import News
from services.streams.records import Whole


class Stream:
    """One stream as the test tells it: what its reader gets next, and what it is in the end."""

    def __init__(self) -> None:
        self.coming: queue.Queue[News | Exception] = queue.Queue()
        self.wholes: list[Exception] = []
        #: How often its reader waited in vain.
        self.waits = 0

    def tells(self, *coming: News | Exception) -> Stream:
        for one in coming:
            self.coming.put(one)
        return self

    def next(self, timeout: float) -> News | None:
        """Return what comes next; None after `timeout` or a twentieth of a second: nobody has to wait longer here."""
        try:
            one = self.coming.get(timeout=min(timeout, 0.05))
        except queue.Empty:
            self.waits += 1
            return None
        if isinstance(one, Exception):
            raise one
        return one

    def whole(self) -> Whole:
        if self.wholes:
            raise self.wholes.pop(0)
        return Whole("whole", "completed")
