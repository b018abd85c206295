"""A finished task's file is whole or not there, and what ended is seen to once, on one replica."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.batches.archive import BatchArchive, all_rows
from services.batches.files import PAGE, BatchFiles, item_json
from services.batches.records import BatchOptions, Item, Task
from services.batches.store import SqlBatchStore
from services.redis.lock_store import LockStore
from services.redis.store import ScriptRunner
from tests.support.servers.processes import FakeClock


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqlBatchStore]:
    store = SqlBatchStore(f"sqlite:///{tmp_path / 'batch.db'}")
    store.prepare()
    yield store
    store.close()


def finished(store: SqlBatchStore, count: int = 2) -> str:
    """Add a task of so many items, all of them done."""
    task, _ = store.create(owner="key:o", name="t", texts=[f"{n}问" for n in range(count)], options=BatchOptions())
    while claimed := store.claim(0):
        store.complete(claimed, content=f"答\u2028：{claimed.text}")
    return task.task_id


def archive(store: SqlBatchStore, runner: ScriptRunner, folder: Path | None, **options: FakeClock) -> BatchArchive:
    return BatchArchive(store, LockStore(runner), folder=str(folder) if folder else None, retention_days=7.0, **options)


def test_a_file_has_a_line_for_each_item(tmp_path: Path) -> None:
    """In order, over any number of pages, and no character breaks a line."""
    items = [Item(index, f"{index}\n\u2028问") for index in range(2 * PAGE + 1)]

    path = BatchFiles(tmp_path / "new" / "folder").write("t1", iter(items))

    lines = path.read_bytes().split(b"\n")
    assert [json.loads(line)["index"] for line in lines[:-1]] == list(range(2 * PAGE + 1))
    assert (path.name, lines[-1]) == ("t1.jsonl", b"")
    assert json.loads(item_json(items[0])) == items[0].to_dict()


def test_a_file_that_cannot_be_written_whole_is_not_there(tmp_path: Path) -> None:
    """Whatever breaks off, the older file stays as it was, and nothing lies beside it."""
    files = BatchFiles(tmp_path)
    files.write("t1", iter([Item(0, "一")]))

    def broken() -> Iterator[Item]:
        yield Item(0, "二")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        files.write("t1", broken())

    assert [path.name for path in tmp_path.iterdir()] == ["t1.jsonl"]
    assert "一" in (tmp_path / "t1.jsonl").read_text("utf-8")


def test_an_ended_task_is_seen_to_once(
    store: SqlBatchStore, runner: ScriptRunner, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its line is written by whoever was first; later rounds find nothing to do."""
    caplog.set_level(logging.INFO, "services.batches.archive")
    task_id = finished(store)

    for _ in range(2):
        archive(store, runner, tmp_path / "out").tidy()

    assert [record.message for record in caplog.records] == ["batch task"]
    assert (tmp_path / "out" / f"{task_id}.jsonl").exists()


def test_another_replica_is_not_disturbed(store: SqlBatchStore, runner: ScriptRunner, tmp_path: Path) -> None:
    """While one sees to what has ended, the others let it."""
    finished(store)
    held = LockStore(runner).acquire("batch_archive", 30.0)

    archive(store, runner, tmp_path / "out").tidy()

    assert held
    assert len(store.unstored()) == 1


def test_a_folder_that_cannot_be_written_to_is_said_once(
    store: SqlBatchStore, runner: ScriptRunner, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The task waits for its file, and gets it when the folder is there."""
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


def test_one_task_that_cannot_be_seen_to_stops_no_other(
    store: SqlBatchStore, runner: ScriptRunner, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever nobody thought of is wrong with it, once in the log; later rounds leave it alone."""

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


def test_old_tasks_are_removed_now_and_then(runner: ScriptRunner, tmp_path: Path, clock: FakeClock) -> None:
    """After the retention, by the store's clock; looked for every ten minutes. Their files stay."""
    store = SqlBatchStore(f"sqlite:///{tmp_path / 'old.db'}", clock=clock)
    store.prepare()
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
    """All of them, or as many as are asked for from a place on."""
    task_id = finished(store, 7)

    assert [item.index for item in all_rows(store, task_id, page=3)] == list(range(7))
    assert [item.index for item in all_rows(store, task_id, after=1, limit=4, page=3)] == [2, 3, 4, 5]
