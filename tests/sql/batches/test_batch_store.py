"""Batch tasks in SQL, one contract on SQLite and MariaDB: what is stored, for which owner, and for how long."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from services.batches.records import BatchOptions, Given, ItemStatus
from services.batches.store import SqlBatchStore, hide_ended
from services.errors import BatchConflict, BatchQueueFull, BatchUnknown
from tests.support.answers import typed
from tests.support.batches.shelf import OWNER, Shelf, at
from tests.support.servers.processes import FakeClock, MariaServer

#: Texts that a store may change: emoji, NUL, four-byte characters, quotes, SQL, spaces, line ends, combining marks.
HARD = (
    "😀👩‍👩‍👧",
    "a\0b\0",
    "𠮷野家",
    "'; DROP TABLE x; -- \\' \" ` %s %(a)s :a",
    "  两端  ",
    "a\r\nb\tc",
    "é\u0301\u200b\ufeff",
)


@pytest.fixture
def shelf(url: str, clock: FakeClock) -> Iterator[Shelf]:
    """An empty store with a clock that stands still."""
    with Shelf(url, clock=clock, max_unfinished=5) as shelf:
        yield shelf


@pytest.fixture
def store(shelf: Shelf) -> SqlBatchStore:
    return shelf.store


def test_a_task_is_stored_as_it_was_submitted(store: SqlBatchStore, clock: FakeClock) -> None:
    """Every field reads back as submitted, with and without the owner."""
    options = BatchOptions({"部门": "人事", "n": 1, "x": 0.5, "b": True}, max_attempts=5, max_concurrent=2)

    task, created = store.create(
        owner=OWNER, name="七月", description="为什么", texts=["一", "二"], options=options, credential="sealed-fake"
    )

    assert created
    assert task == store.get(task.task_id) == store.get(task.task_id, OWNER)
    assert (task.owner, task.name, task.description, task.options) == (OWNER, "七月", "为什么", options)
    assert (task.status, task.total, task.pending, task.credential) == ("pending", 2, 2, "sealed-fake")
    assert (task.created_at, task.started_at, task.completed_at) == (at(clock), None, None)


def test_every_character_survives(shelf: Shelf) -> None:
    """Texts, answers, metadata, sources and inputs come back byte for byte."""
    task = shelf.submits(HARD, name=HARD[0], description=HARD[3], inputs={"a": HARD[3]})

    for text in HARD:
        claimed = shelf.claims()
        assert claimed.text == text
        words = {"title": text}
        assert shelf.store.complete(claimed, content=text, metadata=words, sources=[words, words], usage=words)

    items = shelf.store.rows(task.task_id)
    assert [item.text for item in items] == [item.content for item in items] == [*HARD]
    assert [(item.metadata, item.sources, item.usage) for item in items] == [
        ({"title": text}, (typed(text), typed(text)), {"title": text}) for text in HARD
    ]
    kept = shelf.store.get(task.task_id)
    assert (kept.name, kept.description, kept.options.inputs) == (HARD[0], HARD[3], {"a": HARD[3]})


def test_a_lone_surrogate_becomes_a_question_mark(shelf: Shelf) -> None:
    """A provider's lone surrogate, which no database, file or reply can encode, does not fail the item."""
    task = shelf.submits(1)

    assert shelf.store.complete(shelf.claims(), content="a\ud83db", metadata={"a": "\ud83d"}, sources=[{"a": "\ud83d"}])

    item = shelf.store.rows(task.task_id)[0]
    assert (item.content, item.metadata, item.sources) == ("a?b", {"a": "?"}, ({**typed(""), "a": "?"},))


def test_pauses_count_neither_for_the_rate_nor_for_the_end(shelf: Shelf, clock: FakeClock) -> None:
    """Pauses before and after the start, one of them sent twice, change neither the rate nor the seconds left."""
    task = shelf.submits(4)
    shelf.store.pause(task.task_id)
    clock.advance(1000.0)
    shelf.store.resume(task.task_id)
    claimed = shelf.claims()
    clock.advance(10.0)
    assert shelf.store.complete(claimed, content="答")

    for _ in range(2):
        paused = shelf.store.pause(task.task_id)
        clock.advance(14400.0)
    gone_on = shelf.store.resume(task.task_id)

    assert [paused.rate, gone_on.rate] == [pytest.approx(0.1)] * 2
    assert gone_on.estimated_completion == at(clock) + timedelta(seconds=30)
    shelf.store.pause(task.task_id)
    clock.advance(14400.0)
    assert shelf.store.cancel(task.task_id)[0].rate == pytest.approx(0.1)


@pytest.mark.parametrize("end", ["completed", "cancelled"])
def test_a_credential_is_removed_when_its_task_ends(shelf: Shelf, end: str) -> None:
    """An ended task is kept for days, its credential is not."""
    task = shelf.submits(1, credential="sealed-fake")
    claimed = shelf.claims()
    assert claimed.task.credential == "sealed-fake"

    shelf.store.complete(claimed, content="答") if end == "completed" else shelf.store.cancel(task.task_id)

    ended = shelf.store.get(task.task_id)
    assert (ended.status, ended.credential) == (end, "")


@pytest.mark.full
def test_long_texts_pass_a_small_max_allowed_packet(maria_server: MariaServer, clock: FakeClock) -> None:
    """Texts of ten megabytes in all are inserted in portions below one megabyte, in order."""
    before = maria_server.execute("SELECT @@GLOBAL.max_allowed_packet")[0][0]
    texts = [f"{n}" + "'年" * 5000 for n in range(500)]
    url = maria_server.fresh_database()
    maria_server.execute("SET GLOBAL max_allowed_packet = 1048576")
    try:
        with Shelf(url, clock=clock) as shelf:
            task = shelf.submits(texts)

            found = [item.text for after in range(-1, 499, 100) for item in shelf.store.rows(task.task_id, after)]

            assert found == texts
    finally:
        maria_server.execute(f"SET GLOBAL max_allowed_packet = {before}")


def test_ten_thousand_texts_are_one_task(shelf: Shelf) -> None:
    """The largest task is stored whole and in order; a page of its middle is read directly."""
    task = shelf.submits([f"{n}" for n in range(10_000)])

    assert task.total == 10_000
    assert [item.text for item in shelf.store.rows(task.task_id, after=4999)] == [f"{n}" for n in range(5000, 5100)]
    assert shelf.store.rows(task.task_id, after=9_999) == []


def test_what_is_given_beside_a_text_comes_back(shelf: Shelf) -> None:
    """Ids, columns and inputs are read with their items; texts without any have none."""
    given = [Given("A-1", {"备注": "=1"}, {"role": "x"}), Given()]
    task = shelf.submits(["一", "二"], given=given, inputs={"role": "all", "n": 1})

    assert [item.given for item in shelf.store.rows(task.task_id)] == given
    assert (shelf.claims(0).inputs, shelf.claims(1).inputs) == ({"role": "x"}, {})
    assert shelf.store.claim_again(0) == replace(shelf.claims(0), again=True)


def test_a_submission_costs_a_fixed_number_of_round_trips(shelf: Shelf) -> None:
    """Whatever is given beside its texts, which come in portions of 500, each a transaction of three statements.

    The first one of a database inserts the gate as well. A key is looked for twice.
    """
    shelf.submits(1)
    given = [Given(f"A-{n}", {"备注": "x"}, {"role": "x"}) for n in range(500)]
    rich: dict[str, Any] = {"given": given, "priority": "high", "webhook_url": "https://example.com/"}

    counted = [
        shelf.count(lambda: shelf.submits(1, key="k", digest="d")),
        shelf.count(lambda: shelf.submits(500)),
        shelf.count(lambda: shelf.submits(500, **rich)),
        shelf.count(lambda: shelf.submits(501)),
    ]

    assert counted == [21, 19, 19, 22]


def test_items_are_read_by_their_status(shelf: Shelf) -> None:
    """From a number on; items of a cancelled task that were never asked are cancelled."""
    task = shelf.submits(4)
    for _ in range(2):
        shelf.store.fail(shelf.claims(), "provider_error", "出错了")
    shelf.store.complete(shelf.claims(), content="答")

    def read(status: ItemStatus, **more: int) -> list[int]:
        return [item.index for item in shelf.store.rows(task.task_id, status=status, **more)]

    assert (read("failed"), read("failed", skip=1), read("failed", after=0)) == ([0, 1], [1], [1])
    assert (read("pending"), read("cancelled")) == ([3], [])
    shelf.store.cancel(task.task_id)
    assert (read("pending"), read("cancelled"), read("completed")) == ([], [3], [2])


def test_a_task_without_texts_is_refused(store: SqlBatchStore) -> None:
    """A task without items would never end."""
    with pytest.raises(ValueError, match="text"):
        store.create(owner=OWNER, name="leer", texts=[])


def test_a_repeated_key_finds_its_task(shelf: Shelf) -> None:
    """The same digest under the same key returns the task, also while the queue is full."""
    first = shelf.submits(key="k", digest="d")
    for _ in range(4):
        shelf.submits(1)

    again, created = shelf.store.create(owner=OWNER, name="another", texts=["x"], key="k", digest="d")

    assert (again, created) == (first, False)


def test_owners_and_keys_are_compared_byte_for_byte(shelf: Shelf) -> None:
    """Another case, an accent, or a space at the end makes another owner or key."""
    task = shelf.submits(owner="user:jose", key="k", digest="d")

    for owner, key in [("user:José", "k"), ("user:JOSE", "k"), ("user:jose ", "k"), ("user:jose", "K")]:
        assert shelf.submits(1, owner=owner, key=key, digest="other").task_id != task.task_id
    for owner in ("user:José", "user:JOSE", "user:jose "):
        assert shelf.finds(task.task_id, owner) is None
        assert shelf.store.list(owner)[1] == 1


def test_another_owners_task_is_unknown(shelf: Shelf) -> None:
    """A missing task and another owner's task raise the same error."""
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
    """Paused tasks count, ended ones do not, and a refused submission stores nothing."""
    tasks = [shelf.submits(1) for _ in range(5)]
    shelf.store.pause(tasks[0].task_id)
    with pytest.raises(BatchQueueFull):
        shelf.submits(1)
    assert shelf.store.list()[1] == 5

    shelf.store.cancel(tasks[1].task_id)

    assert shelf.submits(1).status == "pending"


def test_one_owner_does_not_fill_the_queue(url: str, clock: FakeClock) -> None:
    """At `max_per_owner` an owner is refused while others are not; its ended tasks make room."""
    with Shelf(url, clock=clock, max_unfinished=5, max_per_owner=2) as shelf:
        tasks = [shelf.submits(1, key=f"order-{n}") for n in range(2)]
        with pytest.raises(BatchQueueFull) as caught:
            shelf.submits(1)
        again = shelf.submits(1, key="order-0")
        other = shelf.submits(1, owner="key:other")
        shelf.store.cancel(tasks[0].task_id)

        assert (caught.value.code, again.task_id, other.status) == ("batch_key_full", tasks[0].task_id, "pending")
        assert shelf.submits(1).status == "pending"


def test_visitors_without_a_credential_share_one_limit(url: str, clock: FakeClock) -> None:
    """A browser chooses its own name, so a new name makes no room; each has its own tasks all the same."""
    with Shelf(url, clock=clock, max_unfinished=9, max_per_owner=2) as shelf:
        shelf.submits(1, owner="anonymous/visitor-a")
        shelf.submits(1, owner="anonymous")
        for owner in ("anonymous/visitor-b", "anonymous"):
            with pytest.raises(BatchQueueFull):
                shelf.submits(1, owner=owner)

        assert shelf.store.list("anonymous/visitor-a")[1] == 1
        assert [shelf.submits(1, owner=owner).status for owner in ("anonymous-b", "key:a")] == ["pending"] * 2


def test_tasks_are_listed_newest_first_by_pages(shelf: Shelf, clock: FakeClock) -> None:
    """Pages and total contain the owner's tasks only."""
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
    """A status filters the list, and `totals` has a count for every status."""
    done, cancelled = shelf.ends(shelf.submits(2)), shelf.submits(1)
    shelf.store.cancel(cancelled.task_id)
    shelf.submits(1)

    assert [task.task_id for task in shelf.store.list(OWNER, "completed")[0]] == [done.task_id]
    assert shelf.store.list(OWNER, "paused") == ([], 0)
    assert shelf.store.totals() == {
        "pending": 1, "running": 0, "paused": 0, "completed": 1, "failed": 0, "cancelled": 1,
    }  # fmt: skip


def test_an_ended_task_is_marked_as_stored_once(shelf: Shelf, clock: FakeClock) -> None:
    """`stored` returns True for its first call alone, and False for a task that has not ended."""
    first, second, going = shelf.submits(1), shelf.submits(1), shelf.submits(1)
    for task in (second, first):
        clock.advance(1.0)
        shelf.store.cancel(task.task_id)
    assert shelf.store.unstored() == [second.task_id, first.task_id]

    assert [shelf.store.stored(task.task_id) for task in (second, second, going)] == [True, False, False]

    assert shelf.store.unstored() == [first.task_id]


def test_ended_tasks_expire(shelf: Shelf, clock: FakeClock) -> None:
    """Only tasks that ended long enough ago are removed, with all items; their keys may be used again."""
    old, _ = shelf.store.cancel(shelf.submits(450, key="k", digest="d").task_id)
    clock.advance(86400.0)
    young, going = shelf.ends(shelf.submits(1)), shelf.submits(1)
    assert shelf.store.expire(1.5) == 0

    clock.advance(86400.0)

    assert [shelf.store.expire(1.5), shelf.store.expire(1.5)] == [1, 0]
    assert shelf.finds(old.task_id) is None
    assert shelf.store.rows(old.task_id) == []
    assert {task.task_id for task in shelf.store.list()[0]} == {young.task_id, going.task_id}
    assert shelf.submits(1, key="k", digest="other").task_id != old.task_id
    assert shelf.rows("items") == 3


def test_an_interrupted_removal_is_continued(shelf: Shelf, clock: FakeClock) -> None:
    """A task that is half removed is not found and keeps no key; the next removal deletes the rest."""
    task = shelf.ends(shelf.submits(3, key="k", digest="d"))
    shelf.store._database.transact(lambda connection: hide_ended(connection, at(clock, 1.0)))
    shelf.write("DELETE FROM laibao_batch_items WHERE item_index = 0")
    assert shelf.finds(task.task_id) is None
    assert shelf.store.rows(task.task_id) == []
    assert (shelf.store.list(), sum(shelf.store.totals().values()), shelf.store.unstored()) == (([], 0), 0, [])
    assert shelf.submits(1, key="k", digest="other").task_id != task.task_id

    assert shelf.store.expire(7) == 1

    assert shelf.rows("items") == 1


def test_an_incomplete_submission_is_removed(shelf: Shelf, clock: FakeClock) -> None:
    """A task whose replica died while it submitted is neither found nor listed, and is removed after an hour."""
    task = shelf.submits(3)
    shelf.write("UPDATE laibao_batch_tasks SET status = 'arriving'")
    assert (shelf.finds(task.task_id), shelf.store.claim(0), shelf.store.list()) == (None, None, ([], 0))
    assert shelf.store.expire(7) == 0

    clock.advance(3601.0)

    assert shelf.store.expire(7) == 1
    assert (shelf.rows("items"), shelf.rows("tasks")) == (0, 0)


def test_a_refused_submission_is_removed(shelf: Shelf) -> None:
    """Texts that were inserted before the submission was refused are deleted by `expire`."""
    shelf.submits(2, key="k", digest="d")
    with pytest.raises(BatchConflict):
        shelf.submits(3, key="k", digest="other")

    shelf.store.expire(7)

    assert (shelf.rows("items"), shelf.rows("tasks")) == (2, 1)


def test_times_are_aware_and_in_utc(shelf: Shelf, clock: FakeClock) -> None:
    """Times have microseconds and UTC, whatever the time zone of the database's session."""
    clock.now = 1_763_726_400.123456
    task = shelf.ends(shelf.submits(1))

    moments = (task.created_at, task.started_at, task.completed_at, shelf.store.rows(task.task_id)[0].completed_at)

    assert set(moments) == {at(clock)}
    assert all(moment and moment.utcoffset() == timedelta(0) for moment in moments)


def test_reprs_show_no_content(shelf: Shelf) -> None:
    """The repr of a task, an item or a claim shows neither texts, answers nor the credential."""
    task = shelf.submits(["机密"], name="机密", description="机密", credential="sealed-fake", inputs={"a": "机密"})
    claimed = shelf.claims()
    shelf.store.complete(claimed, content="机密", sources=[{"title": "机密"}])

    shown = f"{shelf.store.get(task.task_id)} {claimed} {shelf.store.rows(task.task_id)}"

    assert "机密" not in shown
    assert "sealed-fake" not in shown


def test_tasks_are_looked_up_together(store: SqlBatchStore) -> None:
    """`look_up` returns the existing tasks of any owner, each as `get` returns it."""
    first, _ = store.create(owner=OWNER, name="一", texts=["问"])
    second, _ = store.create(owner="key:another", name="二", texts=["问", "题"])

    found = store.look_up({first.task_id, second.task_id, "no-such-task"})

    assert sorted(found, key=lambda task: task.name) == [store.get(task.task_id) for task in (first, second)]
    assert store.look_up([]) == []
