"""Batches on several replicas: one bound over all of them, items in order and once, changes from any replica."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from services import metrics
from services.batches.item import question_of
from services.batches.lanes_store import SUSPECTS
from services.batches.manager import DIGESTED_AT_ONCE, digest_of
from services.batches.records import BatchOptions, Given, Order, Task
from services.batches.store import SqlBatchStore
from services.errors import BatchConflict, BatchFinished, StoreUnavailable
from services.redis.store import Call, servers
from services.streams.store import stream_keys
from tests.support.batches.desk import OWNER, TIMEOUT, BatchDesk, ScriptedProvider, desks, texts
from tests.support.schema import migrated
from tests.support.servers.processes import RedisServer, wait_until

Open = Callable[..., BatchDesk]


@pytest.fixture
def provider() -> ScriptedProvider:
    return ScriptedProvider()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqlBatchStore]:
    store = SqlBatchStore(migrated(f"sqlite:///{tmp_path / 'batch.db'}"), max_unfinished=100)
    yield store
    store.close()


@pytest.fixture
def opened(redis_url: str, provider: ScriptedProvider, store: SqlBatchStore) -> Open:
    """Return a function that makes replicas of one Redis, one database and one provider."""
    return lambda **options: BatchDesk(redis_url, provider, store, **options)


def order(task_id: str) -> Order:
    return Order(task_id, OWNER, BatchOptions())


@pytest.mark.every_redis
def test_a_task_is_worked_on_any_redis(any_redis_url: str, provider: ScriptedProvider, store: SqlBatchStore) -> None:
    """On each kind of Redis, a Cluster too, every item has its answer, in the order of the texts."""
    with BatchDesk(any_redis_url, provider, store) as desk:
        task_id = desk.submits(texts(12))
        task = desk.ends(task_id)

    assert (task.status, task.completed, task.failed) == ("completed", 12, 0)
    assert [item.content for item in desk.items(task_id)] == [f"答：{text}" for text in texts(12)]
    assert Counter(provider.asked) == Counter(texts(12))


@pytest.mark.every_redis
def test_a_purged_task_leaves_nothing_in_redis(
    any_redis_url: str, provider: ScriptedProvider, store: SqlBatchStore
) -> None:
    """The streams of its items go with it, those of attempts that failed and of a second run too; others stay."""
    provider.failures["第1问"] = ["provider_timeout", "provider_rejected"]
    with BatchDesk(any_redis_url, provider, store) as desk:
        task_id, other = desk.submits(texts(3)), desk.submits(["另一个"])
        desk.ends(task_id)
        desk.ends(other)
        desk.batches.retry(task_id, OWNER)
        desk.ends(task_id)

        desk.batches.purge(task_id, OWNER)

        assert len(provider.asked) == 6
        kept = desk.gateway.find(question_of(order(other), 0, 1))
        assert kept
        left = [key for server in servers(desk.client) for key in server.scan_iter("*dify_stream:*")]
        assert sorted(left) == sorted(stream_keys(kept.stream_id))
        noted = [key for server in servers(desk.client) for key in server.scan_iter("{dify_batch}:streams:*")]
        assert noted == [f"{{dify_batch}}:streams:{other}"]


def test_two_replicas_work_within_one_bound(opened: Open, provider: ScriptedProvider, store: SqlBatchStore) -> None:
    """With three lanes over both replicas the provider gets at most three calls at once and each item once."""
    provider.held.update(texts(3))
    one, other = opened(name="one"), opened(name="other")
    with desks(one, other):
        tasks = [one.submits(texts(15)), other.submits([f"{text}!" for text in texts(15)])]
        wait_until(lambda: provider.running == 3, timeout=TIMEOUT)
        provider.held.clear()
        ended = [one.ends(task_id) for task_id in tasks]

    assert [task.completed for task in ended] == [15, 15]
    assert provider.peak == 3
    assert max(Counter(provider.asked).values()) == 1


def test_a_replica_that_leaves_hands_its_items_over(opened: Open, provider: ScriptedProvider) -> None:
    """An item that is being asked continues on another replica, as the same attempt and in the same stream."""
    one, other = opened(name="one", lease=1.0), opened(name="other", lease=1.0)
    one.__enter__()
    provider.held.add("第0问")
    task_id = one.submits(texts(4))
    wait_until(lambda: len(one.store.rows(task_id)) and provider.running == 1, timeout=TIMEOUT)
    wait_until(lambda: one.store.get(task_id).completed == 3, timeout=TIMEOUT)
    with other:
        one.leaves()
        provider.held.clear()
        task = other.ends(task_id)
        items = other.items(task_id)

    assert task.completed == 4
    assert [item.attempts for item in items] == [1, 1, 1, 1]


def test_cancelling_on_another_replica_stops_what_runs(opened: Open, provider: ScriptedProvider) -> None:
    """The provider's calls are stopped, answered items stay, and the task's end is final."""
    one, other = opened(name="one"), opened(name="other", works=False)
    provider.held.update(("第1问", "第2问"))
    with desks(one, other):
        task_id = one.submits(texts(3))
        wait_until(lambda: one.store.get(task_id).completed == 1 and provider.running == 2, timeout=TIMEOUT)

        task = other.batches.cancel(task_id, OWNER)
        for index in (1, 2):
            stopped = other.gateway.find(question_of(order(task_id), index, 1))
            assert stopped
            assert stopped.status == "cancelled"
        wait_until(lambda: provider.running == 0, timeout=TIMEOUT)

        assert (task.status, task.completed, task.cancelled) == ("cancelled", 1, 2)
        assert [item.status for item in one.items(task_id)] == ["completed", "cancelled", "cancelled"]
        for change in (other.batches.cancel, other.batches.pause, other.batches.resume):
            with pytest.raises(BatchFinished):
                change(task_id, OWNER)


def test_the_sweep_finds_work_that_was_not_announced(opened: Open, store: SqlBatchStore) -> None:
    """A task is worked on although its replica died before it announced the task."""
    task, _ = store.create(owner=OWNER, name="t", texts=["一"], options=BatchOptions())
    with opened() as desk:
        assert desk.ends(task.task_id).completed == 1


@pytest.mark.parametrize("lane", [1, 17])
def test_a_running_item_of_a_lane_without_a_worker_is_found(opened: Open, store: SqlBatchStore, lane: int) -> None:
    """No item is pending, but one is running in a lane that no worker holds, or that does not exist any more."""
    task, _ = store.create(owner=OWNER, name="t", texts=["一"], options=BatchOptions())
    assert store.claim(lane)
    desk = opened(lanes=2)
    # Redis has not lost its keys recently: else the sweep would first wait for other replicas to register their lanes.
    desk.runner.run([Call(None, ("HSET", SUSPECTS), ("since", "0.0"))])

    with desk:
        assert desk.ends(task.task_id).completed == 1


def test_a_replica_without_workers_only_announces_tasks(opened: Open, provider: ScriptedProvider) -> None:
    """It submits tasks for the replicas with workers, and asks no question."""
    with opened(works=False) as taker:
        task_id = taker.submits(texts(5))
        taker.engine.sweep()
        assert taker.engine.wanted()[0] == {0, 1, 2}
        assert (taker.batches.status().is_running, provider.asked) == (False, [])

        with opened(name="worker"):
            assert taker.ends(task_id).completed == 5
            wait_until(lambda: taker.batches.status().is_running, timeout=TIMEOUT)


def test_an_announced_task_is_worked_on_by_every_replica(
    opened: Open, provider: ScriptedProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Replicas with free lanes begin when they notice the announcement, not with their next sweep."""
    monkeypatch.setattr("services.batches.engine.SWEEP_SECONDS", 10 * TIMEOUT)
    provider.held.update(texts(4))
    taker, one, other = opened(works=False), opened(name="one", lanes=4), opened(name="other", lanes=4)
    with desks(one, other):
        wait_until(lambda: one.batches.status().workers == 2, timeout=TIMEOUT)
        one.engine._renew()
        other.engine._renew()
        with taker:
            task_id = taker.submits(texts(4))
            wait_until(lambda: provider.running == 4, timeout=TIMEOUT)
            assert (one.engine._worker.busy, other.engine._worker.busy) == (2, 2)
            provider.held.clear()
            taker.ends(task_id)


def test_a_change_during_an_outage_is_announced_after_it(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """The announcement that Redis did not take is made by the next sweep."""
    taker = opened(works=False)
    taker.engine.announce()

    def away() -> None:
        raise StoreUnavailable("away")

    with monkeypatch.context() as outage:
        outage.setattr(taker.engine._lanes, "announce", away)
        with pytest.raises(StoreUnavailable):
            taker.engine.sweep()
    before = taker.engine._lanes.announced()
    taker.engine.sweep()

    assert taker.engine._lanes.announced() != before


def test_the_same_key_is_the_same_task(opened: Open) -> None:
    """The same submission under a key returns its task; a different one is refused and counted in the metric."""
    desk = opened()
    submission: dict[str, Any] = {"owner": OWNER, "name": "t", "texts": ["一", "二"], "key": "k1"}
    before = metrics.REGISTRY.get_sample_value("wechatlaibao_batch_refused_total", {"code": "batch_conflict"}) or 0
    with desk:
        first, created = desk.batches.submit(**submission)
        again, created_again = desk.batches.submit(**submission)
        changed: list[dict[str, Any]] = [
            {"texts": ["一"]},
            {"texts": ["一二"]},
            {"name": "u"},
            {"options": BatchOptions({"a": 1})},
        ]
        for change in changed:
            with pytest.raises(BatchConflict):
                desk.batches.submit(**{**submission, **change})

    assert (created, created_again) == (True, False)
    assert first.task_id == again.task_id
    after = metrics.REGISTRY.get_sample_value("wechatlaibao_batch_refused_total", {"code": "batch_conflict"})
    assert after == before + len(changed)


def test_status_counts_workers_items_and_tasks(opened: Open, provider: ScriptedProvider) -> None:
    """The status has workers, running items, tasks by status, and the bounds of each."""
    provider.held.update(texts(9))
    with opened(lanes=3) as desk:
        task_id = desk.submits(texts(9))
        wait_until(lambda: provider.running == 3 and desk.batches.status().workers == 1, timeout=TIMEOUT)
        status = desk.batches.status()
        provider.held.clear()
        desk.ends(task_id)

    assert (status.workers, status.is_running, status.max_concurrent, status.running_items) == (1, True, 3, 3)
    assert (status.totals["running"], status.unfinished) == (1, 1)
    assert (status.max_size, status.available_slots) == (100, 99)


def test_an_ended_task_has_one_line_and_one_file(
    opened: Open, tmp_path: Path, provider: ScriptedProvider, caplog: pytest.LogCaptureFixture
) -> None:
    """One replica writes a file with a line of JSON for each item, in order, and one log line."""
    provider.failures["第1问"] = ["provider_rejected"]
    folder = tmp_path / "deep" / "store"
    caplog.set_level(logging.INFO, "services.batches.archive")
    one, other = opened(name="one", folder=folder), opened(name="other", folder=folder)
    with desks(one, other):
        task_id = one.submits(texts(4))
        task = one.ends(task_id)
        wait_until(lambda: one.store.unstored() == [], timeout=TIMEOUT)

    lines = (folder / f"{task_id}.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line) for line in lines] == [item.to_dict() for item in one.items(task_id)]
    assert [json.loads(line)["status"] for line in lines] == ["completed", "failed", "completed", "completed"]
    assert [path.name for path in folder.iterdir()] == [f"{task_id}.jsonl"]
    log_lines = [record for record in caplog.records if record.message == "batch task"]
    assert [(r.__dict__["outcome"], r.__dict__["completed"], r.__dict__["failed"]) for r in log_lines] == [
        ("completed", 3, 1)
    ]
    assert task.completed == 3


def test_an_outage_of_redis_costs_no_item(provider: ScriptedProvider, store: SqlBatchStore) -> None:
    """Redis restarts in the middle: every item is answered once, and the bound holds."""
    provider.delay = 0.05
    with RedisServer(aof=True) as server, BatchDesk(server.url(), provider, store) as desk:
        task_id = desk.submits(texts(60))
        wait_until(lambda: desk.store.get(task_id).completed >= 10, timeout=TIMEOUT)
        server.kill()
        server.start()
        task: Task = desk.ends(task_id, timeout=60.0)

        assert task.completed == 60
        assert max(Counter(provider.asked).values()) == 1
        assert provider.peak <= 3


def test_after_redis_lost_its_keys_no_item_is_asked_twice(opened: Open, provider: ScriptedProvider) -> None:
    """A free replica waits until the others have registered their lanes and items again."""
    provider.held.update(texts(3))
    one, other = opened(name="one"), opened(name="other")
    with one:
        task_id = one.submits(texts(3))
        wait_until(lambda: provider.running == 3, timeout=TIMEOUT)
        with other:
            wait_until(lambda: other.batches.status().workers == 2, timeout=TIMEOUT)
            other.client.flushdb()
            other.engine.sweep()
            wait_until(lambda: other.batches.status().running_items == 3, timeout=TIMEOUT)
            other.engine.sweep()
            provider.held.clear()
            task = other.ends(task_id)

    assert task.completed == 3
    assert (Counter(provider.asked), provider.peak) == (Counter(texts(3)), 3)


def test_an_outage_of_the_database_costs_no_item(
    redis_url: str, provider: ScriptedProvider, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Claims and ends wait for the database; no item is asked twice."""

    class Away(SqlBatchStore):
        away = False

        def claim(self, lane: int, *, lanes: int | None = None) -> Any:
            self._look()
            return super().claim(lane, lanes=lanes)

        def complete(self, claimed: Any, **answer: Any) -> bool:
            self._look()
            return super().complete(claimed, **answer)

        def runnable(self) -> tuple[bool, float | None]:
            self._look()
            return super().runnable()

        def _look(self) -> None:
            if self.away:
                raise StoreUnavailable("away")

    provider.delay = 0.02
    away = Away(migrated(f"sqlite:///{tmp_path / 'away.db'}"))
    with BatchDesk(redis_url, provider, away) as desk:
        task_id = desk.submits(texts(30))
        wait_until(lambda: desk.store.get(task_id).completed >= 5, timeout=TIMEOUT)
        away.away = True
        wait_until(lambda: provider.running == 0, timeout=TIMEOUT)
        away.away = False
        task = desk.ends(task_id)

    assert task.completed == 30
    assert max(Counter(provider.asked).values()) == 1
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_the_digest_of_a_large_task_serves_others_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    """10,000 texts with 50 inputs each held a worker for a second."""
    pauses: list[float] = []
    sleep, here = time.sleep, threading.get_ident()

    def pause(seconds: float) -> None:
        # Threads of earlier tests sleep too.
        return pauses.append(seconds) if threading.get_ident() == here else sleep(seconds)

    monkeypatch.setattr(time, "sleep", pause)

    digest_of("七月", "", BatchOptions(), ["一"] * 1000, [Given("1", {}, {"a": 1})] * 1000)

    assert len(pauses) >= 2000 // DIGESTED_AT_ONCE
    assert not any(pauses)
