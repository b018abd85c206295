"""A replica in the lease model: the product's flusher and stream on a connection that loses calls."""

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

#: The fate of a call. "ok": it succeeds. "lost": it does not arrive, or arrives later. "unheard": it is executed and
#: its reply is lost. "under way", "arrived": the sender stops before or after Redis has executed it.
Fate = Literal["ok", "lost", "unheard", "under way", "arrived"]


class Attempt(NamedTuple):
    """A takeover call for an owner of this name."""

    owner: str


#: Everything sent over a connection; each may be delivered again at any time.
Sent = Write | NewStream | Attempt
#: The reply to creating a stream: whether this owner created it, its snapshot, and the replies of other calls.
Opened = tuple[bool, Snapshot, list[Any]]


class Stopped(BaseException):
    """The replica was stopped during a call. Not an Exception: the code that was stopped must not handle it."""


class Network(Protocol):
    """The Redis side of a connection: delivers calls."""

    runner: ScriptRunner
    time: float
    sent: list[Sent]

    def deliver(self, write: Write, *others: Call) -> Any: ...

    def deliver_anew(self, whole: NewStream) -> Opened: ...


class Connection(StreamStore):
    """One replica's connection to Redis. The next calls have the `fates` that were set, later ones succeed."""

    def __init__(self, network: Network) -> None:
        super().__init__(network.runner, lease=LEASE)
        self.fates: list[Fate] = []
        #: The write during which the replica was stopped, and its reply or None if that did not arrive.
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
        self, stream: NewStream, *others: Call, hints: Sequence[Call] = (), retry_seconds: float = OPEN_SECONDS
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
    """One process: its connection, its flusher, and the stream while it believes to own it."""

    def __init__(self, network: Network, number: int) -> None:
        self.number = number
        self.connection = Connection(network)
        self.flusher = Flusher(self.connection, clock=lambda: network.time)
        self.stream: OwnedStream | None = None
        self.paused = False
        #: Whether its provider has ended.
        self.finished = False
        #: The texts of its provider, one for each time the text was replaced.
        self.versions: list[str] = []

    def __repr__(self) -> str:
        return f"replica {self.number}"

    @property
    def owned(self) -> OwnedStream:
        assert self.stream
        return self.stream
