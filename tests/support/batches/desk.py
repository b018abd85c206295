"""Batches without HTTP: each desk is one replica, and several may share a Redis and a database."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from services.batches.archive import BatchArchive
from services.batches.engine import LaneEngine
from services.batches.item import ItemAsker
from services.batches.lanes_store import BatchLanesStore
from services.batches.manager import BatchManager
from services.batches.records import BatchOptions, Item, Task
from services.batches.store import SqlBatchStore
from services.batches.webhooks import Webhooks
from services.errors import ProviderError
from services.http.addresses import AddressRules
from services.http.fetcher import Poster
from services.models import Delta, ProviderEvent, ProviderIds, Query, Usage
from services.providers.base import BaseRAGProvider
from services.redis.lock_store import LockStore
from tests.support.servers.processes import wait_until
from tests.support.streams.desk import CALLER, Desk
from tests.support.texts import KEYS
from utils.deadline import Deadline

OWNER = CALLER.principal
#: The key that signs webhooks.
SECRET = b"obviously-fake-secret-key"
#: Timeout in seconds of steps that take a moment on an idle machine.
TIMEOUT = 30.0


class ScriptedProvider(BaseRAGProvider):
    """A provider that answers, or fails with the codes scripted for a question, one a call; records its queries."""

    name = "scripted"
    app = "app1"

    def __init__(self, *, delay: float = 0.0) -> None:
        self.delay = delay
        self.failures: dict[str, list[str]] = defaultdict(list)
        #: Questions that wait until the test removes them from here.
        self.held: set[str] = set()
        self.asked: list[str] = []
        self.queries: list[Query] = []
        self.running = 0
        self.peak = 0
        self._lock = threading.Lock()

    def stream_query(self, query: Query, deadline: Deadline) -> Iterator[ProviderEvent]:
        with self._counted(query):
            yield ProviderIds("", f"m-{query.text}", "t1")
            time.sleep(self.delay)
            while query.text in self.held:
                if deadline.over:
                    raise ProviderError(code="provider_timeout")
                time.sleep(0.005)
            if self.failures[query.text]:
                raise ProviderError(code=self.failures[query.text].pop(0))
            yield Delta(f"答：{query.text}")
            yield Usage(total_tokens=7, sources=({"title": "手册"},))

    def health_check(self) -> bool:
        return True

    @contextmanager
    def _counted(self, query: Query) -> Iterator[None]:
        with self._lock:
            self.asked.append(query.text)
            self.queries.append(query)
            self.running += 1
            self.peak = max(self.peak, self.running)
        try:
            yield
        finally:
            with self._lock:
                self.running -= 1


class BatchDesk(Desk):
    """A replica that answers batches; its threads start with the `with` block."""

    def __init__(
        self,
        redis_url: str,
        provider: ScriptedProvider,
        store: SqlBatchStore,
        *,
        lanes: int = 3,
        works: bool = True,
        folder: Path | None = None,
        webhook_hosts: Sequence[str] = ("127.0.0.1",),
        name: str = "one",
        **options: Any,
    ) -> None:
        super().__init__(redis_url, provider, **options)
        self.provider = provider
        self.store = store
        held = BatchLanesStore(self.runner, lanes=lanes, worker=name, stream_ttl=self.streams.ttl)
        asker = ItemAsker(self.gateway)
        self.engine = LaneEngine(store, held, asker, texts=KEYS, threads=lanes if works else 0)
        archive = BatchArchive(
            store, LockStore(self.runner), folder=str(folder) if folder else None, retention_days=7.0
        )
        webhooks = Webhooks(store, Poster(AddressRules(webhook_hosts)), SECRET)
        self.batches = BatchManager(
            store, held, self.streams, asker, engine=self.engine, archive=archive, webhooks=webhooks
        )

    def __enter__(self) -> Self:
        self.batches.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.provider.held.clear()
        self.leaves()

    def leaves(self) -> None:
        """Shut down as a replica does after SIGTERM, without waiting: other replicas continue its questions."""
        self.manager.draining = True
        self.batches.leave()
        self.manager.drain(0.0)
        self.batches.close()
        self.readers.close()
        self.manager.close()
        self.client.close()

    def submits(self, texts: Sequence[str], **options: Any) -> str:
        """Submit a task with these texts; return its id."""
        task, created = self.batches.submit(owner=OWNER, name="试", texts=texts, options=BatchOptions(**options))
        assert created
        return task.task_id

    def ends(self, task_id: str, timeout: float = TIMEOUT) -> Task:
        """Wait until the task has ended, and return it."""
        wait_until(lambda: self.store.get(task_id).ended, timeout=timeout)
        return self.store.get(task_id)

    def items(self, task_id: str) -> list[Item]:
        return list(self.batches.rows(task_id, OWNER))


def texts(count: int) -> list[str]:
    return [f"第{number}问" for number in range(count)]


@contextmanager
def desks(*made: BatchDesk) -> Iterator[None]:
    """Run these replicas during the block."""
    with ExitStack() as stack:
        for desk in made:
            stack.enter_context(desk)
        yield


def in_thread(work: Callable[[], object]) -> threading.Thread:
    """Start `work` in a daemon thread, and return the thread."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread
