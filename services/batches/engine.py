"""The work on batches in one process: the search for free lanes with work, their workers, the renewal of their leases.

Each replica's sweep looks for work in SQL, and begins it on its share of the free lanes. A change that may give free
lanes work is announced in Redis, where every replica looks twice a second and then sweeps. So nothing depends on a
single announcement or replica: each may be lost.

A lane worker takes a lane, claims its item or the next one of any task, asks it, and stores the result. The lane's
lease in Redis belongs to one worker, its owner. If an owner is paused, killed or cut off, the database keeps the work
right: a lane has at most one running item, every worker of the lane gets that item first, and an attempt that ended
accepts no second end. So two workers that own one lane for a moment ask the same item once.
"""

from __future__ import annotations

import logging
import random
import secrets
import threading
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from math import ceil

from config.texts import Texts
from services import metrics
from services.batches.item import ItemAsker, Outcome
from services.batches.lanes_store import PROBE_SECONDS, BatchLanesStore, Pause
from services.batches.records import UNFINISHED, Claimed
from services.batches.store import SqlBatchStore
from services.errors import StoreUnavailable
from services.rounds import Rounds

log = logging.getLogger(__name__)

#: Seconds before an item's second attempt, doubled for each later one, and their maximum.
BACK_OFF = 1.0
BACK_OFF_MOST = 60.0
#: Seconds between attempts to store an item's end while the database is away: the first and the longest.
STORE_PAUSE = 0.25
STORE_PAUSE_MOST = 5.0


@dataclass(slots=True, eq=False)
class Lane:
    """A lane that this process holds."""

    number: int
    token: str = field(default_factory=lambda: secrets.token_hex(8), repr=False)
    #: Whether it has another owner now.
    lost: bool = False
    #: Whether the provider was busy shortly before the current item began.
    doubtful: bool = False
    #: The current item, and its stream's id once it is known.
    claimed: Claimed | None = None
    stream_id: str = ""


class LaneWorker:
    """The lanes of one process, each worked on in a thread of its own.

    `threads` is the maximal number of them, and `retried` is called when items wait for a retry, and when a pause ends
    early. A process works on its share of all lanes only; when another process starts, the share gets smaller, and the
    lanes above it are released after their items.
    """

    def __init__(
        self,
        store: SqlBatchStore,
        lanes: BatchLanesStore,
        asker: ItemAsker,
        *,
        texts: Texts,
        threads: int,
        retried: Callable[[], None],
        back_off: float = BACK_OFF,
        dice: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._store = store
        self._lanes = lanes
        self._asker = asker
        self._texts = texts
        self._retried = retried
        self._back_off = back_off
        self._dice = dice
        self._most = threads
        self._share = threads
        self._threads: set[threading.Thread] = set()
        self._held: dict[int, Lane] = {}
        self._leaving = False
        self._stopping = threading.Event()

    @property
    def busy(self) -> int:
        """Number of lanes held here."""
        return len(self._held)

    def begin(self, wanted: Collection[int], ended: Callable[[bool], None]) -> None:
        """Work on as many of the wanted lanes as this process's share has room for; return at once.

        `ended` is called at the end of each, with what `step` returned.
        """
        room = 0 if self._leaving else max(0, self._share - len(self._threads))
        free = sorted(set(wanted) - self._held.keys())
        # In random order: processes that look at the same time rarely choose the same lanes.
        for number in random.sample(free, min(room, len(free))):
            thread = threading.Thread(target=self._run, args=(number, ended), name=f"batch-lane-{number}", daemon=True)
            self._threads.add(thread)
            thread.start()

    def step(self, number: int) -> bool:
        """Work on a lane until it has no item, or this process leaves or has more than its share of the lanes.

        Return whether work may be left for other processes. Do nothing if the lane has another owner.
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

    def renew(self) -> None:
        """Renew the lanes held here, detect lost ones, and set this process's share of the lanes.

        Raises:
            StoreUnavailable: Redis is away; work on the lanes continues.
        """
        held = list(self._held.values())
        workers, lost = self._lanes.renew({lane.number: lane.token for lane in held}, leaving=self._leaving)
        self._share = min(self._most, ceil(self._lanes.lanes / max(1, workers)))
        for lane in held:
            if lane.number in lost:
                lane.lost = True
                log.warning("lane lost", extra={"lane": lane.number})
        # The renewal has taken lanes again that were released during it.
        if over := {lane.number: lane.token for lane in held if self._held.get(lane.number) is not lane}:
            self._lanes.release(over)

    def watch(self) -> None:
        """Stop running items whose task was cancelled: the canceller may not have found their streams.

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
        """Claim no more items; running ones are followed to their end."""
        self._leaving = True

    def stop(self) -> None:
        """Leave the running items to other replicas, as they are."""
        self._leaving = True
        self._stopping.set()

    def join(self, seconds: float) -> None:
        """Wait up to `seconds` for the threads of the lanes."""
        end = time.monotonic() + seconds
        for thread in list(self._threads):
            # One that `begin` has not started yet finds that this process leaves.
            if thread.is_alive():
                thread.join(max(0.0, end - time.monotonic()))

    def _run(self, number: int, ended: Callable[[bool], None]) -> None:
        try:
            left = self.step(number)
        except Exception:
            # The next sweep finds the lane free.
            log.exception("lane failed", extra={"lane": number})
            return
        finally:
            self._threads.discard(threading.current_thread())
        ended(left)

    def _take(self, lane: Lane) -> bool:
        try:
            if not self._lanes.take(lane.number, lane.token):
                return False
        except StoreUnavailable:
            # If the lane was taken, its lease runs out.
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
        while not lane.lost:
            if self._leaving or self.busy > self._share:
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
            # If an item was claimed, the lane is occupied: a sweep has it worked on when the database is back.
            return False
        return lane.claimed is not None

    def _paused(self) -> Pause:
        try:
            return self._lanes.paused()
        except StoreUnavailable:
            # Asking an item waits for Redis anyway.
            return Pause()

    def _do(self, lane: Lane) -> bool:
        """Ask the lane's item and store its end; return False if that is left to another worker."""
        assert lane.claimed is not None
        try:
            outcome = self._asker.ask(
                lane.claimed,
                going_on=lambda: not (lane.lost or self._stopping.is_set()),
                opened=partial(self._opened, lane, lane.claimed),
            )
        except Exception:
            log.exception("item failed", extra=_ids(lane.claimed))
            outcome = Outcome("answer_failed")
        done = outcome is not None and self._settle(lane, lane.claimed, outcome)
        if outcome and not outcome.code and lane.doubtful:
            # The provider is no longer busy: the pause ends for all lanes.
            with suppress(StoreUnavailable):
                self._lanes.go_on()
                self._retried()
        lane.claimed = None
        return done

    def _opened(self, lane: Lane, claimed: Claimed, stream_id: str) -> None:
        """Note an item's stream here and, to be removed with its task, in Redis; without that it ends by itself."""
        lane.stream_id = stream_id
        with suppress(StoreUnavailable):
            self._lanes.note_stream(claimed.task.task_id, stream_id)

    def _settle(self, lane: Lane, claimed: Claimed, outcome: Outcome) -> bool:
        """Store an item's end, also after an outage; return False if that is left to the lane's next owner."""
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
            ended = self._store.complete(claimed, **outcome.answer)
            self._note(claimed, "completed", ended=ended)
        elif outcome.retryable and outcome.retry_after and (seconds := self._lanes.pause(outcome.retry_after)):
            self._wait(claimed, outcome.code, seconds)
        elif outcome.retryable and claimed.tries < claimed.task.options.max_attempts:
            self._retry(claimed, outcome)
        else:
            ended = self._store.fail(claimed, outcome.code, self._texts.error(outcome.code), **outcome.answer)
            self._note(claimed, outcome.code, ended=ended)

    def _wait(self, claimed: Claimed, code: str, seconds: float) -> None:
        """Ask the item again when the provider wants, without counting an attempt."""
        if self._store.wait(claimed, seconds, code, self._texts.error(code)):
            metrics.BATCH_RETRIES.labels(code).inc()
            log.info("the provider is busy, items wait", extra={**_ids(claimed), "code": code, "seconds": seconds})
            self._retried()

    def _retry(self, claimed: Claimed, outcome: Outcome) -> None:
        """Ask the item again after a random back-off, so that not all items come at the same moment."""
        code, longest = outcome.code, min(BACK_OFF_MOST, self._back_off * 2 ** (claimed.tries - 1))
        after = max(outcome.retry_after, longest * self._dice(0.5, 1.0))
        if self._store.retry(claimed, after, code, self._texts.error(code)):
            metrics.BATCH_RETRIES.labels(code).inc()
            log.info("item asked again later", extra={**_ids(claimed), "code": code})
            self._retried()

    def _note(self, claimed: Claimed, outcome: str, *, ended: bool) -> None:
        if ended:
            metrics.BATCH_ITEMS.labels(outcome).inc()
            log.debug("item ended", extra={**_ids(claimed), "outcome": outcome})


def _ids(claimed: Claimed) -> dict[str, object]:
    return {"task_id": claimed.task.task_id, "index": claimed.index, "attempt": claimed.attempt}


#: Seconds between two sweeps for free lanes while there is work.
SWEEP_SECONDS = 5.0
#: Seconds between two looks whether another process has announced work.
NOTICE_SECONDS = 0.5
#: Seconds between two checks whether running items were cancelled on another replica.
WATCH_SECONDS = 2.0
#: Seconds between attempts to renew the lanes while Redis is away.
RENEW_PAUSE = 1.0
#: Seconds that a leaving process waits for its lane workers and for its own threads.
STOP_SECONDS = 3.0


class LaneEngine:
    """The threads that work on lanes; their methods may raise `StoreUnavailable`."""

    #: Called when a lane has found no more items: a task may have ended.
    _idle: Callable[[], None]

    def __init__(
        self,
        store: SqlBatchStore,
        lanes: BatchLanesStore,
        asker: ItemAsker,
        *,
        texts: Texts,
        threads: int,
    ) -> None:
        """Take the maximal number of lanes to work on at once, 0 if other processes do."""
        self._store = store
        self._lanes = lanes
        self._works = threads > 0
        self._worker = LaneWorker(store, lanes, asker, texts=texts, threads=threads, retried=self.announce)
        #: Set when this process has a change to announce; its next sweep does.
        self._changed = threading.Event()
        #: The announcement that this process noticed last.
        self._noticed = ""
        self._sweeps = Rounds("batch-sweep", self.sweep, pause=SWEEP_SECONDS)
        self._renewals = Rounds("batch-renew", self._renew, pause=RENEW_PAUSE)
        watches = Rounds("batch-watch", self._watch, pause=WATCH_SECONDS)
        notices = Rounds("batch-notice", self._notice, pause=NOTICE_SECONDS)
        self._rounds = (self._sweeps, *((self._renewals, watches, notices) if self._works else ()))
        self._started = False

    def start(self, idle: Callable[[], None]) -> None:
        """Start the threads; the database, its tables or Redis may become available later."""
        self._idle = idle
        self._started = True
        metrics.BATCH_LANES_MAX.set(self._lanes.lanes)
        for rounds in self._rounds:
            rounds.start()

    def leave(self) -> None:
        """Begin no new items here; running ones are followed to their end. Returns at once."""
        self._worker.leave()
        self._renewals.wake()

    def close(self) -> None:
        """Leave running items to other replicas, and end the threads within a few seconds."""
        self._worker.stop()
        self._worker.join(STOP_SECONDS)
        for rounds in self._rounds:
            rounds.stop()
        for rounds in self._rounds:
            rounds.join(STOP_SECONDS)
        if self._works and self._started:
            # All lanes are released by now, unless a thread hangs; this also removes the process from the workers.
            with suppress(StoreUnavailable):
                self._worker.renew()
                self._lanes.announce()

    def announce(self) -> None:
        """Have every process look for work: this one now, the others when they notice."""
        self._changed.set()
        self._sweeps.wake()

    def sweep(self) -> float:
        """Announce changes, and begin work on free lanes; return the seconds until the next sweep."""
        totals = self._store.totals()
        unfinished = sum(totals[status] for status in UNFINISHED)
        metrics.BATCH_TASKS_UNFINISHED.set(unfinished)
        if self._changed.is_set():
            self._changed.clear()
            try:
                self._lanes.announce()
            except StoreUnavailable:
                self._changed.set()
                raise
        if not self._works or not unfinished:
            return SWEEP_SECONDS
        wanted, seconds = self.wanted()
        self._worker.begin(wanted, self._lane_ended)
        return seconds

    def wanted(self) -> tuple[set[int], float]:
        """Return the free lanes that have work, and the seconds until the next look."""
        seen, pause = self._lanes.look(), self._lanes.paused()
        now, soon = self._store.runnable()
        wanted = seen.wanted(self._store.running_lanes(), pause, lanes=self._lanes.lanes, runnable=now)
        silent = self._lanes.grace if seen.suspect or seen.unsure else SWEEP_SECONDS
        due = PROBE_SECONDS if pause.probing else pause.seconds or SWEEP_SECONDS
        return wanted, min(SWEEP_SECONDS, silent, due, SWEEP_SECONDS if soon is None else soon)

    def _notice(self) -> float:
        announced = self._lanes.announced()
        if announced != self._noticed:
            self._noticed = announced
            self._sweeps.wake()
        return NOTICE_SECONDS

    def _lane_ended(self, left: bool) -> None:
        if left:
            self.announce()
        else:
            # A task may have arrived after the worker's last look and before the lane was released.
            self._sweeps.wake()
            self._idle()

    def _renew(self) -> float:
        self._worker.renew()
        return self._lanes.lease / 3

    def _watch(self) -> float:
        self._worker.watch()
        return WATCH_SECONDS
