"""A stream whose news a test sets, in place of a stream that is followed in Redis."""

from __future__ import annotations

import queue

from services.streams.following import News
from services.streams.long_text import Whole


class Stream:
    """One stream: `tells` queues the news its reader gets next; `wholes` are errors that reading the whole raises."""

    def __init__(self) -> None:
        self.coming: queue.Queue[News | Exception] = queue.Queue()
        self.wholes: list[Exception] = []
        #: How often its reader waited without news, and how often it read the whole.
        self.waits = self.reads = 0

    def tells(self, *coming: News | Exception) -> Stream:
        for one in coming:
            self.coming.put(one)
        return self

    def next(self, timeout: float) -> News | None:
        """Return the next news, or None after `timeout` or 50 ms, whichever is shorter: tests need no longer waits."""
        try:
            one = self.coming.get(timeout=min(timeout, 0.05))
        except queue.Empty:
            self.waits += 1
            return None
        if isinstance(one, Exception):
            raise one
        return one

    def whole(self) -> Whole:
        self.reads += 1
        if self.wholes:
            raise self.wholes.pop(0)
        return Whole("whole", "completed")
