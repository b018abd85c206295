"""The lanes of batches: as many as items may be asked at once over all replicas, each worked by one holder at a time.

    {dify_batch}:lanes           sorted set, lane number by the end of its lease
    {dify_batch}:lane_owners     hash, lane number → its holder's token
    {dify_batch}:lane_suspects   hash, lane number → when its lease was seen to be over; since → when all this began
    {dify_batch}:workers         sorted set, name of a process that works on batches by its last renewal
    {dify_batch}:pause           hash, while the provider is busy: ends, since, rounds

Times are seconds by Redis's clock. A lapsed lane can be taken only when its holder stays silent for the grace as well:
after an outage of Redis all leases are over, and holders that outlived it renew first. A lane is a bound and no fence:
that no item is asked twice at a time rests on the database, which has one running item per lane at the most.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from services.redis.store import Call, ScriptRunner, script

LANES, OWNERS, SUSPECTS, WORKERS, PAUSE = (
    f"{{dify_batch}}:{part}" for part in ("lanes", "lane_owners", "lane_suspects", "workers", "pause")
)

#: Seconds a lane, or a worker, counts after its last renewal, and how long its silence is borne beyond that.
LEASE = 10.0
GRACE = 3.0
#: Seconds after which nothing is left of lanes that nobody works.
LIFE = 3600.0
#: Seconds that are waited at least from one round to the next while the provider stays busy: 1, 2, 4 … up to these.
OWN_WAIT_MOST = 60.0
#: Seconds of a provider that is busy, from its first refusal on, after which its items fail as others do.
BUSY_SECONDS = 3600.0
#: Seconds after a pause in which one item alone finds out whether the provider is still busy.
PROBE_SECONDS = 10.0
#: Seconds that an ended pause is remembered, to wait longer the next time.
PAUSE_MEMORY = 600.0


@dataclass(frozen=True, slots=True)
class Pause:
    """Whether items may be begun."""

    #: Seconds until then, 0.0 for now.
    seconds: float = 0.0
    #: The provider was busy a moment ago, or is: an answer would show that it is not.
    doubtful: bool = False
    #: One item at a time, until that is known.
    probing: bool = False


@dataclass(frozen=True, slots=True)
class LanesSeen:
    """How the lanes stand."""

    #: Lanes that can be taken now.
    free: tuple[int, ...] = ()
    held: int = 0
    #: Lanes whose holder is silent, and may yet renew.
    suspect: int = 0
    #: Redis knows of lanes only since a moment ago: one it calls free may have a holder that has yet to renew.
    unsure: bool = False
    #: Processes that work on batches.
    workers: int = 0


class BatchLanesStore:
    """Owns the keys above. Every method is one round trip and may raise `StoreUnavailable`."""

    def __init__(
        self,
        runner: ScriptRunner,
        *,
        lanes: int,
        worker: str = "",
        lease: float = LEASE,
        grace: float = GRACE,
        now: str = "",
    ) -> None:
        """Take how many lanes there are and this process's name; `now` is Redis's time unless a test owns it."""
        self._runner = runner
        self.lanes = lanes
        self.lease = lease
        self.grace = grace
        self._worker = worker
        self.now = now

    def take(self, lane: int, token: str) -> bool:
        """Take a lane, also when the reply to taking it was lost; `False` when another holds it."""
        args = (self.now, self.lease, self.grace, LIFE, lane, token)
        return bool(self._runner.run([Call(script("lane_take"), (LANES, OWNERS, SUSPECTS), args)])[0])

    def renew(self, held: Mapping[int, str], *, leaving: bool = False) -> tuple[int, list[int]]:
        """Keep these lanes, by their tokens; return how many workers live, and the lanes that are another's by now.

        One that is leaving counts no more: the others share what it does not take.
        """
        words = (word for pair in held.items() for word in pair)
        args = (self.now, self.lease, LIFE, self._worker, 0 if leaving else 1, *words)
        workers, *lost = self._runner.run([Call(script("lane_renew"), (LANES, OWNERS, SUSPECTS, WORKERS), args)])[0]
        return workers, lost

    def release(self, held: Mapping[int, str]) -> int:
        """Give lanes back; return how many were still the caller's."""
        args = tuple(word for pair in held.items() for word in pair)
        return int(self._runner.run([Call(script("lane_release"), (LANES, OWNERS, SUSPECTS), args)])[0])

    def look(self) -> LanesSeen:
        """Return how the lanes stand, and mark those whose holders are silent."""
        args = (self.now, self.lease, self.grace, LIFE, self.lanes)
        call = Call(script("lane_look"), (LANES, OWNERS, SUSPECTS, WORKERS), args)
        workers, held, suspect, unsure, *free = self._runner.run([call])[0]
        return LanesSeen(tuple(free), held, suspect, bool(unsure), workers)

    def pause(self, seconds: float) -> float:
        """Have no more items begun, on any replica, for as long as the provider asks; return for how many seconds.

        0.0 where it has been busy for `BUSY_SECONDS`: then nothing is waited for any more.
        """
        args = (self.now, seconds, OWN_WAIT_MOST, BUSY_SECONDS, PAUSE_MEMORY)
        return float(self._runner.run([Call(script("batch_pause"), (PAUSE,), args)])[0] / 1000)

    def paused(self) -> Pause:
        """Return whether items may be begun."""
        left, known = self._runner.run([Call(script("batch_paused"), (PAUSE,), (self.now,))])[0]
        seconds = left / 1000
        return Pause(max(0.0, seconds), bool(known), bool(known) and -PROBE_SECONDS < seconds <= 0.0)

    def go_on(self) -> None:
        """Have items begun again: the provider answered one."""
        self._runner.run([Call(None, ("DEL", PAUSE))])
