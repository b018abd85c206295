"""Sends a run's events to its listeners as they occur. A new listener gets no earlier events."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager

#: A listener's queue: events as bytes, and None after the last one.
Heard = queue.SimpleQueue[bytes | None]


class Broadcast:
    """One sender and any number of listeners. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._listeners: list[Heard] = []
        self._closed = False
        #: Number of events so far.
        self.events = 0

    def say(self, words: bytes | None) -> None:
        """Send an event to all current listeners; None marks the end."""
        with self._lock:
            self._closed = self._closed or words is None
            self.events += words is not None
            for listener in self._listeners:
                listener.put(words)

    @property
    def heard(self) -> bool:
        """Whether anybody listens now."""
        return bool(self._listeners)

    def pause(self) -> None:
        """End the streams of the current listeners; later ones hear the events after that."""
        with self._lock:
            for listener in self._listeners:
                listener.put(None)

    @contextmanager
    def listening(self) -> Iterator[Heard]:
        """Yield a queue of all later events; it holds None at once if the run has ended."""
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
