"""Streams that Redis does not have: only one that stays away for a while is called unknown.

A Redis that lost its data gets every running stream again from its owner, within moments. Meanwhile nobody may read
that their answer has expired: that would be its end.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable

#: Streams that are remembered as missed; the oldest give way, and are waited for once more.
MAX_MISSES = 1000


class Misses:
    """A bounded memory of what was missed since when; safe in many threads."""

    def __init__(self, patience: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Take the seconds an owner may need to write its stream again."""
        self._patience = patience
        self._clock = clock
        self._lock = threading.Lock()
        self._since: OrderedDict[str, float] = OrderedDict()

    def note(self, stream_id: str) -> bool:
        """Note that a stream is not there; return whether it may still come back."""
        with self._lock:
            since = self._since.setdefault(stream_id, self._clock())
            if len(self._since) > MAX_MISSES:
                self._since.popitem(last=False)
            return self._clock() - since < self._patience

    def forget(self, stream_id: str) -> None:
        """Take in that the stream is there."""
        with self._lock:
            self._since.pop(stream_id, None)
