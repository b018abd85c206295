"""The work on batches in one process: messages for free lanes, the workers that take them, the renewal of their leases.

Every replica's sweep looks for work in SQL and sends messages for free lanes. So nothing depends on a single message,
wake-up or replica: each may be lost.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from math import ceil

from config.errors import SettingsError
from config.texts import Texts
from services import metrics
from services.batches.broker import POLL, LaneMessages
from services.batches.item import ItemAsker
from services.batches.lanes_store import PROBE_SECONDS, BatchLanesStore
from services.batches.records import UNFINISHED
from services.batches.store import SqlBatchStore
from services.batches.worker import LaneWorker
from services.errors import StoreUnavailable
from services.redis.store import ScriptRunner
from services.rounds import Rounds

log = logging.getLogger(__name__)

#: Seconds between two sweeps for free lanes while there is work.
SWEEP_SECONDS = 5.0
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
        runner: ScriptRunner,
        *,
        texts: Texts,
        threads: int,
        poll: float = POLL,
    ) -> None:
        """Take the runner of the batches' Redis and the number of lanes to work on at once, 0 if other processes do.

        `poll` is the maximal number of seconds between two looks for messages.
        """
        self._store = store
        self._lanes = lanes
        self._works = threads > 0
        self._worker = LaneWorker(store, lanes, asker, texts=texts, retried=self.wake)
        self._messages = LaneMessages(runner, self._step, threads=threads, poll=poll)
        self._sweeps = Rounds("batch-sweep", self.sweep, pause=SWEEP_SECONDS)
        self._renewals = Rounds("batch-renew", self._renew, pause=RENEW_PAUSE)
        watches = Rounds("batch-watch", self._watch, pause=WATCH_SECONDS)
        self._rounds = (self._sweeps, *((self._renewals, watches) if self._works else ()))
        self._prepared = False
        #: Whether the missing tables were logged.
        self._lacking = False

    def start(self, idle: Callable[[], None]) -> None:
        """Start the threads; the database, its tables or Redis may become available later."""
        self._idle = idle
        with suppress(StoreUnavailable):
            self.prepare()
        metrics.BATCH_LANES_MAX.set(self._lanes.lanes)
        if self._works:
            self._messages.start()
        for rounds in self._rounds:
            rounds.start()

    def leave(self) -> None:
        """Begin no new items here; running ones are followed to their end. Returns at once."""
        self._worker.leave()
        self._messages.leave()
        self._renewals.wake()

    def close(self) -> None:
        """Leave running items to other replicas, and end the threads within a few seconds."""
        self._worker.stop()
        self._messages.stop(STOP_SECONDS)
        for rounds in self._rounds:
            rounds.stop()
        for rounds in self._rounds:
            rounds.join(STOP_SECONDS)
        if self._works:
            # All lanes are released by now, unless a thread hangs; this also removes the process from the workers.
            with suppress(StoreUnavailable):
                self._worker.renew()

    def wake(self) -> None:
        """Look for work now."""
        self._sweeps.wake()

    def prepare(self) -> None:
        """Create missing tables, once. Without tables there are no batches, but the other channels go on."""
        if self._prepared:
            return
        try:
            self._store.prepare()
        except SettingsError as exc:
            if not self._lacking:
                log.error("there are no batches", extra={"cause": str(exc)})
            self._lacking = True
            raise StoreUnavailable(str(exc)) from exc
        self._prepared = True

    def sweep(self) -> float:
        """Send messages for free lanes while there is work; return the seconds until the next sweep."""
        self.prepare()
        totals = self._store.totals()
        unfinished = sum(totals[status] for status in UNFINISHED)
        metrics.BATCH_TASKS_UNFINISHED.set(unfinished)
        if not unfinished:
            return SWEEP_SECONDS
        seen, pause = self._lanes.look(), self._lanes.paused()
        now, soon = self._store.runnable()
        wanted = seen.wanted(self._store.running_lanes(), pause, lanes=self._lanes.lanes, runnable=now)
        # A full queue means that no worker is fetching; its messages wait until one does.
        if wanted and self._messages.waiting() < self._lanes.lanes:
            for lane in sorted(wanted):
                self._messages.send(lane)
        silent = self._lanes.grace if seen.suspect or seen.unsure else SWEEP_SECONDS
        due = PROBE_SECONDS if pause.probing else pause.seconds or SWEEP_SECONDS
        return min(SWEEP_SECONDS, silent, due, SWEEP_SECONDS if soon is None else soon)

    def _step(self, lane: int) -> None:
        """Work on a lane for a while, and send a message if work is left; dramatiq calls this in its threads."""
        if self._worker.step(lane):
            with suppress(StoreUnavailable):
                self._messages.send(lane)
        else:
            # A task may have arrived after the worker's last look and before the lane was released.
            self.wake()
            self._idle()

    def _renew(self) -> float:
        workers = self._worker.renew()
        self._messages.share(ceil(self._lanes.lanes / max(1, workers)))
        return self._lanes.lease / 3

    def _watch(self) -> float:
        self._worker.watch()
        return WATCH_SECONDS
