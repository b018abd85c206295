"""Batch stores for tests: opened on an empty database, with short calls to submit tasks and end their items."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

import pytest
import sqlalchemy as sa

from services.batches.records import BatchOptions, Claimed, Task
from services.batches.store import SqlBatchStore
from services.errors import BatchUnknown
from tests.support.schema import migrated
from tests.support.servers.processes import FakeClock, MariaServer

OWNER = "key:0a1b"
#: Parameters for a fixture that calls `empty_database`.
SQL_KINDS = ("sqlite", pytest.param("mariadb", marks=pytest.mark.full))


class Shelf:
    """An empty store, closed at the end, with the calls that tests repeat."""

    def __init__(self, url: str, **options: Any) -> None:
        self.url = url
        self.store = SqlBatchStore(url, **{"pool_timeout": 30.0, "pool_size": 8, "read_timeout": 30.0, **options})

    def __enter__(self) -> Self:
        migrated(self.url)
        for table in ("tasks", "items"):
            self.write(f"DELETE FROM laibao_batch_{table}")
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.store.close()

    def submits(self, texts: Sequence[str] | int = 3, *, owner: str = OWNER, **fields: Any) -> Task:
        """Return a new task with these texts, or with so many generated ones."""
        words = [f"问题{n}" for n in range(texts)] if isinstance(texts, int) else texts
        options = {name: fields.pop(name) for name in BatchOptions.__slots__ if name in fields}
        task, _ = self.store.create(
            owner=owner, texts=words, name=fields.pop("name", "七月"), options=BatchOptions(**options), **fields
        )
        return task

    def claims(self, lane: int = 0) -> Claimed:
        """Return the item that the lane claims; fail if there is none."""
        claimed = self.store.claim(lane)
        assert claimed is not None
        return claimed

    def ends(self, task: Task, *, failing: bool = False) -> Task:
        """End all items of the only task, and return the task."""
        while claimed := self.store.claim(0):
            if failing:
                self.store.fail(claimed, "provider_error", "出错了")
            else:
                self.store.complete(claimed, content="答")
        return self.store.get(task.task_id)

    def finds(self, task_id: str, owner: str | None = None) -> Task | None:
        """Return a task, or None if it does not exist or is another owner's."""
        with suppress(BatchUnknown):
            return self.store.get(task_id, owner)
        return None

    def write(self, statement: str) -> int:
        """Run a statement on the tables without the store; return the number of rows that it changed."""
        return self.store._database.transact(lambda connection: connection.exec_driver_sql(statement).rowcount)

    def rows(self, table: str) -> Any:
        """Return the number of rows in `tasks` or `items`, also of tasks that the store does not show."""
        count = f"SELECT COUNT(*) FROM laibao_batch_{table}"
        return self.store._database.read(lambda connection: connection.exec_driver_sql(count).scalar())

    def count(self, work: Callable[[], object]) -> int:
        """Return the number of statements that `work` sends, each of which is a round trip to a server."""
        sent: list[str] = []

        def note(_connection: Any, _cursor: Any, statement: str, *_more: Any) -> None:
            sent.append(statement)

        engine = self.store._database._engine
        sa.event.listen(engine, "before_cursor_execute", note)
        try:
            work()
        finally:
            sa.event.remove(engine, "before_cursor_execute", note)
        return len(sent)

    def statuses(self, task: Task) -> list[str]:
        return [item.status for item in self.store.rows(task.task_id)]


def empty_database(request: pytest.FixtureRequest, folders: pytest.TempPathFactory) -> str:
    """Return the URL of a new database of the kind that the fixture's parameter names."""
    if request.param == "sqlite":
        return f"sqlite:///{folders.mktemp('batches') / 'batches.db'}"
    server: MariaServer = request.getfixturevalue("maria_server")
    return server.fresh_database(f"batches_{uuid.uuid4().hex[:8]}")


def at(clock: FakeClock, seconds: float = 0.0) -> datetime:
    """Return the clock's time plus `seconds`, as a store returns times."""
    return datetime.fromtimestamp(clock.now + seconds, UTC)


def at_once(jobs: Sequence[Callable[[], Any]]) -> list[Any]:
    """Run the jobs at the same time, a thread each; return their results or exceptions in the jobs' order."""
    start = threading.Barrier(len(jobs))
    found: list[Any] = [None] * len(jobs)

    def run(index: int, job: Callable[[], Any]) -> None:
        start.wait(60.0)
        try:
            found[index] = job()
        except Exception as exc:
            found[index] = exc

    threads = [threading.Thread(target=run, args=(index, job)) for index, job in enumerate(jobs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(100.0)
    assert not any(thread.is_alive() for thread in threads)
    return found
