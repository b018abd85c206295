"""Batches: accepts tasks, shows and changes them, and has their items worked on, on any replica.

Tasks are in SQL. Every replica's sweep looks there for work and sends messages for free lanes. So nothing depends on a
single message, wake-up or replica: each may be lost. Two submissions under one idempotency key must have the same
digest.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from math import ceil
from typing import Any

from config.errors import LaibaoError, SettingsError
from config.texts import Texts
from services import metrics
from services.answers.gateway import Gateway
from services.batches.archive import TIDY_SECONDS, BatchArchive
from services.batches.broker import POLL, LaneMessages
from services.batches.item import ItemAsker
from services.batches.lanes_store import PROBE_SECONDS, BatchLanesStore
from services.batches.limits import KEEP_A_WEEK, BatchLimits, Retention
from services.batches.records import BatchOptions, Given, Item, ItemStatus, Order, QueueStatus, Task, TaskStatus
from services.batches.store import SqlBatchStore
from services.batches.webhooks import LOOK_SECONDS, Webhooks
from services.batches.worker import LaneWorker
from services.errors import StoreUnavailable
from services.redis.lock_store import LockStore
from services.redis.store import ScriptRunner
from services.rounds import Rounds
from services.streams.store import StreamStore


def digest_of(
    name: str, description: str, options: BatchOptions, texts: Sequence[str], given: Sequence[Given] = ()
) -> str:
    """Return the digest as hexadecimal digits; `given` is empty, or has an entry for each text."""
    digest = hashlib.sha256()
    parts = [name, description, _json(asdict(options))]
    for part in (*parts, *texts, *(_json(one.to_json()) for one in given)):
        written = part.encode("utf-8", "surrogatepass")
        digest.update(len(written).to_bytes(8, "big") + written)
    return digest.hexdigest()


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, sort_keys=True)


log = logging.getLogger(__name__)

#: Seconds between two sweeps for free lanes while there is work.
SWEEP_SECONDS = 5.0
#: Seconds between two checks whether running items were cancelled on another replica.
WATCH_SECONDS = 2.0
#: Seconds between attempts to renew the lanes while Redis is away.
RENEW_PAUSE = 1.0
#: Seconds that a leaving process waits for its lane workers and for its own threads.
STOP_SECONDS = 3.0
#: Items of a cancelled task that are stopped before `cancel` returns; their workers' watch stops the others.
STOPPED_AT_ONCE = 50


class BatchManager:
    """What channels need of batches, and the threads that work on them. Methods may raise `StoreUnavailable`."""

    def __init__(
        self,
        store: SqlBatchStore,
        gateway: Gateway,
        streams: StreamStore,
        *,
        runner: ScriptRunner,
        limits: BatchLimits,
        texts: Texts,
        replica: str,
        webhooks: Webhooks,
        retention: Retention = KEEP_A_WEEK,
        poll: float = POLL,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take the stores, the gateway, the runner of the batches' Redis; `replica` names this process.

        `poll` is the maximal number of seconds between two looks for messages.
        """
        self._store = store
        self._streams = streams
        self._max_concurrent = limits.max_concurrent
        self._max_queue_size = limits.max_queue_size
        self._works = limits.works
        self._asker = ItemAsker(gateway, clock=clock)
        self._lanes = BatchLanesStore(runner, lanes=limits.max_concurrent, worker=replica, stream_ttl=streams.ttl)
        self._worker = LaneWorker(
            store, self._lanes, self._asker, texts=texts, retried=lambda: self._sweeps.wake(), clock=clock
        )
        self._messages = LaneMessages(runner, self._step, threads=limits.threads, poll=poll)
        archive = BatchArchive(
            store, LockStore(runner), folder=retention.folder, retention_days=retention.days, clock=clock
        )
        self._sweeps = Rounds("batch-sweep", self.sweep, pause=SWEEP_SECONDS)
        self._tidies = Rounds("batch-tidy", archive.tidy, pause=TIDY_SECONDS)
        self._renewals = Rounds("batch-renew", self._renew, pause=RENEW_PAUSE)
        watches = Rounds("batch-watch", self._watch, pause=WATCH_SECONDS)
        self._webhooks = webhooks
        self._calls = Rounds("batch-webhooks", webhooks.deliver, pause=LOOK_SECONDS)
        self._rounds = (self._sweeps, self._tidies, self._calls, *((self._renewals, watches) if limits.works else ()))
        self._prepared = False
        #: Whether the missing tables were logged.
        self._lacking = False

    def start(self) -> None:
        """Start the threads; the database, its tables or Redis may become available later."""
        with suppress(StoreUnavailable):
            self._prepare()
        metrics.BATCH_LANES_MAX.set(self._max_concurrent)
        metrics.BATCH_TASKS_MAX.set(self._max_queue_size)
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
        self._webhooks.close()
        if self._works:
            # All lanes are released by now, unless a thread hangs; this also removes the process from the workers.
            with suppress(StoreUnavailable):
                self._worker.renew()

    def submit(
        self,
        *,
        owner: str,
        name: str,
        texts: Sequence[str],
        given: Sequence[Given] = (),
        credential: str = "",
        description: str = "",
        options: BatchOptions | None = None,
        key: str = "",
    ) -> tuple[Task, bool]:
        """Add a task; return it, and whether it is new: a second call with the same `key` returns the same task.

        Raises:
            BatchQueueFull, BatchConflict: as `SqlBatchStore.create`.
            WebhookRefused: as `Webhooks.check`.
        """
        options = options or BatchOptions()
        try:
            if options.webhook_url:
                self._webhooks.check(options.webhook_url)
            task, created = self._store.create(
                owner=owner,
                name=name,
                description=description,
                options=options,
                texts=texts,
                given=given,
                credential=credential,
                key=key,
                digest=digest_of(name, description, options, texts, given) if key else "",
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
        """Return those of the tasks that exist; the caller checks their owners."""
        return self._store.look_up(task_ids)

    def list(
        self, owner: str, status: TaskStatus | None = None, *, page: int = 1, size: int = 20
    ) -> tuple[list[Task], int]:
        """Return a page of the owner's tasks, newest first, and the number on all pages."""
        return self._store.list(owner, status, page=page, size=size)

    def rows(
        self, task_id: str, owner: str, *, first: int = 0, limit: int | None = None, status: ItemStatus | None = None
    ) -> Iterator[Item]:
        """Return the task's items in order, those of a status if one is given, read page by page.

        `first` of them are left out, and at most `limit` returned.

        Raises:
            BatchUnknown: the owner has no such task; raised before the first item.
        """
        self._store.get(task_id, owner)
        return self._store.all_rows(task_id, first=first, limit=limit, status=status)

    def cancel(self, task_id: str, owner: str) -> Task:
        """Cancel the task, and its running items also at the provider.

        Raises:
            BatchUnknown, BatchFinished: there is no such task, or it has ended.
        """
        task, running = self._store.cancel(task_id, owner)
        order = Order(task.task_id, task.owner, task.options)
        # The workers' watch stops the rest: items whose stream is not open yet, or all if Redis is away.
        with suppress(StoreUnavailable):
            for index, attempt in running[:STOPPED_AT_ONCE]:
                self._asker.cancel_attempt(order, index, attempt)
        self._tidies.wake()
        self._calls.wake()
        return task

    def pause(self, task_id: str, owner: str) -> Task:
        """Begin no more items of the task; raises `BatchUnknown`, `BatchFinished`."""
        return self._store.pause(task_id, owner)

    def resume(self, task_id: str, owner: str) -> Task:
        """Continue a paused task; raises `BatchUnknown`, `BatchFinished`."""
        task = self._store.resume(task_id, owner)
        self._sweeps.wake()
        return task

    def retry(self, task_id: str, owner: str, *, credential: str = "") -> Task:
        """Ask the failed items of an ended task again. Raises as `SqlBatchStore.retry_failed` does."""
        task = self._store.retry_failed(task_id, owner, credential=credential)
        log.info("batch task asked again", extra={"task_id": task_id, "items": task.pending})
        self._sweeps.wake()
        return task

    def purge(self, task_id: str, owner: str) -> None:
        """Remove an ended task with its results; raises `BatchUnknown`, `BatchUnfinished`."""
        self._store.purge(task_id, owner)
        # While Redis is away, the streams that it has end by themselves.
        with suppress(StoreUnavailable):
            while stream_ids := self._lanes.take_streams(task_id):
                self._streams.remove(stream_ids)
        log.info("batch task purged", extra={"task_id": task_id})

    def status(self) -> QueueStatus:
        """Return the load of batches over all replicas."""
        seen = self._lanes.look()
        totals = self._store.totals()
        return QueueStatus(seen.workers, self._max_concurrent, seen.held, totals, self._max_queue_size)

    def sweep(self) -> float:
        """Send messages for free lanes while there is work; return the seconds until the next sweep."""
        self._prepare()
        status = QueueStatus(0, self._max_concurrent, 0, self._store.totals(), self._max_queue_size)
        metrics.BATCH_TASKS_UNFINISHED.set(status.unfinished)
        if not status.unfinished:
            return SWEEP_SECONDS
        seen, pause = self._lanes.look(), self._lanes.paused()
        now, soon = self._store.runnable()
        wanted = seen.wanted(self._store.running_lanes(), pause, lanes=self._max_concurrent, runnable=now)
        # A full queue means that no worker is fetching; its messages wait until one does.
        if wanted and self._messages.waiting() < self._max_concurrent:
            for lane in sorted(wanted):
                self._messages.send(lane)
        silent = self._lanes.grace if seen.suspect or seen.unsure else SWEEP_SECONDS
        due = PROBE_SECONDS if pause.probing else pause.seconds or SWEEP_SECONDS
        return min(SWEEP_SECONDS, silent, due, SWEEP_SECONDS if soon is None else soon)

    def check(self) -> None:
        """Check that tasks can be stored now.

        Raises:
            StoreUnavailable: the database is away, or the tables are missing.
        """
        self._prepare()
        self._store.check()

    def _prepare(self) -> None:
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

    def _step(self, lane: int) -> None:
        """Work on a lane for a while, and send a message if work is left; dramatiq calls this in its threads."""
        if self._worker.step(lane):
            with suppress(StoreUnavailable):
                self._messages.send(lane)
        else:
            # A task may have arrived after the worker's last look and before the lane was released.
            for rounds in (self._sweeps, self._tidies, self._calls):
                rounds.wake()

    def _renew(self) -> float:
        workers = self._worker.renew()
        self._messages.share(ceil(self._max_concurrent / max(1, workers)))
        return self._lanes.lease / 3

    def _watch(self) -> float:
        self._worker.watch()
        return WATCH_SECONDS
