"""Concurrent use of one batch store by threads and processes, on SQLite and MariaDB."""

from __future__ import annotations

import random
import subprocess
import sys
import textwrap
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from services.batches.claims import locked
from services.batches.records import Claimed, Task
from services.errors import BatchFinished, BatchQueueFull, StoreUnavailable
from tests.support.batches.shelf import OWNER, Shelf, at_once
from tests.support.schema import migrated
from tests.support.servers.processes import MariaServer, wait_until

ROOT = Path(__file__).parents[3]


@pytest.fixture
def shelf(url: str) -> Iterator[Shelf]:
    """An empty store with twenty connections."""
    with Shelf(url, max_unfinished=5, pool_size=20) as shelf:
        yield shelf


def test_concurrent_claims_never_return_the_same_item(shelf: Shelf) -> None:
    """Twenty lanes claim at once from eighteen items: each item is claimed once, and two claims return None."""
    tasks = [shelf.submits(6) for _ in range(3)]

    found = at_once([partial(shelf.store.claim, lane) for lane in range(20)])

    claimed = [(one.task.task_id, one.index) for one in found if isinstance(one, Claimed)]
    assert sorted(claimed) == sorted((task.task_id, index) for task in tasks for index in range(6))
    assert found.count(None) == 2


def test_concurrent_claims_of_one_lane_return_the_same_item(shelf: Shelf) -> None:
    """A lane never has two items, also when several workers hold it."""
    shelf.submits(5)
    shelf.submits(5)

    found = at_once([partial(shelf.store.claim, 4) for _ in range(8)])

    items = {(one.task.task_id, one.index, one.attempt) for one in found if isinstance(one, Claimed)}
    assert len(items) == 1
    assert not [one for one in found if isinstance(one, Exception)]


def test_max_concurrent_holds_for_concurrent_claims(shelf: Shelf) -> None:
    """Ten concurrent claims get three items of a task with `max_concurrent=3`."""
    task = shelf.submits(10, max_concurrent=3)

    found = at_once([partial(shelf.store.claim, lane) for lane in range(10)])

    assert sum(isinstance(one, Claimed) for one in found) == 3
    assert shelf.store.get(task.task_id).running == 3


def test_concurrent_submissions_never_pass_the_bound(shelf: Shelf) -> None:
    """Of twelve submissions to a queue of five, five are accepted and the others raise `BatchQueueFull`."""
    found = at_once([partial(shelf.submits, 2) for _ in range(12)])

    assert sum(isinstance(one, Task) for one in found) == 5
    assert sum(isinstance(one, BatchQueueFull) for one in found) == 7
    assert shelf.store.totals()["pending"] == 5


def test_concurrent_submissions_under_one_key_are_one_task(shelf: Shelf) -> None:
    """All calls return the same task, and one of them created it."""
    submit = partial(shelf.store.create, owner=OWNER, name="七月", texts=["一", "二"], key="k", digest="d")

    found = [one for one in at_once([submit] * 8) if not isinstance(one, Exception)]

    assert len(found) == 8
    assert len({task.task_id for task, _ in found}) == 1
    assert [created for _, created in found].count(True) == 1
    assert shelf.store.list()[1] == 1


def test_last_items_that_end_at_once_end_the_task_once(shelf: Shelf) -> None:
    """Every answer is stored, and the counts of the ended task are right."""
    task = shelf.submits(10)
    claimed = [shelf.claims(lane) for lane in range(10)]

    found = at_once([partial(shelf.store.complete, one, content=f"答{one.index}") for one in claimed])

    ended = shelf.store.get(task.task_id)
    assert found == [True] * 10
    assert (ended.status, ended.completed) == ("completed", 10)
    assert [item.content for item in shelf.store.rows(task.task_id)] == [f"答{n}" for n in range(10)]


def test_a_task_cancelled_while_its_last_items_end_has_one_end(shelf: Shelf) -> None:
    """The task is completed or cancelled; an answer is stored exactly when `complete` returned True."""
    for _ in range(5):
        task = shelf.submits(4)
        claimed = [shelf.claims(lane) for lane in range(4)]
        reports = [partial(shelf.store.complete, one, content="答") for one in claimed]

        *kept, cancelled = at_once([*reports, partial(shelf.store.cancel, task.task_id)])

        ended = shelf.store.get(task.task_id)
        assert ended.completed == kept.count(True)
        assert ended.completed + ended.cancelled == 4
        assert ended.status == ("completed" if isinstance(cancelled, BatchFinished) else "cancelled")
        assert shelf.statuses(task).count("completed") == ended.completed


def test_after_a_pause_no_item_is_claimed(shelf: Shelf) -> None:
    """Claims that race with the pause get an item or None, later ones None; `running` counts those that got one."""
    for _ in range(5):
        task = shelf.submits(20)
        *found, paused = at_once(
            [*(partial(shelf.store.claim, lane) for lane in range(8)), partial(shelf.store.pause, task.task_id)]
        )
        held = [one for one in found if isinstance(one, Claimed)]

        assert isinstance(paused, Task)
        assert shelf.store.get(task.task_id).running == len(held)
        assert shelf.store.claim(99) is None
        shelf.store.cancel(task.task_id)


def test_concurrent_removals_count_each_task_once(shelf: Shelf) -> None:
    """Replicas may remove old tasks at the same time; nothing of the tasks is left."""
    for _ in range(4):
        shelf.store.cancel(shelf.submits(5).task_id)

    found = at_once([partial(shelf.store.expire, -1)] * 4)

    assert sum(one for one in found if isinstance(one, int)) == 4
    assert (shelf.rows("tasks"), shelf.rows("items")) == (0, 0)


WORKER = """
    import sys
    from services.batches.store import SqlBatchStore

    store = SqlBatchStore(sys.argv[1], read_timeout=60.0, pool_timeout=60.0)
    print("ready", flush=True)
    sys.stdin.readline()
    lane, stumbles = int(sys.argv[2]), 0
    while claimed := store.claim(lane):
        stumbles += 1
        if stumbles % 7 == 0 and claimed.attempt == 1:
            store.retry(claimed, 0.0, "provider_error", "")
        elif store.complete(claimed, content=f"{lane}:{claimed.text}"):
            print(claimed.task.task_id, claimed.index, flush=True)
"""


@pytest.mark.scenario
def test_processes_at_once_do_each_item_once(shelf: Shelf) -> None:
    """Three processes on one database store every answer once while this process pauses and resumes tasks."""
    tasks = [shelf.submits(20) for _ in range(3)]
    workers = [_worker(shelf.url, lane) for lane in range(3)]
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
    stop = threading.Event()
    meddler = threading.Thread(target=_meddle, args=(shelf, tasks, stop))
    meddler.start()

    # A worker that finds all tasks paused ends early: another one is started at the end.
    outputs = [worker.communicate("go\n", timeout=100.0)[0] for worker in workers]
    stop.set()
    meddler.join(60.0)
    outputs.append(_worker(shelf.url, 9).communicate("go\n", timeout=100.0)[0].removeprefix("ready\n"))

    done = Counter(line for output in outputs for line in output.splitlines())
    assert done == Counter(f"{task.task_id} {index}" for task in tasks for index in range(20))
    for task in tasks:
        ended = shelf.store.get(task.task_id)
        assert (ended.status, ended.completed) == ("completed", 20)
        assert [item.content.partition(":")[2] for item in shelf.store.rows(task.task_id)] == [
            f"问题{n}" for n in range(20)
        ]


def _worker(url: str, lane: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(WORKER), url, str(lane)],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def _meddle(shelf: Shelf, tasks: list[Task], stop: threading.Event) -> None:
    """Pause and resume tasks until `stop` is set; every task is left resumed."""
    dice = random.Random(0)
    while not stop.is_set():
        task_id = dice.choice(tasks).task_id
        try:
            shelf.store.pause(task_id)
            shelf.store.resume(task_id)
            stop.wait(0.05)
        except BatchFinished:
            if all(shelf.store.get(task.task_id).ended for task in tasks):
                return


UNDER_GEVENT = """
    from gevent import monkey
    monkey.patch_all()
    import sqlite3, sys, threading, time
    from services.batches.store import SqlBatchStore

    path = sys.argv[1]
    store = SqlBatchStore(f"sqlite:///{path}")
    store.create(owner="key:a", name="n", texts=["q"] * 40)
    done, ticks = [], []

    def work(lane):
        while claimed := store.claim(lane):
            done.append(claimed.index)
            assert store.complete(claimed, content="a")

    def tick():
        while True:
            ticks.append(1)
            time.sleep(0.01)

    threading.Thread(target=tick, daemon=True).start()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    threads = [threading.Thread(target=work, args=(lane,)) for lane in range(10)]
    [thread.start() for thread in threads]
    before = len(ticks)
    while len(ticks) < before + 30:
        time.sleep(0.01)
    print(len(done), flush=True)
    other.execute("COMMIT")
    [thread.join(60.0) for thread in threads]
    print(sorted(done) == list(range(40)), flush=True)
"""


def test_under_gevent_a_locked_file_blocks_only_writers(tmp_path: Path) -> None:
    """While another connection locks the file, greenlets that do not write run; then every item is done once."""
    path = tmp_path / "batches.db"
    migrated(f"sqlite:///{path}")
    command = [sys.executable, "-c", textwrap.dedent(UNDER_GEVENT), str(path)]

    done = subprocess.run(command, capture_output=True, text=True, timeout=100.0, check=False, cwd=ROOT)

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["0", "True"]


def test_a_large_submission_does_not_block_other_writers(shelf: Shelf) -> None:
    """While its texts are inserted, another task's item is completed; the new task is not listed yet."""
    half, go_on = threading.Event(), threading.Event()

    class Texts(list[str]):
        """Waits for the test where its second half begins."""

        def __iter__(self) -> Iterator[str]:
            for number, text in enumerate(super().__iter__()):
                if number == 1000:
                    half.set()
                    assert go_on.wait(60.0)
                yield text

    shelf.submits(1)
    arrival = threading.Thread(target=shelf.submits, args=(Texts(["长" * 500] * 2000),))
    arrival.start()
    assert half.wait(60.0)

    seen = (shelf.store.complete(shelf.claims(), content="答"), shelf.store.list()[1], shelf.rows("items") > 500)
    go_on.set()
    arrival.join(100.0)

    assert seen == (True, 1, True)
    assert shelf.rows("items") == 2001
    assert shelf.store.list()[1] == 2


@pytest.mark.full
def test_a_frozen_transaction_blocks_others_for_a_bounded_time(maria_server: MariaServer) -> None:
    """When a process stops while it holds a task's row, the server drops its lock after two of its read timeouts."""
    url = maria_server.fresh_database("frozen")
    with Shelf(url, read_timeout=2.0) as frozen, Shelf(url, read_timeout=2.0) as shelf:
        task = shelf.submits(2)
        held, over = threading.Event(), threading.Event()

        def stands_still(connection: Any) -> None:
            locked(connection, task.task_id)
            held.set()
            over.wait(60.0)

        def freeze() -> None:
            with suppress(StoreUnavailable):
                frozen.store._database.transact(stands_still)

        thread = threading.Thread(target=freeze, daemon=True)
        thread.start()
        assert held.wait(30.0)

        def claimed() -> Claimed | None:
            with suppress(StoreUnavailable):
                return shelf.store.claim(0)
            return None

        assert wait_until(claimed, 30.0)
        over.set()
        thread.join(30.0)
