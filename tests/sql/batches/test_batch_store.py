"""Batch tasks in SQL, one contract on SQLite and MariaDB: what is kept, who sees it, and how long."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest

from services.batches.records import BatchOptions
from services.batches.sql.expiry import hide
from services.batches.store import SqlBatchStore
from services.errors import BatchConflict, BatchQueueFull, BatchUnknown
from tests.support.batches.shelf import OWNER, SQL_KINDS, Shelf, at, empty_database
from tests.support.servers.processes import FakeClock, MariaServer

#: What a store may lose or change: emoji, NUL, characters of four bytes, quotes, what SQL means, line ends.
HARD = (
    "😀👩‍👩‍👧",
    "a\0b\0",
    "𠮷野家",
    "'; DROP TABLE x; -- \\' \" ` %s %(a)s :a",
    "  两端  ",
    "a\r\nb\tc",
    "é\u0301\u200b\ufeff",
)


@pytest.fixture(scope="module", params=SQL_KINDS)
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """One database of each kind for all tests here: creating one takes longer than most of them."""
    return empty_database(request, tmp_path_factory)


@pytest.fixture
def shelf(url: str, clock: FakeClock) -> Iterator[Shelf]:
    """A store with nothing in it, whose clock stands still."""
    with Shelf(url, clock=clock, max_unfinished=5) as shelf:
        yield shelf


@pytest.fixture
def store(shelf: Shelf) -> SqlBatchStore:
    return shelf.store


def test_a_task_is_kept_as_it_was_submitted(store: SqlBatchStore, clock: FakeClock) -> None:
    """What whoever submitted it said is what everybody reads."""
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
    """Texts, answers and what goes with them come back byte for byte."""
    task = shelf.submits(HARD, name=HARD[0], description=HARD[3], inputs={"a": HARD[3]})

    for text in HARD:
        claimed = shelf.claims()
        assert claimed.text == text
        words = {"title": text}
        assert shelf.store.complete(claimed, content=text, metadata=words, sources=[words, words], usage=words)

    items = shelf.store.rows(task.task_id)
    assert [item.text for item in items] == [item.content for item in items] == [*HARD]
    assert [(item.metadata, item.sources, item.usage) for item in items] == [
        ({"title": text}, ({"title": text}, {"title": text}), {"title": text}) for text in HARD
    ]
    kept = shelf.store.get(task.task_id)
    assert (kept.name, kept.description, kept.options.inputs) == (HARD[0], HARD[3], {"a": HARD[3]})


def test_half_a_character_becomes_a_question_mark(shelf: Shelf) -> None:
    """A provider's lone surrogate, which no database, file or reply takes, costs no answer."""
    task = shelf.submits(1)

    assert shelf.store.complete(shelf.claims(), content="a\ud83db", metadata={"a": "\ud83d"}, sources=[{"a": "\ud83d"}])

    item = shelf.store.rows(task.task_id)[0]
    assert (item.content, item.metadata, item.sources) == ("a?b", {"a": "?"}, ({"a": "?"},))


def test_pauses_count_neither_for_the_rate_nor_for_the_end(shelf: Shelf, clock: FakeClock) -> None:
    """A night's pause, said twice, leaves the rate and the time that is left as they were; so does one before all."""
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
def test_a_credential_is_kept_no_longer_than_it_is_needed(shelf: Shelf, end: str) -> None:
    """An ended task is kept for days; as whom it was asked is not."""
    task = shelf.submits(1, credential="sealed-fake")
    claimed = shelf.claims()
    assert claimed.task.credential == "sealed-fake"

    shelf.store.complete(claimed, content="答") if end == "completed" else shelf.store.cancel(task.task_id)

    ended = shelf.store.get(task.task_id)
    assert (ended.status, ended.credential) == (end, "")


@pytest.mark.full
def test_long_texts_pass_a_server_that_takes_small_packets(maria_server: MariaServer, clock: FakeClock) -> None:
    """Texts of ten megabytes arrive by portions below a server's least limit, in order."""
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
        assert shelf.finds(task.task_id, owner) is None
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


def test_one_owner_does_not_fill_the_queue(url: str, clock: FakeClock) -> None:
    """Beyond its own bound an owner is refused while others are not; its ended tasks make room."""
    with Shelf(url, clock=clock, max_unfinished=5, max_per_owner=2) as shelf:
        tasks = [shelf.submits(1, key=f"order-{n}") for n in range(2)]
        with pytest.raises(BatchQueueFull) as caught:
            shelf.submits(1)
        again = shelf.submits(1, key="order-0")
        other = shelf.submits(1, owner="key:other")
        shelf.store.cancel(tasks[0].task_id)

        assert (caught.value.code, again.task_id, other.status) == ("batch_key_full", tasks[0].task_id, "pending")
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


def test_a_removal_that_was_broken_off_is_gone_on_with(shelf: Shelf, clock: FakeClock) -> None:
    """A task half removed is seen by nobody and keeps no key, and the next removal takes the rest."""
    task = shelf.ends(shelf.submits(3, key="k", digest="d"))
    shelf.store._database.transact(lambda connection: hide(connection, at(clock, 1.0), 20))
    shelf.write("DELETE FROM laibao_batch_items WHERE item_index = 0")
    assert shelf.finds(task.task_id) is None
    assert shelf.store.rows(task.task_id) == []
    assert (shelf.store.list(), sum(shelf.store.totals().values()), shelf.store.unstored()) == (([], 0), 0, [])
    assert shelf.submits(1, key="k", digest="other").task_id != task.task_id

    assert shelf.store.expire(7) == 1

    assert shelf.rows("items") == 1


def test_a_task_that_never_arrived_is_removed(shelf: Shelf, clock: FakeClock) -> None:
    """What a replica that died left of a submission is seen by nobody, takes no place, and goes after an hour."""
    task = shelf.submits(3)
    shelf.write("UPDATE laibao_batch_tasks SET status = 'arriving'")
    assert (shelf.finds(task.task_id), shelf.store.claim(0), shelf.store.list()) == (None, None, ([], 0))
    assert shelf.store.expire(7) == 0

    clock.advance(3601.0)

    assert shelf.store.expire(7) == 1
    assert (shelf.rows("items"), shelf.rows("tasks")) == (0, 0)


def test_what_was_refused_at_the_gate_is_removed(shelf: Shelf) -> None:
    """Texts that arrived for nothing are not kept."""
    shelf.submits(2, key="k", digest="d")
    with pytest.raises(BatchConflict):
        shelf.submits(3, key="k", digest="other")

    shelf.store.expire(7)

    assert (shelf.rows("items"), shelf.rows("tasks")) == (2, 1)


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


def test_tasks_are_looked_up_together(store: SqlBatchStore) -> None:
    """Anybody's, those that there are; each as `get` has it."""
    first, _ = store.create(owner=OWNER, name="一", texts=["问"])
    second, _ = store.create(owner="key:another", name="二", texts=["问", "题"])

    found = store.look_up({first.task_id, second.task_id, "no-such-task"})

    assert sorted(found, key=lambda task: task.name) == [store.get(task.task_id) for task in (first, second)]
    assert store.look_up([]) == []
