"""Works lanes: takes one, claims its item or the next one of any task, asks it to the end, and stores what it came to.

The lane's lease in Redis says who works it. What happens when a holder is paused, killed or cut off rests on the
database: a lane has one running item at the most, whoever claims for the lane gets that one first, and an attempt that
ended takes no second end. So two holders of one lane, for a moment, do the same work and not twice the work.
"""

from __future__ import annotations

import logging
import random
import secrets
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from services import metrics
from services.batches.item import ItemAsker, Outcome
from services.batches.lanes_store import BatchLanesStore, Pause
from services.batches.records import Claimed
from services.batches.store import SqlBatchStore
from services.errors import StoreUnavailable

log = logging.getLogger(__name__)

#: Seconds one message works a lane; then the lane is anybody's, and a new replica gets its share.
STEP_SECONDS = 10.0
#: Seconds before an item's second attempt; each later one waits twice as long, up to the last.
BACK_OFF = 1.0
BACK_OFF_MOST = 60.0
#: Seconds between tries to store an item's end while the database is away: the first, and the longest.
STORE_PAUSE = 0.25
STORE_PAUSE_MOST = 5.0


@dataclass(slots=True, eq=False)
class Lane:
    """A lane this process holds."""

    number: int
    token: str = field(default_factory=lambda: secrets.token_hex(8), repr=False)
    #: Another has it by now.
    lost: bool = False
    #: Whether the provider was busy a moment before the item under way was begun.
    doubtful: bool = False
    #: The item under way, and its stream once it is known.
    claimed: Claimed | None = None
    stream_id: str = ""


class LaneWorker:
    """The lanes of one process. `retried` is called when an item waits for its next attempt, or others need not."""

    def __init__(
        self,
        store: SqlBatchStore,
        lanes: BatchLanesStore,
        asker: ItemAsker,
        *,
        sentence: Callable[[str], str],
        retried: Callable[[], None] = lambda: None,
        step_seconds: float = STEP_SECONDS,
        back_off: float = BACK_OFF,
        dice: Callable[[float, float], float] = random.uniform,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._lanes = lanes
        self._asker = asker
        self._sentence = sentence
        self._retried = retried
        self._step_seconds = step_seconds
        self._back_off = back_off
        self._dice = dice
        self._clock = clock
        self._held: dict[int, Lane] = {}
        self._leaving = False
        self._stopping = threading.Event()

    @property
    def busy(self) -> int:
        """How many lanes are worked here."""
        return len(self._held)

    def step(self, number: int) -> bool:
        """Work a lane for a while; return whether it has more to do, so that somebody must be told.

        Nothing is done where another holds it.
        """
        if number >= self._lanes.lanes:
            return False
        if self._leaving:
            return True
        lane = Lane(number)
        if not self._take(lane):
            return False
        try:
            return self._work(lane)
        finally:
            self._give_back(lane)

    def renew(self) -> int:
        """Keep the lanes held here, and learn which are another's by now; return how many workers live.

        Raises:
            StoreUnavailable: Redis is away; holders go on.
        """
        held = list(self._held.values())
        workers, lost = self._lanes.renew({lane.number: lane.token for lane in held}, leaving=self._leaving)
        for lane in held:
            if lane.number in lost:
                lane.lost = True
                log.warning("lane lost", extra={"lane": lane.number})
        # What was given back meanwhile was taken again by that.
        if over := {lane.number: lane.token for lane in held if self._held.get(lane.number) is not lane}:
            self._lanes.release(over)
        return workers

    def watch(self) -> None:
        """Stop the items under way here whose task was cancelled: whoever did may not have seen their streams.

        Raises:
            StoreUnavailable: the database or Redis is away.
        """
        running = [(lane, lane.claimed) for lane in list(self._held.values()) if lane.claimed]
        if not running:
            return
        ended = self._store.ended({claimed.task.task_id for _, claimed in running})
        for lane, claimed in running:
            if claimed.task.task_id in ended and lane.claimed is claimed and lane.stream_id:
                self._asker.cancel(claimed.task, lane.stream_id)

    def leave(self) -> None:
        """Claim no more items; those under way are followed on."""
        self._leaving = True

    def stop(self) -> None:
        """Leave the items under way to others, as they are."""
        self._leaving = True
        self._stopping.set()

    def _take(self, lane: Lane) -> bool:
        try:
            if not self._lanes.take(lane.number, lane.token):
                return False
        except StoreUnavailable:
            # If it was taken, it lapses.
            return False
        self._held[lane.number] = lane
        metrics.BATCH_LANES_BUSY.inc()
        return True

    def _give_back(self, lane: Lane) -> None:
        self._held.pop(lane.number, None)
        metrics.BATCH_LANES_BUSY.dec()
        with suppress(StoreUnavailable):
            self._lanes.release({lane.number: lane.token})

    def _work(self, lane: Lane) -> bool:
        """Do the lane's items until there are none, its time is over, or this process leaves."""
        end = self._clock() + self._step_seconds
        while not lane.lost:
            if self._leaving or self._clock() >= end:
                return True
            if not self._next(lane):
                return False
            if not self._do(lane):
                return not lane.lost
        return False

    def _next(self, lane: Lane) -> bool:
        pause = self._paused()
        lane.stream_id, lane.claimed, lane.doubtful = "", None, pause.doubtful
        claim = self._store.claim_again if pause.seconds else self._store.claim
        try:
            lane.claimed = claim(lane.number, lanes=self._lanes.lanes)
        except StoreUnavailable:
            # What it may have claimed is running in this lane: the sweep has the lane worked when the database is back.
            return False
        return lane.claimed is not None

    def _paused(self) -> Pause:
        try:
            return self._lanes.paused()
        except StoreUnavailable:
            # Whoever asks an item now waits for Redis anyway.
            return Pause()

    def _do(self, lane: Lane) -> bool:
        """Ask the lane's item and store its end; return False where it was given up."""
        assert lane.claimed is not None
        try:
            outcome = self._asker.ask(
                lane.claimed,
                going_on=lambda: not (lane.lost or self._stopping.is_set()),
                opened=lambda stream_id: setattr(lane, "stream_id", stream_id),
            )
        except Exception:
            log.exception("item failed", extra=_ids(lane.claimed))
            outcome = Outcome("answer_failed")
        done = outcome is not None and self._settle(lane, lane.claimed, outcome)
        if outcome and not outcome.code and lane.doubtful:
            self._go_on()
        lane.claimed = None
        return done

    def _go_on(self) -> None:
        """Have all lanes begin items again: the provider is not busy any more."""
        with suppress(StoreUnavailable):
            self._lanes.go_on()
            self._retried()

    def _settle(self, lane: Lane, claimed: Claimed, outcome: Outcome) -> bool:
        """Store an item's end, waiting through an outage; return False where that is left to the lane's next holder."""
        pause = STORE_PAUSE
        while True:
            try:
                self._store_end(claimed, outcome)
                return True
            except StoreUnavailable as exc:
                log.debug("item's end not stored yet", extra={**_ids(claimed), "cause": str(exc)})
            if lane.lost or self._stopping.wait(pause):
                return False
            pause = min(STORE_PAUSE_MOST, 2 * pause)

    def _store_end(self, claimed: Claimed, outcome: Outcome) -> None:
        if not outcome.code:
            ended = self._store.complete(claimed, **outcome.said)
            self._note(claimed, "completed", ended=ended)
        elif outcome.retryable and outcome.retry_after and (seconds := self._lanes.pause(outcome.retry_after)):
            self._wait(claimed, outcome.code, seconds)
        elif outcome.retryable and claimed.tries < claimed.task.options.max_attempts:
            self._retry(claimed, outcome)
        else:
            ended = self._store.fail(claimed, outcome.code, self._sentence(outcome.code), **outcome.said)
            self._note(claimed, outcome.code, ended=ended)

    def _wait(self, claimed: Claimed, code: str, seconds: float) -> None:
        """Have the item asked again when the provider wants to be asked, which costs it no attempt."""
        if self._store.wait(claimed, seconds, code, self._sentence(code)):
            metrics.BATCH_RETRIES.labels(code).inc()
            log.info("the provider is busy, items wait", extra={**_ids(claimed), "code": code, "seconds": seconds})
            self._retried()

    def _retry(self, claimed: Claimed, outcome: Outcome) -> None:
        """Have the item asked again later, not all of them in the same moment."""
        code, longest = outcome.code, min(BACK_OFF_MOST, self._back_off * 2 ** (claimed.tries - 1))
        after = max(outcome.retry_after, longest * self._dice(0.5, 1.0))
        if self._store.retry(claimed, after, code, self._sentence(code)):
            metrics.BATCH_RETRIES.labels(code).inc()
            log.info("item asked again later", extra={**_ids(claimed), "code": code})
            self._retried()

    def _note(self, claimed: Claimed, outcome: str, *, ended: bool) -> None:
        if ended:
            metrics.BATCH_ITEMS.labels(outcome).inc()
            log.debug("item ended", extra={**_ids(claimed), "outcome": outcome})


def _ids(claimed: Claimed) -> dict[str, object]:
    return {"task_id": claimed.task.task_id, "index": claimed.index, "attempt": claimed.attempt}
