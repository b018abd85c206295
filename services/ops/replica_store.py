"""The registry of running replicas: each notes itself every two seconds, and one that has stopped doing so is gone.

    {dify_replicas}:seen    hash, a replica's name → "<time of its note> <JSON of `RunningReplica`>"

Each note removes those that are over: the hash has a field for each replica of the last seconds. A note is sent beside
the renewal of the replica's sockets, which runs anyway (`channels/sockets/registry.py`).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass

from services.redis.store import Call, ScriptRunner, script

KEY = "{dify_replicas}:seen"
#: Seconds for which a note counts: one may be lost. A page that looks every five seconds shows within ten that a
#: replica was killed.
LIFE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class RunningReplica:
    """What a replica notes of itself."""

    #: Host and process.
    name: str
    version: str
    #: When it started, in seconds since 1970.
    since: float
    draining: bool
    #: Answers in progress that it writes, and how many it may write at once.
    answers: int
    capacity: int

    def to_json(self) -> str:
        """Return the fields beside the name as JSON."""
        return json.dumps({field: value for field, value in asdict(self).items() if field != "name"})

    @classmethod
    def from_json(cls, name: str, text: str) -> RunningReplica:
        """Return what a replica of this or another version noted; unknown fields are ignored."""
        noted = json.loads(text)
        return cls(name, **{field: noted[field] for field in cls.__slots__ if field in noted})


class ReplicaStore:
    """Owns the key above."""

    def __init__(
        self, runner: ScriptRunner, this: Callable[[], RunningReplica], *, now: Callable[[], str] = str
    ) -> None:
        """`this` returns this replica's state; `now` the time in seconds, "" for Redis's own clock."""
        self._runner = runner
        self._this = this
        self._now = now

    def this(self) -> RunningReplica:
        """Return this replica."""
        return self._this()

    def note(self) -> Call:
        """Return the call that notes this replica."""
        this = self.this()
        return Call(script("replicas_note"), (KEY,), (self._now(), LIFE_SECONDS, this.name, this.to_json()))

    def all(self) -> list[RunningReplica]:
        """Note this replica, and return all, this one first and the others by their names.

        Raises:
            StoreUnavailable: Redis is away.
        """
        found = self._runner.run([self.note()])[0]
        noted = {name: RunningReplica.from_json(name, text) for name, text in zip(found[::2], found[1::2], strict=True)}
        name = self.this().name
        return sorted(noted.values(), key=lambda one: (one.name != name, one.name))
