"""Orders the frames that several threads of a channel send to one socket."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from channels.sockets.peer import ClosableSocket

#: Frames that may wait behind a slow send, and bytes of their texts; beyond that every caller of `flush` waits.
MOST = 100
MOST_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Goodbye:
    """Closes the socket after the frames before it are sent."""

    code: int
    reason: str = ""


class Outbox:
    """A queue of outgoing frames; one thread at a time sends those of all threads."""

    def __init__(self, socket: ClosableSocket) -> None:
        self._socket = socket
        self._waiting: deque[Mapping[str, Any] | Goodbye] = deque()
        self._bytes = 0
        self._sending = threading.Lock()
        # Guards the count of bytes; held briefly.
        self._guard = threading.Lock()

    def put(self, frames: Iterable[Mapping[str, Any] | Goodbye]) -> None:
        """Append frames; they are sent in the order of these calls."""
        for one in frames:
            self._count(_size(one))
            self._waiting.append(one)

    def flush(self, *, wait: bool) -> None:
        """Send the queued frames, unless another thread is sending; with `wait`, wait for that thread first.

        Without `wait` nothing is lost: a sender checks the queue once more after it has released the lock.
        """
        while self._waiting and self._sending.acquire(blocking=wait or self._is_full):
            try:
                self._send()
            finally:
                self._sending.release()

    @property
    def _is_full(self) -> bool:
        return len(self._waiting) > MOST or self._bytes > MOST_BYTES

    def _count(self, size: int) -> None:
        with self._guard:
            self._bytes += size

    def _send(self) -> None:
        while self._waiting:
            frame = self._waiting.popleft()
            self._count(-_size(frame))
            if isinstance(frame, Goodbye):
                self._socket.close(frame.code, frame.reason)
            elif not self._socket.send(frame):
                while self._waiting:
                    self._count(-_size(self._waiting.popleft()))


def _size(frame: Mapping[str, Any] | Goodbye) -> int:
    """Return the approximate size in bytes: that of the texts."""
    if isinstance(frame, Goodbye):
        return 0
    return sum(len(value.encode(errors="replace")) for value in frame.values() if isinstance(value, str))
