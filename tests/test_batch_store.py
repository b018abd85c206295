"""Batch tasks in SQL, one contract on SQLite and MariaDB: what is kept, who gets what when, and how a task ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from services.batch_records import BatchOptions, Claimed, Task
from services.batch_store import SqlBatchStore
from services.errors import BatchConflict, BatchFinished, BatchQueueFull, BatchUnknown
from tests.batch_shelf import OWNER, Shelf
from tests.servers import FakeClock, MariaServer

#: What a store may lose or change: emoji, NUL, characters of four bytes, quotes, what SQL and LIKE mean, line ends.
HARD = [
    "😀👩‍👩‍👧",
    "a\0b\0",
    "𠮷野家",
    "'; DROP TABLE x; -- \\' \" ` %s %(a)s :a",
    "  两端  ",
    "a\r\nb\tc",
    "é\u0301\u200b\ufeff",
]

Change = Callable[[SqlBatchStore, Task], object]


@pytest.fixture
def shelf(sql_url: str, clock: FakeClock) -> Iterator[Shelf]:
    """A store on an empty database whose clock stands still."""
    shelf = Shelf(sql_url, clock=clock, max_unfinished=5)
    yield shelf
    shelf.store.close()


@pytest.fixture
def store(shelf: Shelf) -> SqlBatchStore:
    return shelf.store


def at(clock: FakeClock, seconds: float = 0.0) -> datetime:
    return datetime.fromtimestamp(clock.now + seconds, UTC)


def test_a_task_is_kept_as_it_was_submitted(store: SqlBatchStore, clock: FakeClock) -> None:
    """What whoever submitted it said is what everybody reads."""
    options = BatchOptions({"部门": "人事", "n": 1, "x": 0.5, "b": True}, max_attempts=5, max_concurrent=2)

    task, created = store.create(
        owner=OWNER, name="七月", description="为什么", texts=["一", "二"], options=options, credential="sealed-fake"
    )

    assert created
    assert task == store.get(task.task_id) == store.find(task.task_id, OWNER)
    assert (task.owner, task.name, task.description, task.options) == (OWNER, "七月", "为什么", options)
    assert (task.status, task.total, task.pending, task.credential) == ("pending", 2, 2, "sealed-fake")
    assert (task.created_at, task.started_at, task.completed_at) == (at(clock), None, None)


def test_every_character_survives(shelf: Shelf) -> None:
    """Texts, answers and what goes with them come back byte for byte."""
    task = shelf.submits(HARD, name=HARD[0], description=HARD[3], inputs={"a": HARD[3]})

    for text in HARD:
        claimed = shelf.claims()
        assert claimed.text == text
        words = {"title": text}
        assert shelf.store.complete(claimed, content=text, metadata=words, sources=[words, words], usage=words)

    items = shelf.store.rows(task.task_id)
    assert [item.text for item in items] == [item.content for item in items] == HARD
    assert [(item.metadata, item.sources, item.usage) for item in items] == [
        ({"title": text}, ({"title": text}, {"title": text}), {"title": text}) for text in HARD
    ]
    kept = shelf.store.get(task.task_id)
    assert (kept.name, kept.description, kept.options.inputs) == (HARD[0], HARD[3], {"a": HARD[3]})


def test_half_a_character_becomes_a_question_mark(shelf: Shelf) -> None:
    """A provider's lone surrogate, which no database takes, costs no answer."""
    task = shelf.submits(1)

    assert shelf.store.complete(shelf.claims(), content="a\ud83db", metadata={"a": "\ud83d"})

    assert shelf.store.rows(task.task_id)[0].content == "a?b"


def test_long_texts_pass_a_server_that_takes_small_packets(maria_server: MariaServer, clock: FakeClock) -> None:
    """Texts of ten megabytes arrive by portions below a server's least limit, in order."""
    before = maria_server.execute("SELECT @@GLOBAL.max_allowed_packet")[0][0]
    texts = [f"{n}" + "'年" * 5000 for n in range(500)]
    url = maria_server.fresh_database()
    maria_server.execute("SET GLOBAL max_allowed_packet = 1048576")
    try:
        shelf = Shelf(url, clock=clock)
        task = shelf.submits(texts)

        found = [item.text for after in range(-1, 499, 100) for item in shelf.store.rows(task.task_id, after)]

        assert found == texts
        shelf.store.close()
    finally:
        maria_server.execute(f"SET GLOBAL max_allowed_packet = {before}")


def test_ten_thousand_texts_are_one_task(shelf: Shelf) -> None:
    """The largest task arrives whole and in order, and its middle is read without its beginning."""
    task = shelf.submits([f"{n}" for n in range(10_000)])

    assert task.total == 10_000
    assert [item.text for item in shelf.store.results(task.task_id, page=51, size=100)] == [
        f"{n}" for n in range(5000, 5100)
    ]
    assert shelf.store.rows(task.task_id, after=9_999) == []


def test_no_texts_are_no_task(store: SqlBatchStore) -> None:
    """A task without items could never end."""
    with pytest.raises(ValueError, match="text"):
        store.create(owner=OWNER, name="leer", texts=[])


def test_a_key_said_again_finds_its_task(shelf: Shelf) -> None:
    """The same submission under the same key is one task, also when the queue is full by now."""
    first = shelf.submits(key="k", digest="d")
    for _ in range(4):
        shelf.submits(1)

    again, created = shelf.store.create(owner=OWNER, name="another", texts=["x"], key="k", digest="d")

    assert (again, created) == (first, False)


def test_a_key_stands_for_one_submission_only(shelf: Shelf) -> None:
    """Something else under the same key is refused, and leaves nothing."""
    shelf.submits(key="k", digest="d")

    with pytest.raises(BatchConflict):
        shelf.submits(key="k", digest="other")

    assert shelf.store.list()[1] == 1


def test_owners_and_keys_are_the_same_only_byte_for_byte(shelf: Shelf) -> None:
    """Another case, an accent, or a space at the end is another one's."""
    task = shelf.submits(owner="user:jose", key="k", digest="d")

    for owner, key in [("user:José", "k"), ("user:JOSE", "k"), ("user:jose ", "k"), ("user:jose", "K")]:
        assert shelf.submits(1, owner=owner, key=key, digest="other").task_id != task.task_id
    for owner in ("user:José", "user:JOSE", "user:jose "):
        assert shelf.store.find(task.task_id, owner) is None
        assert shelf.store.list(owner)[1] == 1


def test_another_owners_task_is_unknown(shelf: Shelf) -> None:
    """Whether there is no such task or it is somebody else's is nobody's business."""
    task = shelf.submits()
    calls: list[Callable[[], object]] = [
        lambda: shelf.store.get("00000000-0000-4000-8000-000000000000"),
        lambda: shelf.store.get(task.task_id, "key:other"),
        lambda: shelf.store.cancel(task.task_id, "key:other"),
        lambda: shelf.store.pause(task.task_id, "key:other"),
        lambda: shelf.store.resume(task.task_id, "key:other"),
    ]

    for call in calls:
        with pytest.raises(BatchUnknown):
            call()

    assert shelf.store.get(task.task_id).status == "pending"


def test_the_queue_is_full_of_unfinished_tasks_only(shelf: Shelf) -> None:
    """Paused ones count, ended ones do not, and what is refused leaves nothing."""
    tasks = [shelf.submits(1) for _ in range(5)]
    shelf.store.pause(tasks[0].task_id)
    with pytest.raises(BatchQueueFull):
        shelf.submits(1)
    assert shelf.store.list()[1] == 5

    shelf.store.cancel(tasks[1].task_id)

    assert shelf.submits(1).status == "pending"


def test_tasks_are_listed_newest_first_by_pages(shelf: Shelf, clock: FakeClock) -> None:
    """A page has its share, and the total is of all pages; other owners' are not in it."""
    mine = []
    for _ in range(4):
        clock.advance(1.0)
        mine.append(shelf.submits(1).task_id)
    shelf.submits(1, owner="key:other")

    pages = [shelf.store.list(OWNER, page=page, size=3) for page in (1, 2, 3)]

    assert [[task.task_id for task in tasks] for tasks, _ in pages] == [mine[:0:-1], mine[:1], []]
    assert [total for _, total in pages] == [4, 4, 4]
    assert shelf.store.list()[1] == 5


def test_tasks_are_listed_and_counted_by_status(shelf: Shelf) -> None:
    """A status filters the list, and every status has its number."""
    done, cancelled = shelf.ends(shelf.submits(2)), shelf.submits(1)
    shelf.store.cancel(cancelled.task_id)
    shelf.submits(1)

    assert [task.task_id for task in shelf.store.list(OWNER, "completed")[0]] == [done.task_id]
    assert shelf.store.list(OWNER, "paused") == ([], 0)
    assert shelf.store.totals() == {
        "pending": 1, "running": 0, "paused": 0, "completed": 1, "failed": 0, "cancelled": 1,
    }  # fmt: skip


def test_items_are_claimed_in_the_order_of_their_texts(shelf: Shelf, clock: FakeClock) -> None:
    """A claim carries all that asking needs, and the task has started."""
    task = shelf.submits(["一", "二"], inputs={"a": 1}, credential="sealed-fake")
    clock.advance(5.0)

    first, second = shelf.claims(0), shelf.claims(1)

    assert (first.text, first.index, first.attempt, first.again) == ("一", 0, 1, False)
    assert (second.text, second.index) == ("二", 1)
    assert (first.task.owner, first.task.options.inputs, first.task.credential) == (OWNER, {"a": 1}, "sealed-fake")
    started = shelf.store.get(task.task_id)
    assert (started.status, started.started_at, started.running, started.pending) == ("running", at(clock), 2, 0)
    assert shelf.store.claim(2) is None


def test_a_lane_goes_on_with_the_item_it_has(shelf: Shelf) -> None:
    """Whoever works the lane after a worker that died gets the same attempt, before anything new, paused or not."""
    task = shelf.submits()
    first = shelf.claims(3)
    shelf.store.pause(task.task_id)

    again = shelf.claims(3)

    assert again == Claimed(first.task, first.index, first.text, 1, 3, again=True)
    assert shelf.store.running_lanes() == {3}
    assert shelf.store.complete(again, content="答")
    assert shelf.store.running_lanes() == set()


def test_the_item_of_a_lane_that_is_no_more_is_taken_over(shelf: Shelf) -> None:
    """With fewer lanes than before, what a higher one had is done by another, and its first worker is still heard."""
    shelf.submits()
    lost = shelf.claims(7)

    found = shelf.store.claim(1, lanes=5)

    assert found == Claimed(lost.task, lost.index, lost.text, 1, 1, again=True)
    assert shelf.store.running_lanes() == {1}
    assert [shelf.store.complete(claimed, content="答") for claimed in (lost, found)] == [True, False]


def test_a_lane_in_work_takes_over_nothing(shelf: Shelf) -> None:
    """Its own item comes first."""
    shelf.submits()
    shelf.claims(7)
    own = shelf.claims(1)

    again = shelf.store.claim(1, lanes=5)

    assert again
    assert (again.index, again.again) == (own.index, True)


def test_the_task_served_longest_ago_comes_next(shelf: Shelf, clock: FakeClock) -> None:
    """A small task is not kept waiting by a large one; the clock may stand still or go back."""
    large, small = shelf.submits(["L"] * 5), shelf.submits(["s"] * 2)
    order = []
    for lane in range(4):
        order.append(shelf.claims(lane).text)
        clock.advance(-1.0)
    shelf.submits(["new"])

    order += [shelf.claims(lane).text for lane in range(4, 8)]

    assert sorted(order[:2]) == sorted(order[2:4]) == ["L", "s"]
    assert order[4:] == ["new", "L", "L", "L"]
    assert [shelf.store.get(task.task_id).running for task in (large, small)] == [5, 2]


def test_a_task_has_as_many_items_in_work_as_its_owner_wants(shelf: Shelf) -> None:
    """Beyond its own bound other tasks come, and a place that is free again is used."""
    shelf.submits(["bound"] * 3, max_concurrent=1)
    shelf.submits(["free"] * 2)
    held = [shelf.claims(lane) for lane in range(3)]
    assert sorted(claimed.text for claimed in held) == ["bound", "free", "free"]
    assert shelf.store.claim(3) is None
    assert shelf.store.runnable() == (False, None)

    shelf.store.complete(next(claimed for claimed in held if claimed.text == "bound"), content="答")

    assert shelf.store.runnable() == (True, None)
    assert shelf.claims(3).text == "bound"


def test_an_answer_is_kept_with_all_that_goes_with_it(shelf: Shelf, clock: FakeClock) -> None:
    """The item shows it at once, while others wait."""
    task = shelf.submits(2)
    claimed = shelf.claims()
    clock.advance(2.5)

    kept = shelf.store.complete(
        claimed, content="答", metadata={"provider": "dify"}, sources=[{"title": "手册"}], usage={"total_tokens": 7}
    )

    item, waiting = shelf.store.results(task.task_id)
    assert kept
    assert (item.index, item.status, item.attempts, item.content, item.error) == (0, "completed", 1, "答", None)
    assert (item.metadata, item.sources) == ({"provider": "dify"}, ({"title": "手册"},))
    assert (item.usage, item.started_at, item.completed_at) == ({"total_tokens": 7}, at(clock, -2.5), at(clock))
    assert (waiting.status, waiting.attempts, waiting.content, waiting.started_at) == ("pending", 0, "", None)
    assert shelf.store.get(task.task_id).percentage == 50.0


def test_what_was_answered_stays(shelf: Shelf) -> None:
    """A second report of the same attempt, whatever it says, changes nothing."""
    task = shelf.submits(2)
    claimed = shelf.claims()
    assert shelf.store.complete(claimed, content="答")

    said = [
        shelf.store.complete(claimed, content="other"),
        shelf.store.fail(claimed, "provider_error", "出错了"),
        shelf.store.retry(claimed, 0.0, "provider_error", "出错了"),
        shelf.store.put_back(claimed),
    ]

    assert said == [False] * 4
    assert shelf.store.rows(task.task_id)[0].content == "答"


def test_a_late_report_of_an_earlier_attempt_is_refused(shelf: Shelf) -> None:
    """Once an item is asked again, only the attempt of now is heard."""
    task = shelf.submits(1)
    early = shelf.claims(0)
    assert shelf.store.retry(early, 0.0, "provider_timeout", "超时")
    late = shelf.claims(1)

    assert late.attempt == 2
    assert not shelf.store.complete(early, content="early")
    assert shelf.store.complete(late, content="late")

    item = shelf.store.rows(task.task_id)[0]
    assert (item.content, item.attempts, item.error) == ("late", 2, None)


def test_a_retry_waits_for_its_time(shelf: Shelf, clock: FakeClock) -> None:
    """Until then nobody gets it, its last error shows, and it is told when to come back."""
    task = shelf.submits(1)
    shelf.store.retry(shelf.claims(), 30.0, "provider_busy", "稍后")
    assert shelf.store.claim(0) is None
    assert shelf.store.runnable() == (False, 30.0)
    item = shelf.store.rows(task.task_id)[0]
    assert (item.status, item.error) == ("pending", {"code": "provider_busy", "message": "稍后"})

    clock.advance(30.0)

    assert shelf.store.runnable() == (True, None)
    assert shelf.claims().attempt == 2


def test_what_was_never_asked_comes_before_a_retry(shelf: Shelf) -> None:
    """An item that failed a moment ago does not keep the others waiting."""
    shelf.submits(["failing", "fresh"])
    shelf.store.retry(shelf.claims(), 0.0, "provider_error", "出错了")

    assert [shelf.claims(lane).text for lane in (0, 1)] == ["fresh", "failing"]


def test_what_was_put_back_is_the_same_attempt(shelf: Shelf) -> None:
    """An item that was not asked comes again as if it had not been claimed."""
    shelf.submits(2)
    claimed = shelf.claims(0)

    assert shelf.store.put_back(claimed)

    again = shelf.claims(5)
    assert (again.index, again.attempt, again.again) == (claimed.index, 1, False)


def test_a_task_ends_with_its_last_item(shelf: Shelf, clock: FakeClock) -> None:
    """With one answer it is completed, however many items failed; its times and numbers stay."""
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


def test_a_task_without_any_answer_has_failed(shelf: Shelf) -> None:
    """It says what its last item failed with, and every item says its own."""
    task = shelf.ends(shelf.submits(2), failing=True)

    assert (task.status, task.failed, task.error_message) == ("failed", 2, "出错了")
    assert [item.error for item in shelf.store.rows(task.task_id)] == [
        {"code": "provider_error", "message": "出错了"}
    ] * 2


def test_a_cancelled_task_stays_cancelled(shelf: Shelf, clock: FakeClock) -> None:
    """What runs is named to be stopped, what it then says is refused, and what waited is cancelled with it."""
    task = shelf.submits(4)
    shelf.store.complete(shelf.claims(0), content="答")
    shelf.store.retry(shelf.claims(0), 0.0, "provider_error", "出错了")
    running = [shelf.claims(lane) for lane in (0, 1)]
    late = max(running, key=lambda claimed: claimed.attempt)
    shelf.store.put_back(late)
    running = [shelf.claims(lane) for lane in (0, 1)]

    ended, stopped = shelf.store.cancel(task.task_id, OWNER)

    assert sorted(stopped) == sorted((claimed.index, claimed.attempt) for claimed in running)
    assert (ended.status, ended.completed, ended.cancelled, ended.running) == ("cancelled", 1, 3, 0)
    assert (ended.cancelled_at, ended.completed_at) == (at(clock), None)
    assert not any(shelf.store.complete(claimed, content="late") for claimed in running)
    assert not shelf.store.retry(running[0], 0.0, "provider_error", "出错了")
    assert shelf.statuses(task) == ["completed", "cancelled", "cancelled", "cancelled"]
    assert (shelf.store.claim(0), shelf.store.running_lanes()) == (None, set())
    assert shelf.store.get(task.task_id) == ended


def test_a_task_is_cancelled_before_it_starts(shelf: Shelf) -> None:
    """Nothing ran, and all of it is cancelled."""
    task = shelf.submits(3)

    ended, stopped = shelf.store.cancel(task.task_id)

    assert (stopped, ended.cancelled, ended.started_at, ended.rate) == ([], 3, None, 0.0)
    assert shelf.statuses(task) == ["cancelled"] * 3


def test_a_paused_task_gives_no_items(shelf: Shelf) -> None:
    """What runs may end, nothing new begins, and it goes on where it was."""
    task = shelf.submits(3)
    claimed = shelf.claims(0)

    assert shelf.store.pause(task.task_id, OWNER).status == "paused"

    assert shelf.store.claim(1) is None
    assert shelf.store.runnable() == (False, None)
    assert shelf.store.complete(claimed, content="答")
    assert shelf.store.get(task.task_id).status == "paused"
    assert shelf.store.resume(task.task_id, OWNER).status == "running"
    assert shelf.claims(1).index == 1


def test_a_task_paused_before_it_starts_is_pending_when_it_resumes(shelf: Shelf) -> None:
    """Pausing twice and resuming twice is as once."""
    task = shelf.submits()

    assert [shelf.store.pause(task.task_id).status for _ in range(2)] == ["paused"] * 2
    assert [shelf.store.resume(task.task_id).status for _ in range(2)] == ["pending"] * 2


def test_a_paused_task_ends_with_its_last_item(shelf: Shelf) -> None:
    """There is nothing left to resume."""
    task = shelf.submits(1)
    claimed = shelf.claims()
    shelf.store.pause(task.task_id)

    shelf.store.complete(claimed, content="答")

    assert shelf.store.get(task.task_id).status == "completed"


@pytest.mark.parametrize("end", ["completed", "failed", "cancelled"])
@pytest.mark.parametrize("change", ["cancel", "pause", "resume"])
def test_what_has_ended_cannot_be_changed(shelf: Shelf, end: str, change: str) -> None:
    """Each end is final, whatever is asked for then."""
    task = shelf.submits(1)
    if end == "cancelled":
        shelf.store.cancel(task.task_id)
    else:
        shelf.ends(task, failing=end == "failed")
    before = shelf.store.get(task.task_id)

    with pytest.raises(BatchFinished):
        getattr(shelf.store, change)(task.task_id, OWNER)

    assert before.status == end
    assert shelf.store.get(task.task_id) == before


def test_ended_tasks_are_told_from_those_that_go_on(shelf: Shelf) -> None:
    """A worker learns which of its tasks are over; one that is gone is over too."""
    going, paused = shelf.submits(1), shelf.submits(1)
    over = shelf.submits(1)
    shelf.store.pause(paused.task_id)
    shelf.store.cancel(over.task_id)

    assert shelf.store.ended({going.task_id, paused.task_id, over.task_id, "gone"}) == {over.task_id, "gone"}
    assert shelf.store.ended(set()) == set()


def test_an_ended_task_is_seen_to_once(shelf: Shelf, clock: FakeClock) -> None:
    """Whoever sees to it first is told so; one that goes on is not to be seen to."""
    first, second, going = shelf.submits(1), shelf.submits(1), shelf.submits(1)
    for task in (second, first):
        clock.advance(1.0)
        shelf.store.cancel(task.task_id)
    assert shelf.store.unstored() == [second.task_id, first.task_id]

    assert [shelf.store.stored(task.task_id) for task in (second, second, going)] == [True, False, False]

    assert shelf.store.unstored() == [first.task_id]


def test_tasks_expire_after_their_time(shelf: Shelf, clock: FakeClock) -> None:
    """Only what ended long enough ago goes, with all its items; its key may be used for something else."""
    old = shelf.ends(shelf.submits(450, key="k", digest="d"))
    clock.advance(86400.0)
    young, going = shelf.ends(shelf.submits(1)), shelf.submits(1)
    assert shelf.store.expire(1.5) == 0

    clock.advance(86400.0)

    assert [shelf.store.expire(1.5), shelf.store.expire(1.5)] == [1, 0]
    assert shelf.store.find(old.task_id) is None
    assert shelf.store.rows(old.task_id) == []
    assert {task.task_id for task in shelf.store.list()[0]} == {young.task_id, going.task_id}
    assert shelf.submits(1, key="k", digest="other").task_id != old.task_id
    assert _rows(shelf, "items") == 3


def test_a_removal_that_was_broken_off_is_gone_on_with(shelf: Shelf) -> None:
    """A task half removed is seen by nobody, and the next removal takes the rest."""
    task = shelf.ends(shelf.submits(3))
    _write(shelf, "UPDATE laibao_batch_tasks SET status = 'expiring'")
    _write(shelf, "DELETE FROM laibao_batch_items WHERE item_index = 0")
    assert shelf.store.find(task.task_id) is None
    assert shelf.store.rows(task.task_id) == []
    assert (shelf.store.list(), sum(shelf.store.totals().values()), shelf.store.unstored()) == (([], 0), 0, [])

    assert shelf.store.expire(7) == 1

    assert _rows(shelf, "items") == 0


def test_a_task_that_never_arrived_is_removed(shelf: Shelf, clock: FakeClock) -> None:
    """What a replica that died left of a submission is seen by nobody, takes no place, and goes after an hour."""
    task = shelf.submits(3)
    _write(shelf, "UPDATE laibao_batch_tasks SET status = 'arriving'")
    assert (shelf.store.find(task.task_id), shelf.store.claim(0), shelf.store.list()) == (None, None, ([], 0))
    assert shelf.store.expire(7) == 0

    clock.advance(3601.0)

    assert shelf.store.expire(7) == 1
    assert (_rows(shelf, "items"), _rows(shelf, "tasks")) == (0, 0)


def test_what_was_refused_at_the_gate_is_removed(shelf: Shelf) -> None:
    """Texts that arrived for nothing are not kept."""
    shelf.submits(2, key="k", digest="d")
    with pytest.raises(BatchConflict):
        shelf.submits(3, key="k", digest="other")

    shelf.store.expire(7)

    assert (_rows(shelf, "items"), _rows(shelf, "tasks")) == (2, 1)


def test_times_are_aware_and_in_utc(shelf: Shelf, clock: FakeClock) -> None:
    """Microseconds included, whatever zone the database's session is in."""
    clock.now = 1_763_726_400.123456
    task = shelf.ends(shelf.submits(1))

    moments = (task.created_at, task.started_at, task.completed_at, shelf.store.rows(task.task_id)[0].completed_at)

    assert set(moments) == {at(clock)}
    assert all(moment and moment.utcoffset() == timedelta(0) for moment in moments)


def test_a_task_shows_nobodys_words(shelf: Shelf) -> None:
    """Neither a task, an item nor a claim that is printed shows texts, answers or the credential."""
    task = shelf.submits(["机密"], name="机密", description="机密", credential="sealed-fake", inputs={"a": "机密"})
    claimed = shelf.claims()
    shelf.store.complete(claimed, content="机密", sources=[{"title": "机密"}])

    shown = f"{shelf.store.get(task.task_id)} {claimed} {shelf.store.rows(task.task_id)}"

    assert "机密" not in shown
    assert "sealed-fake" not in shown


def _write(shelf: Shelf, statement: str) -> None:
    shelf.store._database.transact(lambda connection: connection.exec_driver_sql(statement).rowcount)


def _rows(shelf: Shelf, table: str) -> Any:
    count = f"SELECT COUNT(*) FROM laibao_batch_{table}"
    return shelf.store._database.read(lambda connection: connection.exec_driver_sql(count).scalar())
