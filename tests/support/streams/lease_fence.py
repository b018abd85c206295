"""What the lease protocol promises, said a second time and simply: the model compares every reply of Redis with it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from services.streams.records import Write

LEASE = 6.0
#: Seconds a suspicion must last: an owner that lives renews its lease within a third of it.
GRACE = LEASE / 3 + 1


class State(NamedTuple):
    """A stream as it lies in Redis, but for how far it was read."""

    hash: Mapping[str, Any] = {}
    messages: tuple[str, ...] = ()
    text: str = ""

    @property
    def status(self) -> str:
        return str(self.hash.get("status", ""))

    @property
    def start(self) -> int:
        return int(self.hash.get("start", 0))

    @property
    def is_whole(self) -> bool:
        """Whether an owner ended it: text and list tell the same, up to the last chunk."""
        last = json.loads(self.messages[-1]) if self.messages else {}
        return self.text == self.joined and bool(last.get("is_final"))

    @property
    def joined(self) -> str:
        """The text as the list tells it."""
        chunks = [json.loads(message) for message in self.messages[self.start :]]
        return "".join(chunk["content"] for chunk in chunks if not chunk.get("is_error"))


@dataclass
class Fence:
    """Who may write a stream, until when, and since when they are suspected."""

    epoch: int = 0
    owner: str = ""
    lease_end: float = 0.0
    suspected: float | None = None
    #: How often an owner was lost; one that gave its lease up does not count.
    takeovers: int = 0
    #: Every owner there was, in order.
    owners: list[str] = field(default_factory=list)

    def begins(self, owner: str, now: float) -> None:
        self.epoch, self.owner, self.lease_end, self.suspected = self.epoch + 1, owner, lease_from(now), None
        self.owners.append(owner)

    def admits(self, epoch: int, owner: str) -> bool:
        return (epoch, owner) == (self.epoch, self.owner)

    def renews(self, write: Write, now: float) -> None:
        """Take in a write that was accepted."""
        self.suspected = None
        if write.op == "release":
            self.lease_end = self.suspected = 0.0
        elif write.op == "":
            self.lease_end = lease_from(now)

    def tries(self, owner: str, now: float) -> str:
        """Return what an attempt to take a running stream over must come to."""
        if owner == self.owner:
            return "taken"
        if now < self.lease_end:
            return "alive"
        if self.suspected is None:
            self.suspected = now
            return "suspect"
        if now - self.suspected < GRACE:
            return "suspect"
        self.takeovers += self.lease_end > 0
        self.begins(owner, now)
        return "taken"

    def recall(self, state: State) -> None:
        """Begin again from what Redis has left."""
        self.epoch, self.owner = int(state.hash.get("epoch", 0)), state.hash.get("owner", "")
        self.lease_end = float(state.hash.get("lease", 0))
        self.suspected = float(state.hash["suspect"]) if "suspect" in state.hash else None
        self.takeovers = int(state.hash.get("takeovers", 0))


def lease_from(now: float) -> float:
    """Return the end of a lease as Redis has it: to the millisecond."""
    return round(now + LEASE, 3)
