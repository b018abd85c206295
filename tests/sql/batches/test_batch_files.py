"""Files and expiry of ended batch tasks: a file is whole or absent, and one replica handles each task once."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.batches.archive import WRITTEN_AT_ONCE, BatchArchive, write_file
from services.batches.records import BatchOptions, Item, Task
from services.batches.store import SqlBatchStore
from services.redis.lock_store import LockStore
from services.redis.store import ScriptRunner
from tests.support.schema import migrated
from tests.support.servers.processes import FakeClock


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqlBatchStore]:
    store = SqlBatchStore(migrated(f"sqlite:///{tmp_path / 'batch.db'}"))
    yield store
    store.close()


def finished(store: SqlBatchStore, count: int = 2) -> str:
    """Add a task with `count` items, all of them completed."""
    task, _ = store.create(owner="key:o", name="t", texts=[f"{n}问" for n in range(count)], options=BatchOptions())
    while claimed := store.claim(0):
        store.complete(claimed, content=f"答\u2028：{claimed.text}")
    return task.task_id


def archive(store: SqlBatchStore, runner: ScriptRunner, folder: Path | None, **options: FakeClock) -> BatchArchive:
    return BatchArchive(store, LockStore(runner), folder=str(folder) if folder else None, retention_days=7.0, **options)


def test_a_file_has_a_line_for_each_item(tmp_path: Path) -> None:
    """Items are in order over any number of pages, and no character of a text breaks a line."""
    items = [Item(index, f"{index}\n\u2028问") for index in range(2 * WRITTEN_AT_ONCE + 1)]

    path = write_file(tmp_path / "new" / "folder", "t1", iter(items))

    lines = path.read_bytes().split(b"\n")
    assert [json.loads(line)["index"] for line in lines[:-1]] == list(range(2 * WRITTEN_AT_ONCE + 1))
    assert (path.name, lines[-1]) == ("t1.jsonl", b"")
    assert json.loads(items[0].to_json()) == items[0].to_dict()


def test_a_failed_write_leaves_the_older_file(tmp_path: Path) -> None:
    """When writing breaks off, the earlier file is unchanged and no temporary file stays."""
    write_file(tmp_path, "t1", iter([Item(0, "一")]))

    def broken() -> Iterator[Item]:
        yield Item(0, "二")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_file(tmp_path, "t1", broken())

    assert [path.name for path in tmp_path.iterdir()] == ["t1.jsonl"]
    assert "一" in (tmp_path / "t1.jsonl").read_text("utf-8")


def test_an_ended_task_is_stored_once(
    store: SqlBatchStore, runner: ScriptRunner, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The first round writes its log line and file; later rounds find nothing to do."""
    caplog.set_level(logging.INFO, "services.batches.archive")
    task_id = finished(store)

    for _ in range(2):
        archive(store, runner, tmp_path / "out").tidy()

    assert [record.message for record in caplog.records] == ["batch task"]
    assert (tmp_path / "out" / f"{task_id}.jsonl").exists()


def test_one_replica_at_a_time_stores_files(store: SqlBatchStore, runner: ScriptRunner, tmp_path: Path) -> None:
    """While another replica holds the lock, a round does nothing."""
    finished(store)
    held = LockStore(runner).acquire("batch_archive", 30.0)

    archive(store, runner, tmp_path / "out").tidy()

    assert held
    assert len(store.unstored()) == 1


def test_an_unwritable_folder_is_logged_once(
    store: SqlBatchStore, runner: ScriptRunner, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The task waits for its file and gets it once the folder can be written to."""
    (tmp_path / "out").write_text("a file where the folder should be")
    task_id = finished(store)
    keeper = archive(store, runner, tmp_path / "out")

    keeper.tidy()
    keeper.tidy()
    assert [record.message for record in caplog.records] == ["batch file not written"]
    (tmp_path / "out").unlink()
    keeper.tidy()

    assert (tmp_path / "out" / f"{task_id}.jsonl").exists()
    assert store.unstored() == []


def test_a_task_that_fails_to_be_stored_stops_no_other(
    store: SqlBatchStore, runner: ScriptRunner, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """An unexpected error is logged once, and later rounds skip that task."""

    class Odd(SqlBatchStore):
        def get(self, task_id: str, owner: str | None = None) -> Task:
            if task_id == broken:
                raise ValueError("nobody thought of that")
            return super().get(task_id, owner)

    broken, sound = finished(store), finished(store)
    keeper = archive(Odd(f"sqlite:///{tmp_path / 'batch.db'}"), runner, tmp_path / "out")

    keeper.tidy()
    keeper.tidy()

    assert [path.name for path in (tmp_path / "out").iterdir()] == [f"{sound}.jsonl"]
    assert store.unstored() == [broken]
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == ["batch task not seen to"]


def test_old_tasks_are_removed(runner: ScriptRunner, tmp_path: Path, clock: FakeClock) -> None:
    """Tasks are removed after the retention, by the store's clock, checked every ten minutes; their files stay."""
    store = SqlBatchStore(migrated(f"sqlite:///{tmp_path / 'old.db'}"), clock=clock)
    task_id = finished(store)
    keeper = archive(store, runner, tmp_path / "out", clock=clock)
    keeper.tidy()
    clock.advance(6.9 * 86400)
    keeper.tidy()
    assert store.look_up([task_id])

    clock.advance(0.2 * 86400)
    keeper.tidy()

    assert store.look_up([task_id]) == []
    assert (tmp_path / "out" / f"{task_id}.jsonl").exists()
    store.close()


def test_rows_are_read_by_pages(store: SqlBatchStore) -> None:
    """`all_rows` yields all items, or `limit` items after an index."""
    task_id = finished(store, 7)

    assert [item.index for item in store.all_rows(task_id, page=3)] == list(range(7))
    assert [item.index for item in store.all_rows(task_id, first=2, limit=4, page=3)] == [2, 3, 4, 5]
