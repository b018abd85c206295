"""Claims and ends of batch items in SQL, one contract on SQLite and MariaDB."""

from __future__ import annotations

from dataclasses import replace

import pytest

from services.batches.records import Claimed
from services.errors import BatchFinished
from tests.support.answers import typed
from tests.support.batches.shelf import OWNER, Shelf, at
from tests.support.servers.processes import FakeClock


def test_items_are_claimed_in_the_order_of_their_texts(shelf: Shelf, clock: FakeClock) -> None:
    """A claim carries all that the question needs, and the first one starts the task."""
    task = shelf.submits(["一", "二"], inputs={"a": 1}, credential="sealed-fake")
    clock.advance(5.0)

    first, second = shelf.claims(0), shelf.claims(1)

    assert (first.text, first.index, first.attempt, first.again) == ("一", 0, 1, False)
    assert (second.text, second.index) == ("二", 1)
    assert (first.task.owner, first.task.options.inputs, first.task.credential) == (OWNER, {"a": 1}, "sealed-fake")
    started = shelf.store.get(task.task_id)
    assert (started.status, started.started_at, started.running, started.pending) == ("running", at(clock), 2, 0)
    assert shelf.store.claim(2) is None


def test_a_lane_continues_its_running_item(shelf: Shelf) -> None:
    """The next holder of a lane gets its running item as the same attempt, before a new one, also when paused."""
    task = shelf.submits()
    first = shelf.claims(3)
    shelf.store.pause(task.task_id)

    again = shelf.claims(3)

    assert again == Claimed(first.task, first.index, first.text, 1, 3, again=True)
    assert shelf.store.running_lanes() == {3}
    assert shelf.store.complete(again, content="答")
    assert shelf.store.running_lanes() == set()


def test_the_item_of_a_removed_lane_is_taken_over(shelf: Shelf) -> None:
    """After the number of lanes was lowered, another lane takes the item; the first worker may still report its end."""
    shelf.submits()
    lost = shelf.claims(7)

    found = shelf.store.claim(1, lanes=5)

    assert found == Claimed(lost.task, lost.index, lost.text, 1, 1, again=True)
    assert shelf.store.running_lanes() == {1}
    assert [shelf.store.complete(claimed, content="答") for claimed in (lost, found)] == [True, False]


def test_a_lane_with_an_item_takes_over_no_other(shelf: Shelf) -> None:
    """A lane continues its own item before it takes over one of a removed lane."""
    shelf.submits()
    shelf.claims(7)
    own = shelf.claims(1)

    again = shelf.store.claim(1, lanes=5)

    assert again
    assert (again.index, again.again) == (own.index, True)


def test_the_task_served_longest_ago_comes_next(shelf: Shelf, clock: FakeClock) -> None:
    """Tasks take turns and a new task comes first, also when the clock goes back."""
    shelf.submits(["a"] * 5)
    shelf.submits(["b"] * 5)
    order = []
    for lane in range(4):
        order.append(shelf.claims(lane).text)
        clock.advance(-1.0)
    shelf.submits(["new"])

    order += [shelf.claims(lane).text for lane in range(4, 9)]

    assert [sorted(pair) for pair in (order[:2], order[2:4], order[5:7], order[7:])] == [["a", "b"]] * 4
    assert order[4] == "new"


def test_max_concurrent_bounds_a_tasks_running_items(shelf: Shelf) -> None:
    """At its bound a task gives no items while other tasks do; an ended item frees its slot."""
    shelf.submits(["bound"] * 3, max_concurrent=1)
    shelf.submits(["free"] * 2)
    held = [shelf.claims(lane) for lane in range(3)]
    assert sorted(claimed.text for claimed in held) == ["bound", "free", "free"]
    assert shelf.store.claim(3) is None
    assert shelf.store.runnable() == (False, None)

    shelf.store.complete(next(claimed for claimed in held if claimed.text == "bound"), content="答")

    assert shelf.store.runnable() == (True, None)
    assert shelf.claims(3).text == "bound"


def test_a_completed_item_keeps_all_parts_of_its_answer(shelf: Shelf, clock: FakeClock) -> None:
    """The item shows its answer at once, while other items are pending."""
    task = shelf.submits(2)
    claimed = shelf.claims()
    clock.advance(2.5)

    kept = shelf.store.complete(
        claimed, content="答", metadata={"provider": "dify"}, sources=[{"title": "手册"}], usage={"total_tokens": 7}
    )

    item, waiting = shelf.store.rows(task.task_id)
    assert kept
    assert (item.index, item.status, item.attempts, item.content, item.error) == (0, "completed", 1, "答", None)
    assert (item.metadata, item.sources) == ({"provider": "dify"}, (typed("手册"),))
    assert (item.usage, item.started_at, item.completed_at) == ({"total_tokens": 7}, at(clock, -2.5), at(clock))
    assert (waiting.status, waiting.attempts, waiting.content, waiting.started_at) == ("pending", 0, "", None)
    assert shelf.store.get(task.task_id).percentage == 50.0


def test_a_wait_does_not_count_as_an_attempt(shelf: Shelf) -> None:
    """A wait raises the attempt that fences late reports, but neither the attempts shown nor those that are bounded."""
    task = shelf.submits(1)
    first = shelf.claims()

    assert shelf.store.wait(first, 0.0, "provider_busy", "忙")
    waiting = shelf.store.rows(task.task_id)[0]
    second = shelf.claims()

    assert (waiting.attempts, waiting.metadata, waiting.error) == (0, {}, {"code": "provider_busy", "message": "忙"})
    assert (second.attempt, second.waits, second.tries) == (2, 1, 1)
    assert shelf.store.rows(task.task_id)[0].attempts == 1
    assert shelf.claims() == replace(second, again=True)
    assert not shelf.store.complete(first, content="late")
    assert shelf.store.retry(second, 0.0, "provider_error", "出错了")
    third = shelf.claims()
    assert (third.attempt, third.tries) == (3, 2)
    assert shelf.store.claim_again(1) is None
    assert shelf.store.complete(third, content="答", metadata={"waits": "the provider's own"})
    ended = shelf.store.rows(task.task_id)[0]
    assert (ended.attempts, ended.metadata) == (2, {"waits": "the provider's own"})


def test_a_retry_waits_for_its_time(shelf: Shelf, clock: FakeClock) -> None:
    """Until then the item is not claimed, it shows its last error, and `runnable` returns the seconds left."""
    task = shelf.submits(1)
    shelf.store.retry(shelf.claims(), 30.0, "provider_busy", "稍后")
    assert shelf.store.claim(0) is None
    assert shelf.store.runnable() == (False, 30.0)
    item = shelf.store.rows(task.task_id)[0]
    assert (item.status, item.error) == ("pending", {"code": "provider_busy", "message": "稍后"})

    clock.advance(30.0)

    assert shelf.store.runnable() == (True, None)
    assert shelf.claims().attempt == 2


def test_new_items_come_before_retries(shelf: Shelf) -> None:
    """An item that failed a moment ago does not delay items that were never asked."""
    shelf.submits(["failing", "fresh"])
    shelf.store.retry(shelf.claims(), 0.0, "provider_error", "出错了")

    assert [shelf.claims(lane).text for lane in (0, 1)] == ["fresh", "failing"]


def test_a_task_ends_with_its_last_item(shelf: Shelf, clock: FakeClock) -> None:
    """With one answer or more it is completed, however many items failed; its times and rate no longer change."""
    task = shelf.submits(3)
    shelf.store.complete(shelf.claims(), content="答")
    shelf.store.fail(shelf.claims(), "provider_error", "出错了")
    last = shelf.claims()
    clock.advance(10.0)
    assert shelf.store.get(task.task_id).estimated_completion == at(clock, 5.0)

    shelf.store.fail(last, "provider_error", "出错了")

    ended = shelf.store.get(task.task_id)
    clock.advance(99.0)
    assert (ended.status, ended.completed, ended.failed, ended.running) == ("completed", 1, 2, 0)
    assert (ended.completed_at, ended.cancelled_at, ended.error_message) == (at(clock, -99.0), None, "")
    assert (ended.percentage, ended.rate, ended.estimated_completion) == (100.0, 0.3, None)
    assert shelf.store.get(task.task_id).rate == 0.3
    assert shelf.store.runnable() == (False, None)


def test_a_task_without_any_answer_fails(shelf: Shelf) -> None:
    """The task has the error message of its last item, and every item has its own."""
    task = shelf.ends(shelf.submits(2), failing=True)

    assert (task.status, task.failed, task.error_message) == ("failed", 2, "出错了")
    assert [item.error for item in shelf.store.rows(task.task_id)] == [
        {"code": "provider_error", "message": "出错了"}
    ] * 2


def test_a_cancelled_task_stays_cancelled(shelf: Shelf, clock: FakeClock) -> None:
    """`cancel` returns the running items, their late reports are refused, and pending items are cancelled too."""
    task = shelf.submits(4)
    shelf.store.complete(shelf.claims(), content="答")
    running = [shelf.claims(lane) for lane in (0, 1)]

    ended, stopped = shelf.store.cancel(task.task_id)

    assert stopped == [(claimed.index, claimed.attempt) for claimed in running]
    assert (ended.status, ended.completed, ended.cancelled, ended.running) == ("cancelled", 1, 3, 0)
    assert (ended.cancelled_at, ended.completed_at) == (at(clock), None)
    assert not any(shelf.store.complete(claimed, content="late") for claimed in running)
    assert not shelf.store.retry(running[0], 0.0, "provider_error", "出错了")
    assert shelf.statuses(task) == ["completed", "cancelled", "cancelled", "cancelled"]
    assert shelf.store.claim(0) is None
    assert shelf.store.running_lanes() == set()
    assert shelf.store.get(task.task_id) == ended


def test_a_task_may_be_cancelled_before_it_starts(shelf: Shelf) -> None:
    """No item ran, and all are cancelled."""
    task = shelf.submits(3)

    ended, stopped = shelf.store.cancel(task.task_id)

    assert (stopped, ended.cancelled, ended.started_at, ended.rate) == ([], 3, None, 0.0)
    assert shelf.statuses(task) == ["cancelled"] * 3


def test_a_paused_task_gives_no_items(shelf: Shelf) -> None:
    """Running items may end, no new one is claimed, and `resume` continues with the next item."""
    task = shelf.submits(3)
    claimed = shelf.claims(0)

    assert shelf.store.pause(task.task_id).status == "paused"

    assert shelf.store.claim(1) is None
    assert shelf.store.runnable() == (False, None)
    assert shelf.store.complete(claimed, content="答")
    assert shelf.store.get(task.task_id).status == "paused"
    assert shelf.store.resume(task.task_id).status == "running"
    assert shelf.claims(1).index == 1


@pytest.mark.parametrize("end", ["completed", "failed", "cancelled"])
@pytest.mark.parametrize("change", ["cancel", "pause", "resume"])
def test_an_ended_task_cannot_be_changed(shelf: Shelf, end: str, change: str) -> None:
    """Cancel, pause and resume of an ended task raise `BatchFinished`."""
    task = shelf.submits(1)
    if end == "cancelled":
        shelf.store.cancel(task.task_id)
    else:
        shelf.ends(task, failing=end == "failed")
    before = shelf.store.get(task.task_id)

    with pytest.raises(BatchFinished):
        getattr(shelf.store, change)(task.task_id)

    assert before.status == end
    assert shelf.store.get(task.task_id) == before


def test_an_item_costs_a_fixed_number_of_round_trips(shelf: Shelf, clock: FakeClock) -> None:
    """Its claim and its end, BEGIN and COMMIT included; the last item of a task also ends the task."""
    shelf.submits(3)
    claims: list[Claimed] = []

    claimed = [shelf.count(lambda: claims.append(shelf.claims(len(claims)))) for _ in range(3)]
    first, second, third = claims
    ended = [
        shelf.count(lambda: shelf.store.complete(first, content="答", usage={"total_tokens": 7})),
        shelf.count(lambda: shelf.store.retry(second, 30.0, "provider_error", "出错了")),
        shelf.count(lambda: shelf.store.fail(third, "provider_error", "出错了")),
    ]
    clock.advance(30.0)
    again = shelf.claims()
    ended.append(shelf.count(lambda: shelf.store.complete(again, content="答")))

    # The turns are of high, low and high priority: with none of high priority there are more looks for a task.
    assert claimed == [10, 10, 12]
    assert ended == [5, 5, 5, 8]


def test_ended_returns_the_ended_tasks(shelf: Shelf) -> None:
    """`ended` returns those of the given tasks that have ended or do not exist any more."""
    going, paused = shelf.submits(1), shelf.submits(1)
    over = shelf.submits(1)
    shelf.store.pause(paused.task_id)
    shelf.store.cancel(over.task_id)

    assert shelf.store.ended({going.task_id, paused.task_id, over.task_id, "gone"}) == {over.task_id, "gone"}
    assert shelf.store.ended(set()) == set()
