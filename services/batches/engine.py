"""The work on batches in one process: the search for free lanes with work, their workers, the renewal of their leases.

Each replica's sweep looks for work in SQL, and begins it on its share of the free lanes. A change that may give free
lanes work is announced in Redis, where every replica looks twice a second and then sweeps. So nothing depends on a
single announcement or replica: each may be lost.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress

from config.texts import Texts
from services import metrics
from services.batches.item import ItemAsker
from services.batches.lanes_store import PROBE_SECONDS, BatchLanesStore
from services.batches.records import UNFINISHED
from services.batches.store import SqlBatchStore
from services.batches.worker import LaneWorker
from services.errors import StoreUnavailable
from services.rounds import Rounds

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
