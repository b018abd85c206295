"""The interfaces between a WebSocket and the channel that uses it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from flask import Response

from services.identity.callers import Caller


@dataclass(frozen=True, slots=True)
class Closed:
    """How a socket ended; `code` is 1006 when no close frame came."""

    code: int
    reason: str = ""
    #: The peer began the close, with a close frame or by dropping the connection.
    by_peer: bool = False
    #: Both sides sent a close frame.
    clean: bool = False


class Peer(Protocol):
    """A channel's side of one socket; its methods are called in the reader's thread."""

    @property
    def busy(self) -> bool:
        """Whether an answer is under way. A leaving replica closes such sockets last."""

    def opened(self) -> None:
        """Send the first frames; called once, before anything is read."""

    def received(self, text: str) -> None:
        """Handle one complete message; must not wait for an answer."""

    def closed(self, closed: Closed) -> None:
        """Clean up; called exactly once, also when `opened` raised."""


class FrameSocket(Protocol):
    """A socket that sends JSON frames; `send` returns False when the frame was not sent."""

    @property
    def closing(self) -> bool: ...

    def send(self, frame: Mapping[str, Any]) -> bool: ...


class ClosableSocket(FrameSocket, Protocol):
    """A socket that its channel may also close."""

    def close(self, code: int, reason: str = "") -> None: ...


class SocketServer(Protocol):
    """Opens sockets for a channel, as `channels.sockets.endpoint.Sockets` does."""

    def serve(self, channel: str, client_id: str, open: Callable[[Any, Caller, str], Peer]) -> Response: ...
