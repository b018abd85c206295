"""The lanes of batches: as many as items may be asked at once over all replicas, each worked by one holder at a time.

    {dify_batch}:lanes           sorted set, lane number by the end of its lease
    {dify_batch}:lane_owners     hash, lane number → its holder's token
    {dify_batch}:lane_suspects   hash, lane number → when its lease was seen to be over; since → when all this began
    {dify_batch}:workers         sorted set, name of a process that works on batches by its last renewal

Times are seconds by Redis's clock. A lapsed lane can be taken only when its holder stays silent for the grace as well:
after an outage of Redis all leases are over, and holders that outlived it renew first. A lane is a bound and no fence:
that no item is asked twice at a time rests on the database, which has one running item per lane at the most.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from services.redis_store import Call, ScriptRunner, script

LANES, OWNERS, SUSPECTS, WORKERS = (
    f"{{dify_batch}}:{part}" for part in ("lanes", "lane_owners", "lane_suspects", "workers")
)

#: Seconds a lane, or a worker, counts after its last renewal, and how long its silence is borne beyond that.
LEASE = 10.0
GRACE = 3.0
#: Seconds after which nothing is left of lanes that nobody works.
LIFE = 3600.0


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
