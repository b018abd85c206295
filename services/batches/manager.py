"""Batches: takes tasks in, shows and changes them, and has their items worked, on any replica.

Tasks are in SQL. What is to be done is found there by every replica's sweep, which sends messages for the lanes that
are free; so nothing rests on a message, a wake-up or a replica: each may be lost.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from math import ceil

from services import metrics
from services.answers.gateway import Gateway
from services.batches.archive import TIDY_SECONDS, BatchArchive, all_rows
from services.batches.broker import LaneMessages
from services.batches.item import ItemAsker
from services.batches.lanes_store import PROBE_SECONDS, BatchLanesStore, LanesSeen, Pause
from services.batches.records import UNFINISHED, BatchOptions, Item, Order, Task, TaskStatus
from services.batches.rounds import Rounds
from services.batches.store import SqlBatchStore
from services.batches.worker import LaneWorker
from services.errors import LaibaoError, SettingsError, StoreUnavailable
from services.redis.lock_store import LockStore
from services.redis.store import ScriptRunner

log = logging.getLogger(__name__)

#: Seconds between two looks for lanes that should be worked and are not.
SWEEP_SECONDS = 5.0
#: Seconds between two looks whether what is asked here was cancelled elsewhere.
WATCH_SECONDS = 2.0
#: Seconds between tries to renew the lanes while Redis is away.
RENEW_PAUSE = 1.0
#: Seconds a leaving process gives those that work lanes, and its own threads, to see it.
STOP_SECONDS = 3.0
#: Items of a cancelled task that are stopped before its canceller is answered; the others are by their workers' watch.
STOPPED_AT_ONCE = 50


@dataclass(frozen=True, slots=True)
class BatchStatus:
    """How batches stand, over all replicas."""

    #: Processes that work on batches.
    workers: int
    #: Items that may be asked at once, and those that are.
    max_concurrent: int
    running_items: int
    #: Tasks by their status.
    totals: Mapping[TaskStatus, int]
    #: Unfinished tasks that may be.
    max_size: int

    @property
    def is_running(self) -> bool:
        return self.workers > 0

    @property
    def unfinished(self) -> int:
        return sum(self.totals.get(status, 0) for status in UNFINISHED)

    @property
    def available_slots(self) -> int:
        return max(0, self.max_size - self.unfinished)


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """How much is worked at the same time."""

    #: Items that all replicas together ask at once: the number of lanes.
    max_concurrent: int
    #: Tasks that may be unfinished.
    max_queue_size: int
    #: Lanes that this process works at once.
    threads: int
    #: Whether this process works lanes; else others do.
    works: bool = True


@dataclass(frozen=True, slots=True)
class Retention:
    """Where finished tasks go."""

    #: The folder their files are written into; None for no files.
    folder: str | None = None
    #: Days after its end for which a task stays in the store.
    days: float = 7.0


class BatchManager:
    """All that channels need of batches, and the threads that work them. Every method may raise `StoreUnavailable`."""

    def __init__(
        self,
        store: SqlBatchStore,
        gateway: Gateway,
        *,
        runner: ScriptRunner,
        limits: BatchLimits,
        sentence: Callable[[str], str],
        replica: str,
        retention: Retention = Retention(),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take the store, the gateway, and the runner of the batches' Redis; `replica` names this process."""
        self._store = store
        self._max_concurrent = limits.max_concurrent
        self._max_queue_size = limits.max_queue_size
        self._works = limits.works
        self._asker = ItemAsker(gateway, clock=clock)
        self._lanes = BatchLanesStore(runner, lanes=limits.max_concurrent, worker=replica)
        self._worker = LaneWorker(
            store, self._lanes, self._asker, sentence=sentence, retried=lambda: self._sweeps.wake(), clock=clock
        )
        self._messages = LaneMessages(runner, self._step, threads=limits.threads)
        archive = BatchArchive(
            store, LockStore(runner), folder=retention.folder, retention_days=retention.days, clock=clock
        )
        self._sweeps = Rounds("batch-sweep", self.sweep, pause=SWEEP_SECONDS)
        self._tidies = Rounds("batch-tidy", archive.tidy, pause=TIDY_SECONDS)
        self._renewals = Rounds("batch-renew", self._renew, pause=RENEW_PAUSE)
        watches = Rounds("batch-watch", self._watch, pause=WATCH_SECONDS)
        self._rounds = (self._sweeps, self._tidies, *((self._renewals, watches) if limits.works else ()))
        self._prepared = False
        #: The tables cannot be had, which was said.
        self._lacking = False

    def start(self) -> None:
        """Start working; a database or Redis that is away now may come later, and so may tables that are missing."""
        with suppress(StoreUnavailable):
            self._prepare()
        metrics.BATCH_LANES_MAX.set(self._max_concurrent)
        metrics.BATCH_TASKS_MAX.set(self._max_queue_size)
        if self._works:
            self._messages.start()
        for rounds in self._rounds:
            rounds.start()

    def leave(self) -> None:
        """Begin nothing new here; what is under way is followed on. Returns at once."""
        self._worker.leave()
        self._messages.leave()
        self._renewals.wake()

    def close(self) -> None:
        """Leave what is still under way to other replicas, and end the threads, within a few seconds."""
        self._worker.stop()
        self._messages.stop(STOP_SECONDS)
        for rounds in self._rounds:
            rounds.stop()
        for rounds in self._rounds:
            rounds.join(STOP_SECONDS)
        if self._works:
            # Given up by now, all of them, unless a thread hangs; and this process counts no more.
            with suppress(StoreUnavailable):
                self._worker.renew()

    def submit(
        self,
        *,
        owner: str,
        name: str,
        texts: Sequence[str],
        credential: str = "",
        description: str = "",
        options: BatchOptions | None = None,
        key: str = "",
    ) -> tuple[Task, bool]:
        """Take a task in; return it, and whether it is new: the same `key` stands for the same task.

        Raises:
            BatchQueueFull, BatchConflict: as the store says.
        """
        options = options or BatchOptions()
        try:
            task, created = self._store.create(
                owner=owner,
                name=name,
                description=description,
                options=options,
                texts=texts,
                credential=credential,
                key=key,
                digest=_digest(name, description, options, texts) if key else "",
            )
        except LaibaoError as exc:
            metrics.BATCH_REFUSED.labels(exc.code).inc()
            raise
        if created:
            log.info("batch task taken", extra={"task_id": task.task_id, "items": task.total})
            self._sweeps.wake()
        return task, created

    def get(self, task_id: str, owner: str) -> Task:
        """Return the owner's task; raises `BatchUnknown`."""
        return self._store.get(task_id, owner)

    def look_up(self, task_ids: Collection[str]) -> Sequence[Task]:
        """Return those of these tasks that there are; whose they are is for the caller to know."""
        return self._store.look_up(task_ids)

    def list(
        self, owner: str, status: TaskStatus | None = None, *, page: int = 1, size: int = 20
    ) -> tuple[list[Task], int]:
        """Return a page of the owner's tasks, the newest first, and how many there are."""
        return self._store.list(owner, status, page=page, size=size)

    def rows(self, task_id: str, owner: str, *, after: int = -1, limit: int | None = None) -> Iterator[Item]:
        """Return the task's items above index `after`, at most `limit`, read page by page.

        Raises:
            BatchUnknown: there is no such task of theirs; before the first item.
        """
        self._store.get(task_id, owner)
        return all_rows(self._store, task_id, after=after, limit=limit)

    def cancel(self, task_id: str, owner: str) -> Task:
        """End the task now, and what of it is being asked, at the provider too.

        Raises:
            BatchUnknown, BatchFinished: there is nothing to be cancelled.
        """
        task, running = self._store.cancel(task_id, owner)
        order = Order(task.task_id, task.owner, task.options)
        # What is not stopped here, because it is not open yet or Redis is away, its worker's watch stops.
        with suppress(StoreUnavailable):
            for index, attempt in running[:STOPPED_AT_ONCE]:
                self._asker.cancel_attempt(order, index, attempt)
        self._tidies.wake()
        return task

    def pause(self, task_id: str, owner: str) -> Task:
        """Have no more items of the task asked; raises `BatchUnknown`, `BatchFinished`."""
        return self._store.pause(task_id, owner)

    def resume(self, task_id: str, owner: str) -> Task:
        """Go on with a paused task; raises `BatchUnknown`, `BatchFinished`."""
        task = self._store.resume(task_id, owner)
        self._sweeps.wake()
        return task

    def status(self) -> BatchStatus:
        """Return how batches stand."""
        seen = self._lanes.look()
        totals = self._store.totals()
        return BatchStatus(seen.workers, self._max_concurrent, seen.held, totals, self._max_queue_size)

    def sweep(self) -> float:
        """Send messages for the lanes that are free while there is work; return the seconds until the next sweep."""
        self._prepare()
        status = BatchStatus(0, self._max_concurrent, 0, self._store.totals(), self._max_queue_size)
        metrics.BATCH_TASKS_UNFINISHED.set(status.unfinished)
        if not status.unfinished:
            return SWEEP_SECONDS
        seen, pause = self._lanes.look(), self._lanes.paused()
        now, soon = self._store.runnable()
        wanted = self._wanted(seen, self._store.running_lanes(), now, pause)
        # More than lie there for every lane nobody fetches: they are for when somebody does.
        if wanted and self._messages.waiting() < self._max_concurrent:
            for lane in sorted(wanted):
                self._messages.send(lane)
        silent = self._lanes.grace if seen.suspect or seen.unsure else SWEEP_SECONDS
        due = PROBE_SECONDS if pause.probing else pause.seconds or SWEEP_SECONDS
        return min(SWEEP_SECONDS, silent, due, SWEEP_SECONDS if soon is None else soon)

    def check(self) -> None:
        """See that tasks can be kept now.

        Raises:
            StoreUnavailable: the database is away, or lacks the tables.
        """
        self._prepare()
        self._store.check()

    def _wanted(self, seen: LanesSeen, occupied: Collection[int], runnable: bool, pause: Pause) -> set[int]:
        """Return the free lanes that somebody is to work now.

        While the provider wants to be left alone these are only lanes whose item is under way, and right after that one
        lane more, which finds out whether the others may go on.
        """
        if pause.seconds or pause.probing:
            under_way = set() if seen.unsure else set(seen.free) & set(occupied)
            probes = runnable and pause.probing and not (seen.held or seen.suspect or occupied)
            return under_way | (set(seen.free[:1]) if probes else set())
        if seen.unsure:
            # Who has an item may hold its lane yet, and Redis lack its stream, so that another would ask it once more.
            return set(seen.free) - set(occupied) if runnable else set()
        wanted = {lane for lane in seen.free if runnable or lane in occupied}
        if seen.free and any(lane >= self._max_concurrent for lane in occupied):
            # Of lanes that there are no more: whoever has another takes them over.
            wanted.add(seen.free[0])
        return wanted

    def _prepare(self) -> None:
        """See to the tables, once. Where they cannot be had there are no batches, which is no reason not to chat."""
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

    def _step(self, lane: int) -> None:
        """Work a lane for a while, and tell whoever is to go on; dramatiq calls this, in a thread of its own."""
        if self._worker.step(lane):
            with suppress(StoreUnavailable):
                self._messages.send(lane)
        else:
            # Something may have come in between the last look and the lane's being free.
            self._sweeps.wake()
            self._tidies.wake()

    def _renew(self) -> float:
        workers = self._worker.renew()
        self._messages.share(ceil(self._max_concurrent / max(1, workers)))
        return self._lanes.lease / 3

    def _watch(self) -> float:
        self._worker.watch()
        return WATCH_SECONDS


def _digest(name: str, description: str, options: BatchOptions, texts: Sequence[str]) -> str:
    """Return what tells one submission from another under the same key."""
    digest = hashlib.sha256()
    for part in (name, description, json.dumps(asdict(options), sort_keys=True), *texts):
        written = part.encode("utf-8", "surrogatepass")
        digest.update(len(written).to_bytes(8, "big") + written)
    return digest.hexdigest()
