"""The lanes of batches: one for each item that may run at once over all replicas, each held by one worker at a time.
Beside them the streams in which the items of a task were asked, which are removed with the task.

    {dify_batch}:lanes           sorted set, lane number by the end of its lease
    {dify_batch}:lane_owners     hash, lane number → its owner's token
    {dify_batch}:lane_suspects   hash, lane number → when its lease was seen to be over; since → creation of the hash
    {dify_batch}:workers         sorted set, name of a worker process by its last renewal
    {dify_batch}:announced       string, another random value after each change that may give free lanes work
    {dify_batch}:pause           hash while the provider is busy: ends, since, rounds
    {dify_batch}:streams:<task>  set, ids of the streams of a task's items; as long as the latest stream

Times are seconds by Redis's clock. A lapsed lane can be taken only if its owner stays silent for the grace as well:
after an outage of Redis all leases are over, and living owners renew first. A lane is a limit and no fence: the
database ensures that no item is asked twice at a time, with at most one running item per lane.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from math import ceil

from services.redis.store import Call, ScriptRunner, script

LANES, OWNERS, SUSPECTS, WORKERS, PAUSE, ANNOUNCED = (
    f"{{dify_batch}}:{part}" for part in ("lanes", "lane_owners", "lane_suspects", "workers", "pause", "announced")
)

#: Stream ids that are taken out of a task's set at once.
STREAMS_AT_ONCE = 500
#: Seconds a lane or a worker counts after its last renewal, and the grace after that in which its owner may renew.
LEASE = 10.0
GRACE = 3.0
#: Seconds after which the keys of unused lanes expire.
LIFE = 3600.0
#: Maximal seconds of our own back-off between rounds while the provider stays busy: 1, 2, 4 … up to this.
OWN_WAIT_MOST = 60.0
#: Seconds of a busy provider, from its first error on, after which items fail as with other errors.
BUSY_SECONDS = 3600.0
#: Seconds after a pause in which a single item tests whether the provider is still busy.
PROBE_SECONDS = 10.0
#: Seconds for which an ended pause is remembered, so that the next one is longer.
PAUSE_MEMORY = 600.0


@dataclass(frozen=True, slots=True)
class Pause:
    """Whether items may begin."""

    #: Seconds until items may begin, 0.0 for now.
    seconds: float = 0.0
    #: Whether the provider was busy recently: an answer would show that it no longer is.
    doubtful: bool = False
    #: Whether only one item at a time may begin, to test the provider.
    probing: bool = False


@dataclass(frozen=True, slots=True)
class LanesSeen:
    """The state of the lanes."""

    #: Lanes that can be taken now.
    free: tuple[int, ...] = ()
    held: int = 0
    #: Number of lanes whose owner is silent but may still renew.
    suspect: int = 0
    #: Whether Redis has known the lanes only for moments: a lane that looks free may have an owner.
    unsure: bool = False
    #: Processes that work on batches.
    workers: int = 0

    def wanted(self, occupied: Collection[int], pause: Pause, *, lanes: int, runnable: bool) -> set[int]:
        """Return the free lanes that a worker should take now.

        `occupied` are the lanes with a running item, `lanes` how many lanes there are, `runnable` whether an item
        waits. While the provider is busy only occupied lanes are wanted; right after the pause one lane more, whose
        item finds out whether the others may continue.
        """
        if pause.seconds or pause.probing:
            under_way = set() if self.unsure else set(self.free) & set(occupied)
            probes = runnable and pause.probing and not (self.held or self.suspect or occupied)
            return under_way | (set(self.free[:1]) if probes else set())
        if self.unsure:
            # The worker of a running item may still hold its lane while Redis lacks both lane and stream: another
            # worker would ask the item once more.
            return set(self.free) - set(occupied) if runnable else set()
        wanted = {lane for lane in self.free if runnable or lane in occupied}
        if self.free and any(lane >= lanes for lane in occupied):
            # Items of lanes that no longer exist are taken over by the worker of any other lane.
            wanted.add(self.free[0])
        return wanted


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
        stream_ttl: float = 1800.0,
        now: str = "",
    ) -> None:
        """Take the number of lanes, this process's name, and the seconds that an item's stream lives.

        Tests set `now`, "" is Redis's clock.
        """
        self._runner = runner
        self.lanes = lanes
        self.lease = lease
        self.grace = grace
        self._worker = worker
        self._stream_ttl = stream_ttl
        self.now = now

    def take(self, lane: int, token: str) -> bool:
        """Take a lane; `False` if it has another owner. Works again for the same token, if the reply was lost."""
        args = (self.now, self.lease, self.grace, LIFE, lane, token)
        return bool(self._runner.run([Call(script("lane_take"), (LANES, OWNERS, SUSPECTS), args)])[0])

    def renew(self, held: Mapping[int, str], *, leaving: bool = False) -> tuple[int, list[int]]:
        """Renew lanes by their tokens; return the number of living workers, and the lanes with another owner.

        A leaving process is no longer counted: the others share the lanes.
        """
        words = (word for pair in held.items() for word in pair)
        args = (self.now, self.lease, LIFE, self._worker, 0 if leaving else 1, *words)
        workers, *lost = self._runner.run([Call(script("lane_renew"), (LANES, OWNERS, SUSPECTS, WORKERS), args)])[0]
        return workers, lost

    def release(self, held: Mapping[int, str]) -> int:
        """Release lanes; return how many the caller still held."""
        args = tuple(word for pair in held.items() for word in pair)
        return int(self._runner.run([Call(script("lane_release"), (LANES, OWNERS, SUSPECTS), args)])[0])

    def look(self) -> LanesSeen:
        """Return the state of the lanes, and mark those whose owners are silent."""
        args = (self.now, self.lease, self.grace, LIFE, self.lanes)
        call = Call(script("lane_look"), (LANES, OWNERS, SUSPECTS, WORKERS), args)
        workers, held, suspect, unsure, *free = self._runner.run([call])[0]
        return LanesSeen(tuple(free), held, suspect, bool(unsure), workers)

    def announce(self) -> None:
        """Let every process notice by `announced` that free lanes may have work."""
        self._runner.run([Call(None, ("SET", ANNOUNCED, secrets.token_hex(8), "EX", ceil(LIFE)))])

    def announced(self) -> str:
        """Return a value that is another one after each `announce`; "" if there was none for an hour."""
        return self._runner.run([Call(None, ("GET", ANNOUNCED))])[0] or ""

    def pause(self, seconds: float) -> float:
        """Begin no items on any replica for as long as the provider asks; return the seconds.

        Return 0.0 if it has been busy for `BUSY_SECONDS`: then there is no pause.
        """
        args = (self.now, seconds, OWN_WAIT_MOST, BUSY_SECONDS, PAUSE_MEMORY)
        return float(self._runner.run([Call(script("batch_pause"), (PAUSE,), args)])[0] / 1000)

    def paused(self) -> Pause:
        """Return whether items may begin."""
        left, known = self._runner.run([Call(script("batch_paused"), (PAUSE,), (self.now,))])[0]
        seconds = left / 1000
        return Pause(max(0.0, seconds), bool(known), bool(known) and -PROBE_SECONDS < seconds <= 0.0)

    def go_on(self) -> None:
        """End the pause: the provider answered an item."""
        self._runner.run([Call(None, ("DEL", PAUSE))])

    def note_stream(self, task_id: str, stream_id: str) -> None:
        """Note a stream of a task's item, to be removed with the task."""
        key, seconds = _streams_key(task_id), ceil(self._stream_ttl)
        self._runner.run([Call(None, ("SADD", key), (stream_id,)), Call(None, ("EXPIRE", key), (seconds,))])

    def take_streams(self, task_id: str) -> list[str]:
        """Return some streams of a task's items, and forget them; [] if there are no more."""
        return list(self._runner.run([Call(None, ("SPOP", _streams_key(task_id)), (STREAMS_AT_ONCE,))])[0] or ())


def _streams_key(task_id: str) -> str:
    return f"{{dify_batch}}:streams:{task_id}"
