"""What a door says to its socket, in the order it was said in, whichever of its threads said it."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

#: Frames that may wait behind a slow send; whoever has more to say waits, too.
MOST = 100


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
        self._turn = threading.Lock()

    def put(self, said: Iterable[Mapping[str, Any] | Goodbye]) -> None:
        """Add to what is said; the order is that of these calls."""
        self._waiting.extend(said)

    def flush(self, *, patient: bool) -> None:
        """Send what waits, unless another thread does so; a patient caller waits for that one.

        The others need not: whoever sends looks once more after it has given its turn back.
        """
        while self._waiting and self._turn.acquire(blocking=patient or len(self._waiting) > MOST):
            try:
                self._send()
            finally:
                self._turn.release()

    def _send(self) -> None:
        while self._waiting:
            said = self._waiting.popleft()
            if isinstance(said, Goodbye):
                self._socket.close(said.code, said.reason)
            elif not self._socket.send(said):
                self._waiting.clear()
