"""What a run says while it says it: whoever listens hears it from then on, nothing is kept for later."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager

#: What a listener gets: bytes of the run, or None when it has said its last word.
Heard = queue.SimpleQueue[bytes | None]


class Broadcast:
    """One speaker, any number of listeners; safe to use from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._listeners: list[Heard] = []
        self._closed = False

    def say(self, words: bytes | None) -> None:
        """Tell all who listen now; None is the last word."""
        with self._lock:
            self._closed = self._closed or words is None
            for listener in self._listeners:
                listener.put(words)

    @contextmanager
    def listening(self) -> Iterator[Heard]:
        """Give the block all that is said from now on."""
        heard: Heard = queue.SimpleQueue()
        with self._lock:
            self._listeners.append(heard)
            if self._closed:
                heard.put(None)
        try:
            yield heard
        finally:
            with self._lock:
                self._listeners.remove(heard)
