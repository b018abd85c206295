"""`LaneWorker`: an item is asked once by any number of workers, and its end is stored after outages."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from services.batches.engine import Lane, LaneWorker
from services.batches.item import ItemAsker, Outcome, question_of
from services.batches.lanes_store import OWNERS, BatchLanesStore
from services.batches.records import BatchOptions, Claimed, Item
from services.batches.store import SqlBatchStore
from services.errors import ProviderError, StoreUnavailable
from services.models import Delta, ProviderEvent, Query, Usage
from services.redis.store import Call
from tests.support.answers import typed
from tests.support.batches.desk import OWNER, TIMEOUT, ScriptedProvider, in_thread
from tests.support.schema import migrated
from tests.support.servers.processes import FakeClock, wait_until
from tests.support.streams.desk import Desk
from tests.support.texts import KEYS
from utils.deadline import Deadline


class Worker(LaneWorker):
    """A lane worker of a desk that runs in the test's threads."""

    def __init__(self, desk: Desk, store: SqlBatchStore, **options: Any) -> None:
        self.lanes = BatchLanesStore(desk.runner, lanes=3, worker="w")
        asker = options.pop("asker", None) or ItemAsker(desk.gateway)
        options = {"texts": KEYS, "threads": 3, "retried": lambda: None, "back_off": 0.0, **options}
        super().__init__(store, self.lanes, asker, **options)


class Forgetful(SqlBatchStore):
    """A store whose database fails the next `away` ends, or fails `lost` ends after it has committed them."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.away = 0
        self.lost = 0

    def complete(self, claimed: Claimed, **answer: Any) -> bool:
        if self.away:
            self.away -= 1
            raise StoreUnavailable("away")
        done = super().complete(claimed, **answer)
        if self.lost:
            self.lost -= 1
            raise StoreUnavailable("the reply to the commit was lost")
        return done


@pytest.fixture
def provider() -> ScriptedProvider:
    return ScriptedProvider()


@pytest.fixture
def desk(redis_url: str, provider: ScriptedProvider) -> Iterator[Desk]:
    desk = Desk(redis_url, provider)
    yield desk
    provider.held.clear()
    desk.close()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Forgetful]:
    store = Forgetful(migrated(f"sqlite:///{tmp_path / 'batch.db'}"))
    yield store
    store.close()


@pytest.fixture
def worker(desk: Desk, store: Forgetful) -> Worker:
    return Worker(desk, store)


def submitted(store: SqlBatchStore, *texts: str, **options: Any) -> str:
    task, _ = store.create(owner=OWNER, name="t", texts=texts, options=BatchOptions(**options))
    return task.task_id


def ended(thread: threading.Thread) -> None:
    """Wait for a thread to end; fail if it does not."""
    thread.join(TIMEOUT)
    assert not thread.is_alive()


def item(store: SqlBatchStore, task_id: str, index: int = 0) -> Item:
    return store.rows(task_id, index - 1, 1)[0]


def test_a_lane_is_worked_until_nothing_is_left(
    worker: Worker, store: Forgetful, provider: ScriptedProvider, desk: Desk
) -> None:
    """Items are asked one after the other, with the task's inputs and no conversation, and keep their whole answers."""
    task_id = submitted(store, "一", "二", inputs={"lang": "zh"})

    assert worker.step(0) is False

    assert store.get(task_id).status == "completed"
    found = item(store, task_id, 1)
    assert (found.content, found.sources, found.usage["total_tokens"]) == ("答：二", (typed("手册"),), 7)
    assert (found.metadata["provider"], found.metadata["message_id"]) == ("scripted", "m-二")
    assert [(query.text, query.channel, query.conversation_id) for query in provider.queries] == [
        ("一", "batch", ""),
        ("二", "batch", ""),
    ]
    assert provider.queries[0].inputs == {"lang": "zh"}
    assert worker.lanes.look().held == 0


def test_a_lane_of_another_worker_is_left_alone(worker: Worker, store: Forgetful, provider: ScriptedProvider) -> None:
    """A duplicate message is dropped, and so is a message for a lane that does not exist."""
    submitted(store, "一")
    worker.lanes.take(0, "another")

    assert [worker.step(0), worker.step(3)] == [False, False]

    assert provider.asked == []


def test_a_worker_may_leave_while_a_lane_begins(
    worker: Worker, store: Forgetful, provider: ScriptedProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread that is not started yet is not waited for, and asks nothing when it starts."""
    submitted(store, "一")
    begins = threading.Barrier(2, timeout=TIMEOUT)
    left, start = list[bool](), threading.Thread.start

    def slowly(thread: threading.Thread) -> None:
        if thread.name.startswith("batch-lane"):
            begins.wait()
            begins.wait()
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", slowly)
    beginning = threading.Thread(target=worker.begin, args=({0}, left.append))
    beginning.start()
    begins.wait()
    worker.stop()
    worker.join(TIMEOUT)
    begins.wait()

    ended(beginning)
    wait_until(lambda: left == [True], timeout=TIMEOUT)
    assert provider.asked == []


def test_a_worker_releases_lanes_above_its_share(desk: Desk, store: Forgetful, provider: ScriptedProvider) -> None:
    """When another process starts, lanes are released for it, after their items; the step returns True."""
    provider.held.update(("一", "二", "三"))
    submitted(store, *"一二三四五六")
    worker, left = Worker(desk, store), list[bool]()
    worker.renew()
    worker.begin({0, 1, 2}, left.append)
    wait_until(lambda: provider.running == 3, timeout=TIMEOUT)

    BatchLanesStore(desk.runner, lanes=3, worker="other").renew({})
    worker.renew()
    provider.held.remove("一")
    wait_until(lambda: left == [True], timeout=TIMEOUT)

    assert (worker.lanes.look().held, provider.running, len(provider.asked)) == (2, 2, 3)
    provider.held.clear()
    worker.join(TIMEOUT)
    assert (left, len(provider.asked)) == ([True, False, False], 6)


def test_a_worker_begins_no_lanes_above_its_share(desk: Desk, store: Forgetful, provider: ScriptedProvider) -> None:
    """It has no lane twice either, and once it leaves it begins none."""
    provider.held.update("一二三四")
    submitted(store, *"一二三四")
    BatchLanesStore(desk.runner, lanes=3, worker="other").renew({})
    worker, left = Worker(desk, store), list[bool]()
    worker.renew()

    worker.begin({0, 1, 2}, left.append)
    wait_until(lambda: provider.running == 2, timeout=TIMEOUT)
    worker.begin({0, 1, 2}, left.append)
    assert worker.busy == 2

    worker.leave()
    provider.held.clear()
    worker.join(TIMEOUT)
    worker.begin({0, 1, 2}, left.append)
    assert (left, worker.busy, len(provider.asked)) == ([True, True], 0, 2)


def test_a_lane_that_fails_leaves_the_others(
    desk: Desk, store: Forgetful, provider: ScriptedProvider, caplog: pytest.LogCaptureFixture
) -> None:
    """Its error is logged, and it is released; a task that another lane works on ends."""

    class Broken(Worker):
        def _next(self, lane: Lane) -> bool:
            if lane.number == 0:
                raise ValueError("broken")
            return super()._next(lane)

    task_id = submitted(store, "一")
    worker, left = Broken(desk, store), list[bool]()

    worker.begin({0, 1}, left.append)
    worker.join(TIMEOUT)

    assert "ValueError: broken" in caplog.text
    assert (left, worker.lanes.look().held) == ([False], 0)
    assert store.get(task_id).completed == 1


@pytest.mark.parametrize("code", ["provider_busy", "provider_timeout", "provider_truncated", "provider_error"])
def test_a_temporary_error_is_retried(worker: Worker, store: Forgetful, provider: ScriptedProvider, code: str) -> None:
    """A second attempt that succeeds leaves no error on the item."""
    provider.failures["一"] = [code]
    task_id = submitted(store, "一")

    worker.step(0)

    found = item(store, task_id)
    assert (found.status, found.attempts, found.content, found.error) == ("completed", 2, "答：一", None)


def test_a_permanent_error_is_not_retried(worker: Worker, store: Forgetful, provider: ScriptedProvider) -> None:
    """A refused key fails the item at once, with code and sentence, and with no content."""
    provider.failures["一"] = ["provider_unauthorized"]
    task_id = submitted(store, "一")

    worker.step(0)

    found = item(store, task_id)
    assert (found.status, found.attempts, found.content) == ("failed", 1, "")
    assert found.error == {"code": "provider_unauthorized", "message": "<provider_unauthorized>"}
    assert store.get(task_id).status == "failed"


def test_a_failed_item_keeps_its_partial_answer_and_usage(redis_url: str, store: Forgetful) -> None:
    """The item has the text so far, its tokens and the provider; the sentence of the error is not in the text."""

    class Filtered(ScriptedProvider):
        def stream_query(self, query: Query, deadline: Deadline) -> Iterator[ProviderEvent]:
            yield Delta("半句")
            yield Usage(31, 21, 10)
            raise ProviderError(code="provider_filtered")

    other = Desk(redis_url, Filtered())
    task_id = submitted(store, "一")

    Worker(other, store).step(0)

    found = item(store, task_id)
    assert (found.status, found.attempts, found.content) == ("failed", 1, "半句")
    assert (found.usage["total_tokens"], found.metadata["provider"]) == (31, "scripted")
    assert found.error == {"code": "provider_filtered", "message": "<provider_filtered>"}
    other.close()


def test_attempts_are_bounded_by_the_task(worker: Worker, store: Forgetful, provider: ScriptedProvider) -> None:
    """When attempts are used up, the last error is the item's."""
    provider.failures["一"] = ["provider_busy"] * 5
    task_id = submitted(store, "一", max_attempts=2)

    worker.step(0)

    assert item(store, task_id).status == "failed"
    assert provider.asked == ["一", "一"]


def test_back_off_doubles_with_each_attempt(desk: Desk, store: Forgetful) -> None:
    """Attempts wait up to 1, 2, 4, 8 seconds; `dice` picks a time within the range."""
    waits: list[float] = []

    class Timed(Forgetful):
        def retry(self, claimed: Claimed, after: float, code: str, message: str) -> bool:
            waits.append(after)
            return True

    worker = LaneWorker(
        Timed.__new__(Timed),
        BatchLanesStore(desk.runner, lanes=1),
        ItemAsker(desk.gateway),
        texts=KEYS,
        threads=1,
        retried=lambda: None,
        dice=lambda low, high: high,
    )
    submitted(store, "一", max_attempts=5)
    claimed = store.claim(0)
    assert claimed

    for attempt in (1, 2, 3, 4):
        worker._store_end(_at(claimed, attempt), Outcome("provider_busy"))

    assert waits == [1.0, 2.0, 4.0, 8.0]


def _at(claimed: Claimed, attempt: int) -> Claimed:
    return Claimed(claimed.task, claimed.index, claimed.text, attempt, claimed.lane)


def test_a_killed_workers_item_is_found_and_not_asked_twice(
    worker: Worker, store: Forgetful, provider: ScriptedProvider, desk: Desk
) -> None:
    """The next worker finds the item by its lane and the answer by its stream."""
    task_id = submitted(store, "一", "二")
    claimed = store.claim(0)
    assert claimed
    desk.gateway.ask(question_of(claimed.task, 0, 1, "一"))

    worker.step(0)

    assert store.get(task_id).completed == 2
    assert provider.asked == ["一", "二"]
    assert item(store, task_id).attempts == 1


def test_a_holder_that_lost_its_lane_stops_following(
    desk: Desk, worker: Worker, store: Forgetful, provider: ScriptedProvider
) -> None:
    """A worker that was paused too long learns of its loss, asks no more, and the next holder stores the item's end."""
    provider.held.add("一")
    task_id = submitted(store, "一", "二")
    thread = in_thread(lambda: worker.step(0))
    wait_until(lambda: provider.asked == ["一"], timeout=TIMEOUT)
    desk.runner.run([Call(None, ("HSET", OWNERS), ("0", "another's token"))])

    worker.renew()
    ended(thread)

    assert store.running_lanes() == {0}
    desk.runner.run([Call(None, ("HDEL", OWNERS), ("0",))])
    provider.held.clear()
    Worker(desk, store).step(0)
    assert store.get(task_id).status == "completed"
    assert provider.asked == ["一", "二"]


def test_two_holders_of_one_lane_do_the_same_work_once(
    desk: Desk, worker: Worker, store: Forgetful, provider: ScriptedProvider
) -> None:
    """When Redis lost the lanes' owners, both workers follow one stream: one call, one stored end."""
    provider.held.add("一")
    task_id = submitted(store, "一")
    first = in_thread(lambda: worker.step(0))
    wait_until(lambda: provider.asked == ["一"], timeout=TIMEOUT)
    desk.runner.run([Call(None, ("DEL", OWNERS))])
    second = in_thread(lambda: Worker(desk, store).step(0))
    wait_until(lambda: desk.runner.run([Call(None, ("HLEN", OWNERS))]) == [1], timeout=TIMEOUT)

    provider.held.clear()
    ended(first)
    ended(second)

    assert store.get(task_id).completed == 1
    assert provider.asked == ["一"]


def test_a_released_lane_is_not_renewed(desk: Desk, worker: Worker) -> None:
    """A renewal that runs at the moment of the release does not take the lane again."""
    lane = in_step(worker)

    class Late(BatchLanesStore):
        def renew(self, held: Any, *, leaving: bool = False) -> tuple[int, list[int]]:
            worker._held.pop(0)
            worker.lanes.release({0: lane})
            return super().renew(held, leaving=leaving)

    worker._lanes = Late(desk.runner, lanes=3, worker="w")
    worker.renew()

    assert worker.lanes.look().free == (0, 1, 2)


def in_step(worker: Worker) -> str:
    """Have the worker take lane 0, as a step does; return the lane's token."""
    from services.batches.engine import Lane

    lane = Lane(0)
    assert worker._take(lane)
    return lane.token


def test_an_end_is_stored_when_the_database_is_back(
    worker: Worker, store: Forgetful, provider: ScriptedProvider
) -> None:
    """The worker keeps the answer and tries again; no answer is lost and no item asked twice."""
    store.away = 1
    task_id = submitted(store, "一", "二")

    worker.step(0)

    assert store.get(task_id).completed == 2
    assert provider.asked == ["一", "二"]


def test_an_end_whose_reply_was_lost_is_stored_once(
    worker: Worker, store: Forgetful, provider: ScriptedProvider
) -> None:
    """Storing it again changes nothing, and the lane continues."""
    store.lost = 1
    task_id = submitted(store, "一", "二")

    worker.step(0)

    assert [found.attempts for found in store.rows(task_id)] == [1, 1]
    assert store.get(task_id).completed == 2


def test_a_leaving_worker_ends_its_item_and_begins_none(
    worker: Worker, store: Forgetful, provider: ScriptedProvider
) -> None:
    """Its lane is released then, and the step returns True: items are left."""
    provider.held.add("一")
    task_id = submitted(store, "一", "二")
    more: list[bool] = []
    thread = in_thread(lambda: more.append(worker.step(0)))
    wait_until(lambda: provider.asked == ["一"], timeout=TIMEOUT)

    worker.leave()
    provider.held.clear()
    ended(thread)

    assert more == [True]
    assert worker.step(1) is True
    assert [found.status for found in store.rows(task_id)] == ["completed", "pending"]
    assert worker.lanes.look().held == 0


def test_a_stopped_worker_leaves_its_item_to_others(
    desk: Desk, worker: Worker, store: Forgetful, provider: ScriptedProvider
) -> None:
    """The stream continues, and the next worker finds it as the same attempt."""
    provider.held.add("一")
    task_id = submitted(store, "一")
    thread = in_thread(lambda: worker.step(0))
    wait_until(lambda: provider.asked == ["一"], timeout=TIMEOUT)

    worker.stop()
    ended(thread)
    assert item(store, task_id).status == "running"

    provider.held.clear()
    Worker(desk, store).step(0)
    assert (item(store, task_id).status, item(store, task_id).attempts) == ("completed", 1)
    assert provider.asked == ["一"]


def test_a_task_cancelled_elsewhere_is_stopped_by_the_watch(
    worker: Worker, store: Forgetful, provider: ScriptedProvider
) -> None:
    """When `cancel` found no stream to stop, `watch` ends the provider's call; the lane continues with other tasks."""
    provider.held.add("一")
    first, second = submitted(store, "一"), submitted(store, "二")
    thread = in_thread(lambda: worker.step(0))
    wait_until(lambda: provider.running == 1 and all(lane.stream_id for lane in worker._held.values()), TIMEOUT)

    worker.watch()
    assert provider.running == 1
    store.cancel(first)
    worker.watch()
    wait_until(lambda: provider.running == 0, timeout=TIMEOUT)
    ended(thread)

    assert item(store, first).status == "cancelled"
    assert store.get(second).status == "completed"


def test_a_full_replica_costs_an_item_no_attempt(
    desk: Desk, store: Forgetful, provider: ScriptedProvider, clock: FakeClock
) -> None:
    """The step returns True without an attempt; with a free slot the item's first attempt is asked."""
    asker = ItemAsker(desk.gateway, sleep=clock.advance, clock=clock)
    worker = Worker(desk, store, asker=asker)
    task_id = submitted(store, "一")
    desk.manager.draining = True

    assert worker.step(0) is True
    assert provider.asked == []

    desk.manager.draining = False
    Worker(desk, store).step(0)
    assert (item(store, task_id).status, item(store, task_id).attempts) == ("completed", 1)


def test_an_unexpected_exception_fails_the_item_alone(
    desk: Desk, store: Forgetful, caplog: pytest.LogCaptureFixture
) -> None:
    """The item fails and is not claimed again for ever."""

    class Broken(ItemAsker):
        def ask(self, claimed: Claimed, *, going_on: Callable[[], bool], opened: Any = None) -> Outcome | None:
            raise ValueError("broken")

    task_id = submitted(store, "一")

    Worker(desk, store, asker=Broken(desk.gateway)).step(0)

    found = item(store, task_id)
    assert found.error == {"code": "answer_failed", "message": "<answer_failed>"}
    assert "ValueError: broken" in caplog.text
