"""A simple model of the lease protocol's guarantees; the state machine compares every reply of Redis with it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from services.streams.records import Write

LEASE = 6.0
#: Seconds for which a stream must be suspect before a takeover: a living owner renews its lease within a third of it.
GRACE = LEASE / 3 + 1


class State(NamedTuple):
    """A stream's keys in Redis, without the hash's field `read`."""

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
        """Whether an owner ended it: the text equals the list's, and the last chunk is final."""
        last = json.loads(self.messages[-1]) if self.messages else {}
        return self.text == self.joined and bool(last.get("is_final"))

    @property
    def joined(self) -> str:
        """The text of the list's chunks."""
        chunks = [json.loads(message) for message in self.messages[self.start :]]
        return "".join(chunk["content"] for chunk in chunks if not chunk.get("is_error"))


@dataclass
class Fence:
    """The owner that may write a stream, the end of its lease, and the time since when it is suspect."""

    epoch: int = 0
    owner: str = ""
    lease_end: float = 0.0
    suspected: float | None = None
    #: How often an owner was lost; owners that released their lease do not count.
    takeovers: int = 0
    #: All owners so far, in order.
    owners: list[str] = field(default_factory=list)

    def begins(self, owner: str, now: float) -> None:
        self.epoch, self.owner, self.lease_end, self.suspected = self.epoch + 1, owner, lease_from(now), None
        self.owners.append(owner)

    def admits(self, epoch: int, owner: str) -> bool:
        return (epoch, owner) == (self.epoch, self.owner)

    def renews(self, write: Write, now: float) -> None:
        """Apply a write that Redis accepted."""
        self.suspected = None
        if write.op == "release":
            self.lease_end = self.suspected = 0.0
        elif write.op == "":
            self.lease_end = lease_from(now)

    def tries(self, owner: str, now: float) -> str:
        """Return the outcome that an attempt to take over a running stream must have."""
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
        """Continue from the fields that Redis has left."""
        self.epoch, self.owner = int(state.hash.get("epoch", 0)), state.hash.get("owner", "")
        self.lease_end = float(state.hash.get("lease", 0))
        self.suspected = float(state.hash["suspect"]) if "suspect" in state.hash else None
        self.takeovers = int(state.hash.get("takeovers", 0))


def lease_from(now: float) -> float:
    """Return the end of a lease that begins at `now`, rounded to milliseconds as in Redis."""
    return round(now + LEASE, 3)
