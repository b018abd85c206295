"""What a door says to its socket, in the order it was said in, whichever of its threads said it."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

#: Frames that may wait behind a slow send, and bytes of their texts; whoever has more to say waits, too.
MOST = 100
MOST_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Goodbye:
    """Closes the socket when all before it is sent."""

    code: int
    reason: str = ""


class Wire(Protocol):
    """What is used of a socket."""

    @property
    def closing(self) -> bool: ...

    def send(self, frame: Mapping[str, Any]) -> bool: ...

    def close(self, code: int, reason: str = "") -> None: ...


class Outbox:
    """Frames on their way to a socket; one thread sends at a time, for all."""

    def __init__(self, socket: Wire) -> None:
        self._socket = socket
        self._waiting: deque[Mapping[str, Any] | Goodbye] = deque()
        self._bytes = 0
        self._turn = threading.Lock()
        # Of the count of bytes; held for moments only.
        self._guard = threading.Lock()

    def put(self, said: Iterable[Mapping[str, Any] | Goodbye]) -> None:
        """Add to what is said; the order is that of these calls."""
        for one in said:
            self._count(_size(one))
            self._waiting.append(one)

    def flush(self, *, patient: bool) -> None:
        """Send what waits, unless another thread does so; a patient caller waits for that one.

        The others need not: whoever sends looks once more after it has given its turn back.
        """
        while self._waiting and self._turn.acquire(blocking=patient or self._is_full):
            try:
                self._send()
            finally:
                self._turn.release()

    @property
    def _is_full(self) -> bool:
        return len(self._waiting) > MOST or self._bytes > MOST_BYTES

    def _count(self, size: int) -> None:
        with self._guard:
            self._bytes += size

    def _send(self) -> None:
        while self._waiting:
            said = self._waiting.popleft()
            self._count(-_size(said))
            if isinstance(said, Goodbye):
                self._socket.close(said.code, said.reason)
            elif not self._socket.send(said):
                self._drop()

    def _drop(self) -> None:
        """Forget what waits: nobody is there any more."""
        while self._waiting:
            self._count(-_size(self._waiting.popleft()))


def _size(said: Mapping[str, Any] | Goodbye) -> int:
    """Return about how many bytes it has: those of its texts."""
    if isinstance(said, Goodbye):
        return 0
    return sum(len(value.encode(errors="replace")) for value in said.values() if isinstance(value, str))
