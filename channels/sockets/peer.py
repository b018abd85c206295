"""What stands behind a WebSocket, and how it learns of the end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Closed:
    """How a socket ended; code 1006 when nobody said why."""

    code: int
    reason: str = ""
    #: The peer began, with a close frame or by going away.
    by_peer: bool = False
    #: Both sides sent their close frame.
    clean: bool = False


class Peer(Protocol):
    """What a door puts behind a socket."""

    @property
    def busy(self) -> bool:
        """Whether an answer is under way: a leaving replica closes such sockets last."""

    def opened(self) -> None:
        """Greet: called once, in the reader's thread, before anything is read."""

    def received(self, text: str) -> None:
        """Take one whole message; must not wait for an answer."""

    def closed(self, closed: Closed) -> None:
        """Clean up: called exactly once, always, also when `opened` raised."""
