"""A stream whose updates a test sets, in place of a stream that is followed in Redis."""

from __future__ import annotations

import queue

from services.streams.following import Update
from services.streams.long_text import FullAnswer


class Stream:
    """One stream: `tells` queues its reader's next updates; `wholes` are errors that reading the full answer raises."""

    def __init__(self) -> None:
        self.coming: queue.Queue[Update | Exception] = queue.Queue()
        self.wholes: list[Exception] = []
        #: How often its reader waited without updates, and how often it read the whole.
        self.waits = self.reads = 0

    def tells(self, *coming: Update | Exception) -> Stream:
        for one in coming:
            self.coming.put(one)
        return self

    def next(self, timeout: float) -> Update | None:
        """Return the next update, or None after `timeout` or 50 ms, whichever is shorter: no test waits longer."""
        try:
            one = self.coming.get(timeout=min(timeout, 0.05))
        except queue.Empty:
            self.waits += 1
            return None
        if isinstance(one, Exception):
            raise one
        return one

    def full_answer(self) -> FullAnswer:
        self.reads += 1
        if self.wholes:
            raise self.wholes.pop(0)
        return FullAnswer("whole", "completed")
