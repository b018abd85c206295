"""Batches with a busy provider that names a waiting time: items wait together, and waiting costs no attempt."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from demo.mocks.openai.server import MockOpenAI
from services.batches.engine import LaneWorker
from services.batches.item import ItemAsker, question_of
from services.batches.lanes_store import BUSY_SECONDS, OWN_WAIT_MOST, PAUSE, PROBE_SECONDS, BatchLanesStore
from services.batches.records import BatchOptions
from services.batches.store import SqlBatchStore
from services.errors import ProviderError
from services.models import ProviderEvent, Query
from services.redis.store import Call, ScriptRunner
from tests.support.batches.desk import OWNER, TIMEOUT, BatchDesk, ScriptedProvider, desks, texts
from tests.support.made_providers import openai_provider
from tests.support.schema import migrated
from tests.support.servers.processes import FakeClock, wait_until
from tests.support.streams.desk import Desk
from tests.support.texts import KEYS
from utils.deadline import Deadline


class BusyProvider(ScriptedProvider):
    """Fail with 429 while `busy` is set, with `retry_after=wait`."""

    def __init__(self, *, busy: bool = False, wait: float = 30.0) -> None:
        super().__init__()
        self.busy = busy
        self.wait = wait
        self.refused: list[str] = []

    def stream_query(self, query: Query, deadline: Deadline) -> Iterator[ProviderEvent]:
        if self.busy:
            self.refused.append(query.text)
            raise ProviderError("HTTP 429", code="provider_busy", http_status=429, retry_after=self.wait)
        yield from super().stream_query(query, deadline)


Open = Callable[..., BatchDesk]


@pytest.fixture
def provider() -> BusyProvider:
    return BusyProvider()


@pytest.fixture
def store(tmp_path: Path, clock: FakeClock) -> Iterator[SqlBatchStore]:
    store = SqlBatchStore(migrated(f"sqlite:///{tmp_path / 'batch.db'}"), max_unfinished=100, clock=clock)
    yield store
    store.close()


@pytest.fixture
def pause_over(runner: ScriptRunner, clock: FakeClock) -> Callable[[], None]:
    """Return a function that ends the pause, as if its time were over."""

    def end() -> None:
        seconds, _ = runner.run([Call(None, ("TIME",))])[0]
        runner.run([Call(None, ("HSET", PAUSE), ("ends", str(seconds)))])
        clock.advance(60.0)

    return end


@pytest.fixture
def opened(redis_url: str, provider: BusyProvider, store: SqlBatchStore) -> Open:
    """Return a function that makes replicas of one Redis, one database and one provider."""
    return lambda **options: BatchDesk(redis_url, provider, store, **{"lanes": 5, **options})


def refused(desk: BatchDesk, provider: BusyProvider) -> None:
    """Wait until items were refused, and all lanes wait for the end of the pause."""
    wait_until(
        lambda: provider.refused and desk_paused(desk) and not desk.batches.status().running_items, timeout=TIMEOUT
    )


def wanted(desk: BatchDesk) -> int:
    """Return the number of free lanes that a sweep would have worked on."""
    lanes, _ = desk.engine.wanted()
    return len(lanes)


def test_a_busy_provider_is_waited_for_with_few_calls(
    opened: Open, provider: BusyProvider, pause_over: Callable[[], None]
) -> None:
    """Of ten items on two replicas each lane gets one 429 at most; then all are answered with one attempt each."""
    provider.busy = True
    one, other = opened(name="one"), opened(name="other")
    with desks(one, other):
        task_id = one.submits(texts(10))
        refused(one, provider)
        provider.busy = False
        assert (wanted(one), provider.asked) == (0, [])

        pause_over()
        other.engine.sweep()
        task = one.ends(task_id)

        assert (task.completed, task.failed) == (10, 0)
        assert len(provider.refused) <= 5
        assert {item.attempts for item in one.items(task_id)} == {1}
        assert all("waits" not in item.metadata for item in one.items(task_id))


def test_one_item_finds_out_whether_the_provider_is_still_busy(
    opened: Open, store: SqlBatchStore, provider: BusyProvider, pause_over: Callable[[], None]
) -> None:
    """After the pause a single lane is worked on; once its item is answered, all are."""
    desk = opened(works=False)
    desk.submits(texts(10), max_attempts=1)
    worker = worker_of(desk, store)
    provider.busy = True
    worker.step(0)
    assert (len(provider.refused), wanted(desk)) == (1, 0)
    provider.busy = False

    pause_over()

    assert wanted(desk) == 1
    worker.step(0)
    assert (len(provider.asked), len(provider.refused), wanted(desk)) == (10, 1, 0)
    desk.leaves()


def test_a_waiting_task_can_be_cancelled_and_paused(
    opened: Open, provider: BusyProvider, pause_over: Callable[[], None]
) -> None:
    """A cancelled task is not asked again; a paused one continues on `resume`, also when the wait ended before."""
    provider.busy = True
    with opened() as desk:
        cancelled, paused = desk.submits(texts(3)), desk.submits([f"{text}!" for text in texts(3)])
        refused(desk, provider)
        desk.batches.cancel(cancelled, OWNER)
        desk.batches.pause(paused, OWNER)
        provider.busy = False
        assert [item.attempts for item in desk.items(paused)] == [0, 0, 0]

        pause_over()
        assert (wanted(desk), provider.asked) == (0, [])
        desk.batches.resume(paused, OWNER)
        task = desk.ends(paused)

    assert task.completed == 3
    assert desk.store.get(cancelled).status == "cancelled"
    assert not {text for text in provider.asked if not text.endswith("!")}


def test_a_replica_that_leaves_while_it_waits_costs_nothing(
    opened: Open, provider: BusyProvider, pause_over: Callable[[], None]
) -> None:
    """Another replica waits for the rest of the time, then asks."""
    provider.busy = True
    one, other = opened(name="one"), opened(name="other")
    with other:
        with one:
            task_id = one.submits(texts(6))
            refused(one, provider)
        provider.busy = False
        assert (wanted(other), provider.asked) == (0, [])

        pause_over()
        other.engine.sweep()
        task = other.ends(task_id)

        assert task.completed == 6
        assert len(provider.refused) <= 5
        assert {item.attempts for item in other.items(task_id)} == {1}


def test_a_killed_workers_429_is_waited_out_by_the_next(
    redis_url: str, store: SqlBatchStore, provider: BusyProvider
) -> None:
    """The item's stream keeps the provider error with its waiting time; the question is not asked again for it."""
    provider.busy = True
    desk = Desk(redis_url, provider)
    store.create(owner=OWNER, name="t", texts=["一", "二"], options=BatchOptions())
    claimed = store.claim(0)
    assert claimed
    desk.gateway.ask(question_of(claimed.task, 0, 1, "一"))

    worker = worker_of(desk, store)
    assert worker.step(0) is False

    assert len(provider.refused) == 1
    assert 0.0 < desk_paused(desk) <= 30.0
    runnable, due = store.runnable()
    assert (runnable, due is None or due > 25.0) == (True, True)
    desk.close()


def test_the_header_of_a_real_429_reaches_the_batch(
    redis_url: str, store: SqlBatchStore, pause_over: Callable[[], None]
) -> None:
    """Over HTTP the waiting time of a 429 pauses the batch: two calls, one attempt."""
    with MockOpenAI() as server:
        openai = openai_provider(base_url=server.base_url, api_key="sk-fake", model="m1")
        desk = Desk(redis_url, openai)
        task, _ = store.create(owner=OWNER, name="t", texts=["[[429-soon]] 年假"], options=BatchOptions(max_attempts=1))
        worker = worker_of(desk, store)

        worker.step(0)
        waiting = store.rows(task.task_id)[0]
        assert store.runnable() == (False, 1.0)
        pause_over()
        worker.step(0)
        answered = store.rows(task.task_id)[0]

        assert (waiting.status, waiting.attempts, waiting.metadata) == ("pending", 0, {})
        assert waiting.error is not None
        assert waiting.error["code"] == "provider_busy"
        assert (answered.status, answered.attempts, answered.error) == ("completed", 1, None)
        assert len(server.asked) == 2
        desk.close()
        openai.close()


def desk_paused(desk: Desk) -> float:
    return BatchLanesStore(desk.runner, lanes=1).paused().seconds


def worker_of(desk: Desk, store: SqlBatchStore) -> LaneWorker:
    lanes = BatchLanesStore(desk.runner, lanes=1, worker="w")
    return LaneWorker(store, lanes, ItemAsker(desk.gateway), texts=KEYS, threads=1, retried=lambda: None, back_off=0.0)


@pytest.fixture
def lanes(runner: ScriptRunner) -> BatchLanesStore:
    return BatchLanesStore(runner, lanes=3, now="1000.0")


def at(lanes: BatchLanesStore, now: float) -> BatchLanesStore:
    lanes.now = str(now)
    return lanes


def test_a_pause_lasts_as_long_as_the_provider_asks(lanes: BatchLanesStore, runner: ScriptRunner) -> None:
    """After the pause one item probes, then all may ask; `go_on` ends the doubt, and the key expires."""
    assert lanes.paused().doubtful is False

    assert lanes.pause(30.0) == 30.0
    assert at(lanes, 1010.0).pause(5.0) == 20.0
    assert lanes.pause(40.0) == 40.0
    assert lanes.paused().seconds == 40.0
    probing = at(lanes, 1050.5).paused()
    later = at(lanes, 1051.0 + PROBE_SECONDS).paused()

    assert (probing.seconds, probing.doubtful, probing.probing) == (0.0, True, True)
    assert (later.seconds, later.doubtful, later.probing) == (0.0, True, False)
    assert runner.run([Call(None, ("PTTL", PAUSE))])[0] > 0
    lanes.go_on()
    assert lanes.paused().doubtful is False


def test_each_pause_is_longer_up_to_a_minute(lanes: BatchLanesStore) -> None:
    """Pauses last 1, 2, 4 … 60 seconds if the provider asks for less; after an hour there are no more pauses."""
    now, waits = 1000.0, list[float]()
    for _ in range(8):
        waits.append(at(lanes, now).pause(0.5))
        now += waits[-1] + 0.001

    assert waits == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, OWN_WAIT_MOST, OWN_WAIT_MOST]
    assert at(lanes, 1001.0 + BUSY_SECONDS).pause(30.0) == 0.0


def test_after_an_hour_of_429_items_fail(
    redis_url: str, store: SqlBatchStore, provider: BusyProvider, clock: FakeClock
) -> None:
    """Without a pause each 429 counts as an attempt, and the last one's error is the item's."""

    class Tired(BatchLanesStore):
        def pause(self, seconds: float) -> float:
            return 0.0

    provider.busy = True
    desk = Desk(redis_url, provider)
    task, _ = store.create(owner=OWNER, name="t", texts=["一"], options=BatchOptions(max_attempts=2))
    options: dict[str, Any] = {"texts": KEYS, "threads": 1, "retried": lambda: None, "back_off": 0.0}
    worker = LaneWorker(store, Tired(desk.runner, lanes=1), ItemAsker(desk.gateway), **options)

    worker.step(0)
    assert store.runnable() == (False, 30.0)
    clock.advance(30.0)
    worker.step(0)

    assert len(provider.refused) == 2
    assert store.get(task.task_id).status == "failed"
    assert store.rows(task.task_id)[0].attempts == 2
    desk.close()
