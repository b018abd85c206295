"""The registry of running replicas: each notes itself every two seconds, and one that has stopped doing so is gone.

    {dify_replicas}:seen    hash, a replica's name → "<time of its note> <JSON of `RunningReplica`>"

Each note removes those that are over: the hash has a field for each replica of the last seconds. Batch workers note
themselves too.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass

from services.redis.store import Call, ScriptRunner, script
from services.rounds import Rounds

KEY = "{dify_replicas}:seen"
#: Seconds between two notes.
NOTE_SECONDS = 2.0
#: Seconds for which a note counts: one may be lost. A page that looks every five seconds shows within ten that a
#: replica was killed.
LIFE_SECONDS = 5.0
#: Seconds to wait for the thread's end.
STOP_SECONDS = 1.0


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
    """Owns the key above; its thread notes this replica."""

    def __init__(
        self, runner: ScriptRunner, this: Callable[[], RunningReplica], *, now: Callable[[], str] = str
    ) -> None:
        """`this` returns this replica's state; `now` the time in seconds, "" for Redis's own clock."""
        self._runner = runner
        self._this = this
        self._now = now
        self._rounds = Rounds("replica-notes", self.note, pause=NOTE_SECONDS)

    def start(self) -> None:
        self._rounds.start()

    def close(self) -> None:
        self._rounds.stop()
        self._rounds.join(STOP_SECONDS)

    def this(self) -> RunningReplica:
        """Return this replica."""
        return self._this()

    def note(self) -> float:
        """Note this replica; return the seconds until the next note. Raises: StoreUnavailable: Redis is away."""
        self._noted(self.this())
        return NOTE_SECONDS

    def all(self) -> list[RunningReplica]:
        """Note this replica, and return all, this one first and the others by their names.

        Raises:
            StoreUnavailable: Redis is away.
        """
        this = self.this()
        return sorted(self._noted(this), key=lambda one: (one.name != this.name, one.name))

    def _noted(self, this: RunningReplica) -> list[RunningReplica]:
        args = (self._now(), LIFE_SECONDS, this.name, this.to_json())
        found = self._runner.run([Call(script("replicas_note"), (KEY,), args)])[0]
        return [RunningReplica.from_json(name, text) for name, text in zip(found[::2], found[1::2], strict=True)]
