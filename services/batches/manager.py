"""Batches for channels: tasks are submitted, shown, changed and removed, on any replica; `engine.py` works on them.

Two submissions under one idempotency key must have the same digest.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from itertools import chain
from typing import Any

from config.errors import LaibaoError
from services import metrics
from services.batches.archive import TIDY_SECONDS, BatchArchive
from services.batches.engine import STOP_SECONDS, LaneEngine
from services.batches.item import ItemAsker
from services.batches.lanes_store import BatchLanesStore
from services.batches.records import BatchOptions, Given, Item, ItemStatus, Order, QueueStatus, Task, TaskStatus
from services.batches.store import SqlBatchStore
from services.batches.webhooks import LOOK_SECONDS, Webhooks
from services.errors import StoreUnavailable
from services.rounds import Rounds
from services.streams.store import StreamStore

log = logging.getLogger(__name__)

#: Items of a cancelled task that are stopped before `cancel` returns; their workers' watch stops the others.
STOPPED_AT_ONCE = 50
#: Texts of a submission whose digest is computed before other requests are served: up to 100 µs for each text.
DIGESTED_AT_ONCE = 100


class BatchManager:
    """The batches as channels use them. Methods may raise `StoreUnavailable`."""

    def __init__(
        self,
        store: SqlBatchStore,
        lanes: BatchLanesStore,
        streams: StreamStore,
        asker: ItemAsker,
        *,
        engine: LaneEngine,
        archive: BatchArchive,
        webhooks: Webhooks,
    ) -> None:
        self._store = store
        self._lanes = lanes
        self._streams = streams
        self._asker = asker
        self._engine = engine
        self._webhooks = webhooks
        self._tidies = Rounds("batch-tidy", archive.tidy, pause=TIDY_SECONDS)
        self._calls = Rounds("batch-webhooks", webhooks.deliver, pause=LOOK_SECONDS)

    def start(self) -> None:
        """Start the threads; the database, its tables or Redis may become available later."""
        metrics.BATCH_TASKS_MAX.set(self._store.max_unfinished)
        self._engine.start(idle=self._wake_ends)
        self._tidies.start()
        self._calls.start()

    def leave(self) -> None:
        """Begin no new items here; running ones are followed to their end. Returns at once."""
        self._engine.leave()

    def close(self) -> None:
        """Leave running items to other replicas, and end the threads within a few seconds."""
        ends = (self._tidies, self._calls)
        for rounds in ends:
            rounds.stop()
        self._engine.close()
        for rounds in ends:
            rounds.join(STOP_SECONDS)
        self._webhooks.close()

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
        task_id: str = "",
    ) -> tuple[Task, bool]:
        """Add a task; return it, and whether it is new: a second call with the same `key` returns the same task.

        A `task_id` is a new UUID; without one it gets its own.

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
                task_id=task_id,
                digest=digest_of(name, description, options, texts, given) if key else "",
            )
        except LaibaoError as exc:
            metrics.BATCH_REFUSED.labels(exc.code).inc()
            raise
        if created:
            log.info("batch task taken", extra={"task_id": task.task_id, "items": task.total})
            self._engine.announce()
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
        self._wake_ends()
        return task

    def pause(self, task_id: str, owner: str) -> Task:
        """Begin no more items of the task; raises `BatchUnknown`, `BatchFinished`."""
        return self._store.pause(task_id, owner)

    def resume(self, task_id: str, owner: str) -> Task:
        """Continue a paused task; raises `BatchUnknown`, `BatchFinished`."""
        task = self._store.resume(task_id, owner)
        self._engine.announce()
        return task

    def retry(self, task_id: str, owner: str, *, credential: str = "") -> Task:
        """Ask the failed items of an ended task again. Raises as `SqlBatchStore.retry_failed` does."""
        task = self._store.retry_failed(task_id, owner, credential=credential)
        log.info("batch task asked again", extra={"task_id": task_id, "items": task.pending})
        self._engine.announce()
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
        return QueueStatus(seen.workers, self._lanes.lanes, seen.held, totals, self._store.max_unfinished)

    def check(self) -> None:
        """Check that tasks can be stored now.

        Raises:
            StoreUnavailable: the database is away, or the tables are missing.
        """
        # Of no task: a query that only needs the table.
        self._store.look_up(())

    def _wake_ends(self) -> None:
        """Archive ended tasks and call their webhooks now."""
        self._tidies.wake()
        self._calls.wake()


def digest_of(
    name: str, description: str, options: BatchOptions, texts: Sequence[str], given: Sequence[Given] = ()
) -> str:
    """Return the digest as hexadecimal digits; `given` is empty, or has an entry for each text.

    Serves other requests meanwhile.
    """
    digest = hashlib.sha256()
    parts = (name, description, _json(asdict(options)))
    for number, part in enumerate(chain(parts, texts, (_json(one.to_json()) for one in given))):
        if number % DIGESTED_AT_ONCE == 0:
            time.sleep(0)
        written = part.encode("utf-8", "surrogatepass")
        digest.update(len(written).to_bytes(8, "big") + written)
    return digest.hexdigest()


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, sort_keys=True)
