"""Ended batch tasks: their failed items asked again, the sums of their usage, their removal; and priorities."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest

from services.batches.claims import usage_sums
from services.batches.item import question_of
from services.errors import BatchFinished, BatchQueueFull, BatchUnfinished, BatchUnknown
from tests.support.batches.shelf import OWNER, Shelf, at
from tests.support.servers.processes import FakeClock

CNY = {"total_tokens": 7, "total_price": "0.0012", "currency": "CNY"}


@pytest.fixture
def shelf(url: str, clock: FakeClock) -> Iterator[Shelf]:
    with Shelf(url, clock=clock, max_unfinished=5) as shelf:
        yield shelf


def half_failed(shelf: Shelf) -> str:
    """Return the id of an ended task whose first item failed and whose second was answered."""
    task = shelf.submits(2, credential="sealed-fake")
    shelf.store.fail(shelf.claims(), "provider_error", "出错了", content="半", usage=CNY)
    shelf.store.complete(shelf.claims(), content="答", usage=CNY)
    return task.task_id


def test_only_failed_items_are_asked_again(shelf: Shelf, clock: FakeClock) -> None:
    """With the present credential; answers stay, the failed item is blank, and the task ends a second time."""
    task_id = half_failed(shelf)
    assert shelf.store.stored(task_id)
    ended = shelf.store.get(task_id)
    clock.now += 100.0

    again = shelf.store.retry_failed(task_id, OWNER, credential="sealed-again")

    assert (again.status, again.completed, again.failed, again.pending, again.ended) == ("running", 1, 0, 1, False)
    first, second = shelf.store.rows(task_id)
    assert (first.status, first.content, first.usage, first.error, first.attempts) == ("pending", "", {}, None, 0)
    assert second.content == "答"
    claimed = shelf.claims()
    assert (claimed.index, claimed.tries, claimed.task.credential) == (0, 1, "sealed-again")
    shelf.store.complete(claimed, content="后")
    task = shelf.store.get(task_id)
    assert (task.status, task.completed, task.failed) == ("completed", 2, 0)
    assert task.paused == ended.paused + (at(clock) - at(clock, -100.0))
    assert shelf.store.unstored() == [task_id]


def test_no_attempt_has_the_stream_of_an_earlier_one(shelf: Shelf) -> None:
    """Each attempt of each run has a message id of its own, however many attempts did not count."""
    task_id = shelf.submits(1, max_attempts=1).task_id
    seen = set()
    for _ in range(4):
        for _ in range(3):
            claimed = shelf.claims()
            seen.add(question_of(claimed.task, claimed.index, claimed.attempt).msgid)
            shelf.store.wait(claimed, 0.0, "provider_busy", "忙")
        claimed = shelf.claims()
        assert claimed.tries == 1
        seen.add(question_of(claimed.task, claimed.index, claimed.attempt).msgid)
        shelf.store.fail(claimed, "provider_error", "出错了")
        shelf.store.retry_failed(task_id)

    assert len(seen) == 16


def test_a_task_that_may_not_be_asked_again_stays_as_it_is(url: str, shelf: Shelf) -> None:
    """One that runs, was cancelled, has no failed item, is another owner's, or is one more than may be unfinished."""
    running = shelf.submits(2)
    with pytest.raises(BatchUnfinished):
        shelf.store.retry_failed(running.task_id)
    shelf.store.fail(shelf.claims(), "provider_error", "出错了")
    shelf.store.cancel(running.task_id)
    answered = shelf.ends(shelf.submits(1))

    for task_id, code in ((running.task_id, "batch_finished"), (answered.task_id, "batch_nothing_failed")):
        with pytest.raises(BatchFinished) as refusal:
            shelf.store.retry_failed(task_id)
        assert refusal.value.code == code
    task_id = half_failed(shelf)
    with pytest.raises(BatchUnknown):
        shelf.store.retry_failed(task_id, "key:another")
    for _ in range(5):
        shelf.submits(1)
    with pytest.raises(BatchQueueFull):
        shelf.store.retry_failed(task_id, OWNER)
    assert shelf.store.get(task_id).ended


def test_an_ended_task_has_the_sums_of_its_usage(shelf: Shelf) -> None:
    """Of failed items too, and of a cancelled task; none while it runs, and new ones after it was asked again."""
    task_id = half_failed(shelf)
    assert shelf.store.get(task_id).usage == ({"total_tokens": 14, "total_price": "0.0024", "currency": "CNY"},)

    assert shelf.store.retry_failed(task_id).usage == ()
    shelf.store.cancel(task_id)
    assert shelf.store.get(task_id).usage == ({"total_tokens": 7, "total_price": "0.0012", "currency": "CNY"},)


def test_each_currency_has_its_sums() -> None:
    """Prices are added as decimals; figures that a provider left out count as none."""
    usd = {"total_tokens": 1, "total_price": "0.1", "currency": "USD"}

    assert usage_sums([CNY, usd, usd, usd]) == [CNY, {"total_tokens": 3, "total_price": "0.3", "currency": "USD"}]
    assert usage_sums([{"total_tokens": 5}, {"total_price": "NaN"}]) == [
        {"total_tokens": 5, "total_price": "", "currency": ""}
    ]
    assert usage_sums([]) == []


def test_a_purged_task_is_gone(shelf: Shelf) -> None:
    """Its rows in both tables too; its key is free; one that has not ended or is another's stays."""
    task = shelf.submits(2, key="once", digest="d", priority="low")
    with pytest.raises(BatchUnfinished):
        shelf.store.purge(task.task_id)
    shelf.ends(task)
    with pytest.raises(BatchUnknown):
        shelf.store.purge(task.task_id, "key:another")

    shelf.store.purge(task.task_id, OWNER)

    assert shelf.finds(task.task_id) is None
    assert [shelf.rows(table) for table in ("tasks", "items")] == [0, 0]
    assert shelf.submits(1, key="once", digest="another").task_id != task.task_id


def shares(shelf: Shelf, claims: int) -> Counter[str]:
    """Return how many of these claims each priority gets; each claimed item ends at once."""
    found: Counter[str] = Counter()
    for _ in range(claims):
        claimed = shelf.claims()
        found[claimed.task.options.priority] += 1
        shelf.store.complete(claimed, content="答")
    return found


def test_a_higher_priority_gets_more_and_none_starves(shelf: Shelf) -> None:
    """While tasks of all priorities wait; equal ones share alike, and the last one left gets all."""
    for priority in ("low", "normal", "high"):
        shelf.submits(60, priority=priority)

    found = shares(shelf, 60)

    assert found["high"] > found["normal"] > found["low"] >= 3
    shares(shelf, 60)
    assert shares(shelf, 60).total() == 60


def test_tasks_of_one_priority_take_turns(shelf: Shelf) -> None:
    """Whatever their priority, each is served before one is served again."""
    for priority in ("low", "high"):
        tasks = {shelf.submits(4, priority=priority).task_id for _ in range(2)}
        order = []
        for _ in range(8):
            claimed = shelf.claims()
            order.append(claimed.task.task_id)
            shelf.store.complete(claimed, content="答")
        assert all({*pair} == tasks for pair in zip(order[::2], order[1::2], strict=True))
