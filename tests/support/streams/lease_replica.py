"""A replica of the lease model: the product's flusher and its stream, on a line that loses calls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, Protocol

from services.errors import StoreUnavailable
from services.redis.store import Call, ScriptRunner
from services.streams.flusher import Flusher
from services.streams.owned_stream import OwnedStream
from services.streams.records import NewStream, Snapshot, Write
from services.streams.store import OPEN_SECONDS, StreamStore
from tests.support.streams.lease_fence import LEASE

#: What becomes of a call: it passes; it is lost or comes later; it is carried out and its reply is lost; or its sender
#: stops before Redis has it, or after.
Fate = Literal["ok", "lost", "unheard", "under way", "arrived"]


class Attempt(NamedTuple):
    """A call to take the stream over for an owner of this name."""

    owner: str


#: Whatever went over a line: each may come again, at any time.
Sent = Write | NewStream | Attempt
#: What creating a stream comes to: whether it is the creator's, what it shows, and what else was asked.
Opened = tuple[bool, Snapshot, list[Any]]


class Stopped(BaseException):
    """The replica was stopped with a call under way: no error, for it notices nothing."""


class Network(Protocol):
    """Where a line's calls arrive."""

    runner: ScriptRunner
    time: float
    sent: list[Sent]

    def deliver(self, write: Write, *others: Call) -> Any: ...

    def deliver_anew(self, whole: NewStream) -> Opened: ...


class Line(StreamStore):
    """One replica's way to Redis. The next calls meet the `fates` that were set, later ones pass."""

    def __init__(self, network: Network) -> None:
        super().__init__(network.runner, lease=LEASE)
        self.fates: list[Fate] = []
        #: The write that was under way when the replica was stopped, and its reply where that has come.
        self.stopped: tuple[Write, Any] | None = None
        self._network = network

    def write(self, writes: Sequence[Write], *others: Call) -> list[Any]:
        if not writes:
            return super().write(writes, *others)
        (write,) = writes
        fate = self._send(write)
        reply = None if fate in ("lost", "under way") else self._network.deliver(write, *others)
        self.stopped = (write, reply)
        self._receive(fate)
        return [reply]

    def open(
        self, stream: NewStream, *others: Call, hints: Sequence[Call] = (), insist: float = OPEN_SECONDS
    ) -> Opened:
        assert (others, hints) == ((), ()), "an owner that writes its stream anew sends nothing else"
        fate = self._send(stream)
        reply = None if fate in ("lost", "under way") else self._network.deliver_anew(stream)
        self._receive(fate)
        assert reply
        return reply

    def _send(self, sent: Sent) -> Fate:
        self._network.sent.append(sent)
        return self.fates.pop(0) if self.fates else "ok"

    def _receive(self, fate: Fate) -> None:
        if fate in ("under way", "arrived"):
            raise Stopped
        if fate != "ok":
            raise StoreUnavailable(fate)


class Replica:
    """One process: its line, its flusher, and the stream while it believes to own it."""

    def __init__(self, network: Network, number: int) -> None:
        self.number = number
        self.line = Line(network)
        self.flusher = Flusher(self.line, clock=lambda: network.time)
        self.stream: OwnedStream | None = None
        self.paused = False
        #: Its provider has said its last word.
        self.finished = False
        #: What its provider said, one text for each time it began anew.
        self.versions: list[str] = []

    def __repr__(self) -> str:
        return f"replica {self.number}"

    @property
    def owned(self) -> OwnedStream:
        assert self.stream
        return self.stream
