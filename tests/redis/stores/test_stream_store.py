"""The stream store: open, append, read, fence and take over; its core runs on every kind of Redis."""

from __future__ import annotations

import json
from typing import Any

import pytest
import redis

from services.redis.store import Call, ScriptRunner
from services.streams.records import PAGE_BYTES, PAGE_CHUNKS, Appended, Chunk, NewStream, Write
from services.streams.store import SHORT_BYTES, SLICE_BYTES, StreamStore, leave_call, stream_keys
from tests.support.servers.processes import FakeClock
from tools.streams import documented

ID = "s1"


class Store(StreamStore):
    """A store whose scripts take the time from the test's clock."""

    def __init__(self, runner: ScriptRunner, clock: FakeClock) -> None:
        super().__init__(runner, ttl=1800.0, lease=6.0, max_seconds=1200.0)
        self._test_clock = clock

    @property
    def now(self) -> str:
        return str(self._test_clock())

    @now.setter
    def now(self, value: str) -> None:
        """Ignore the value: the test's clock has the time."""


@pytest.fixture
def store(runner: ScriptRunner, clock: FakeClock) -> Store:
    return Store(runner, clock)


def new(owner: str = "a", **changes: Any) -> NewStream:
    fields = {"status": "processing", "content": "问题", "question": "{}", "access": "tag"}
    settings: dict[str, Any] = {"fields": fields, "frame_seconds": 330.0, "stream_id": ID, **changes}
    return NewStream(owner=owner, **settings)


def append(*texts: str, index: int = 0, **changes: Any) -> Write:
    chunks = tuple(Chunk(text, "t") for text in texts)
    settings: dict[str, Any] = {"epoch": 1, "owner": "a", "start": 0, "index": index, "chunks": chunks, **changes}
    return Write(stream_id=ID, **settings)


def finish(index: int, *, sentence: str = "") -> Write:
    chunk = Chunk(sentence, "t", is_error=bool(sentence), is_final=True)
    fields = {"status": "error" if sentence else "completed", "dify_finished": "1"}
    return append(index=index, chunks=(chunk,), fields=fields, op="finish")


def text(store: Store) -> str:
    snapshot = store.read(ID)
    assert snapshot
    return snapshot.text


@pytest.mark.every_redis
def test_a_stream_is_created_once(store: Store) -> None:
    """Opening it again returns the present stream, and its owner stays."""
    ours, first, _ = store.open(new("a"))
    store.write([append("答")])

    again, found, _ = store.open(new("b"))

    assert (ours, first.status, first.text) == (True, "processing", "")
    assert (again, found.owner, found.text) == (False, "a", "答")


def test_an_owner_may_open_its_stream_again(store: Store) -> None:
    """After a lost reply, a second open by the same owner succeeds."""
    store.open(new("a"))

    assert store.open(new("a"))[0]


def test_the_hash_has_every_documented_field_and_its_ttl(store: Store, redis_client: redis.Redis) -> None:
    """Fields, both deadlines and the TTL of all three keys are as documented."""
    store.open(new())
    store.write([append("答")])

    fields = redis_client.hgetall(stream_keys(ID).hash)

    assert {"content", "status", "dify_finished", "v", "epoch", "owner", "lease", "deadline", "start"} <= set(fields)
    assert float(fields["frame_deadline"]) - float(fields["deadline"]) == pytest.approx(330 - 1200)
    ttls = [redis_client.pttl(key) for key in stream_keys(ID)]
    assert all(1_790_000 < life <= 1_800_000 for life in ttls)


@pytest.mark.every_redis
def test_appends_never_prolong_the_ttl(store: Store, redis_client: redis.Redis) -> None:
    """The three keys expire together, at the time set when the stream was created."""
    store.open(new())
    redis_client.pexpire(stream_keys(ID).hash, 50_000)

    store.write([append("答")])
    store.write([append("案", index=1, start=1)])
    store.read(ID)

    assert all(0 < redis_client.pttl(key) <= 50_000 for key in stream_keys(ID))


@pytest.mark.every_redis
def test_an_append_sent_again_changes_nothing(store: Store) -> None:
    """Chunks that are already there are skipped, and new ones are added."""
    store.open(new())
    store.write([append("一", "二")])

    replies = store.write([append("一", "二"), append("二", "三", index=1)])

    assert replies == [Appended("ok", 2), Appended("ok", 3)]
    assert text(store) == "一二三"


@pytest.mark.parametrize("foreign", [{"owner": "b"}, {"epoch": 2}])
def test_a_foreign_owner_or_epoch_is_refused(store: Store, foreign: dict[str, Any]) -> None:
    """Only the epoch and owner of the hash together may write."""
    store.open(new())

    assert store.write([append("x", **foreign)]) == [Appended("refused", epoch=1, owner="a")]
    assert text(store) == ""


def test_an_append_to_a_vanished_stream_returns_gone(store: Store) -> None:
    """This differs from the refusal of another owner."""
    assert store.write([append("x")]) == [Appended("gone")]


def test_finish_carries_the_last_chunks_in_one_step(store: Store) -> None:
    """The end and the last text become visible together."""
    store.open(new())

    store.write([append("全部", fields={"status": "completed", "dify_finished": "1"}, op="finish")])

    snapshot = store.read(ID)
    assert snapshot
    assert (snapshot.status, snapshot.text) == ("completed", "全部")


@pytest.mark.every_redis
def test_a_finish_may_be_repeated_and_later_appends_are_closed(store: Store) -> None:
    """A finish whose reply was lost can be sent again; no chunk can be added after the end."""
    store.open(new())
    store.write([append("一"), finish(1)])

    assert store.write([finish(1)]) == [Appended("ok", 2)]
    assert store.write([append("二", index=2)]) == [Appended("closed", status="completed")]
    assert text(store) == "一"


def test_error_chunks_are_not_in_the_text(store: Store) -> None:
    """The text is the concatenation of the chunks without `is_error`."""
    store.open(new())
    store.write([append("一"), finish(1, sentence="出错了")])

    page = store.chunks(ID, 0)

    assert page
    assert text(store) == "一"
    assert page.chunks[1] == Chunk("出错了", "t", is_error=True, is_final=True)


@pytest.mark.every_redis
def test_a_replacement_resets_the_text(store: Store) -> None:
    """A higher start drops the text and keeps the list; sent again, it drops nothing more."""
    store.open(new())
    store.write([append("旧")])

    write = append("新", index=1, start=1)
    store.write([write, write, append("的", index=2, start=1)])

    snapshot = store.read(ID)
    assert snapshot
    assert (snapshot.text, snapshot.start, snapshot.length) == ("新的", 1, 3)


@pytest.mark.every_redis
@pytest.mark.parametrize("before", ["", "a", "ab", "é"])
def test_a_long_text_is_read_in_slices_cut_between_characters(before: str, store: Store) -> None:
    """The slices are the text byte for byte, and none is longer than SLICE_BYTES."""
    written = before + "答é👍a" * 5000
    store.open(new())
    store.write([append(written[: SHORT_BYTES // 10]), append(written[SHORT_BYTES // 10 :], index=1), finish(2)])

    whole = store.full_answer(ID)

    assert whole
    assert (whole.short, whole.size, whole.complete().short) == ("", len(written.encode()), written)
    slices = list(whole.slices())
    assert "".join(slices) == whole.text == written
    assert {len(one.encode()) > SLICE_BYTES - 4 for one in slices[:-1]} == {True}
    assert max(len(one.encode()) for one in slices) <= SLICE_BYTES
    assert store.text("unknown", 0) == ("", 0, 0)


def test_a_short_text_takes_one_round_trip(store: Store) -> None:
    """A text of SHORT_BYTES comes with the rest of its stream."""
    store.open(new())
    store.write([append("a" * SHORT_BYTES), finish(1)])

    whole = store.full_answer(ID)

    assert whole
    assert (whole.short, whole.long) == ("a" * SHORT_BYTES, None)


def test_a_page_is_bounded_in_chunks_and_bytes(store: Store) -> None:
    """A page has at least one chunk of any length; the pages together are the whole list."""
    texts = ["答" * 1500] * 20 + ["x" * 3 * PAGE_BYTES] + ["y"] * 2 * PAGE_CHUNKS
    store.open(new())
    store.write([append(*texts)])

    pages: list[list[str]] = []
    while (page := store.chunks(ID, sum(map(len, pages)))) and page.chunks:
        pages.append([chunk.content for chunk in page.chunks])

    assert [text for page in pages for text in page] == texts
    assert [len(page) for page in pages[:6]] == [3] * 6
    assert [len(page) for page in pages if "x" in page[0]] == [1]
    assert max(map(len, pages)) == PAGE_CHUNKS


@pytest.mark.every_redis
def test_a_poll_reads_a_bounded_head_cut_between_characters(store: Store) -> None:
    """A poll of an answer of any length returns at most 20,484 bytes."""
    store.open(new())
    store.write([append("答" * 10_000)])

    snapshot = store.read(ID)

    assert snapshot
    assert snapshot.size == 30_000
    assert snapshot.text == "答" * (20_484 // 3)


def test_a_poll_writes_only_the_read_field(store: Store, redis_client: redis.Redis) -> None:
    """The other fields of the hash are unchanged."""
    store.open(new())
    store.write([append("一", "二")])
    before = redis_client.hgetall(stream_keys(ID).hash)

    store.read(ID)

    assert redis_client.hgetall(stream_keys(ID).hash) == {**before, "read": "2"}


@pytest.mark.every_redis
def test_the_frame_ends_by_the_readers_own_clock(store: Store, clock: FakeClock) -> None:
    """After the frame's deadline each read shows the text of the first read after it."""
    store.open(new())
    store.write([append("一")])
    clock.advance(330.0)

    at_the_end = store.read(ID)
    store.write([append("二", index=1), finish(2)])
    later = store.read(ID)

    assert at_the_end
    assert later
    assert (at_the_end.frame_over, at_the_end.text) == (True, "一")
    assert (later.frame_over, later.text, later.status) == (True, "一", "completed")


def test_a_stream_that_ended_in_time_is_shown_whole(store: Store, clock: FakeClock) -> None:
    """The frame's deadline does not apply to it, however late the read."""
    store.open(new())
    store.write([append("一"), finish(1)])
    clock.advance(1000.0)

    snapshot = store.read(ID)

    assert snapshot
    assert (snapshot.frame_over, snapshot.text) == (False, "一")


def test_a_lease_lapses_and_an_append_renews_it(store: Store, clock: FakeClock) -> None:
    """A stream without an append for `lease` seconds counts as lapsed."""
    store.open(new())
    clock.advance(5.0)
    store.write([append()])
    clock.advance(5.0)
    alive = store.read(ID)
    clock.advance(2.0)
    lapsed = store.read(ID)

    assert alive
    assert lapsed
    assert (alive.lapsed, lapsed.lapsed) == (False, True)


def test_takeover_needs_a_lapsed_lease_and_an_old_suspicion(store: Store, clock: FakeClock) -> None:
    """alive → suspect → suspect → taken, and only one owner takes it."""
    store.open(new())
    store.write([append("一")])
    outcomes = [store.takeover(ID, "b").outcome]
    clock.advance(6.5)
    outcomes.append(store.takeover(ID, "b").outcome)
    clock.advance(2.5)
    outcomes.append(store.takeover(ID, "b").outcome)
    clock.advance(1.0)

    taken = store.takeover(ID, "b")

    assert outcomes == ["alive", "suspect", "suspect"]
    assert taken == ("taken", 2, "a", "takeover", 1, taken.seconds_left)
    assert round(taken.seconds_left) == 1190
    assert store.takeover(ID, "c").outcome == "alive"
    assert store.takeover(ID, "b") == taken, "a lost reply is repeated without harm"


def test_a_late_append_from_the_old_owner_is_refused(store: Store, clock: FakeClock) -> None:
    """A paused owner that comes back after a takeover changes nothing."""
    store.open(new())
    clock.advance(7.0)
    store.takeover(ID, "b")
    clock.advance(4.0)
    store.takeover(ID, "b")

    assert store.write([append("旧主")]) == [Appended("refused", epoch=2, owner="b")]
    assert store.write([append("新主", owner="b", epoch=2)]) == [Appended("ok", 1)]
    assert text(store) == "新主"


def test_a_renewal_clears_the_suspicion(store: Store, clock: FakeClock) -> None:
    """The next lapse is a new suspicion, so a living owner keeps its stream after an outage of Redis."""
    store.open(new())
    clock.advance(7.0)
    store.takeover(ID, "b")
    store.write([append("还在")])
    clock.advance(7.0)

    assert store.takeover(ID, "b").outcome == "suspect"


@pytest.mark.parametrize(("prepare", "outcome"), [(True, "ended"), (False, "gone")])
def test_ended_and_unknown_streams_are_not_taken(store: Store, prepare: bool, outcome: str) -> None:
    """The reply is the reason."""
    if prepare:
        store.open(new())
        store.write([finish(0)])

    assert store.takeover(ID, "b").outcome == outcome


def test_cancel_ends_a_running_stream_once(store: Store) -> None:
    """The owner gets the cancellation as the reply to its next append; an ended stream is unchanged."""
    store.open(new())

    assert [store.cancel(ID), store.cancel(ID), store.cancel("unknown")] == ["processing", "cancelled", ""]
    assert store.write([append("x")]) == [Appended("closed", status="cancelled")]


@pytest.mark.every_redis
def test_only_a_stream_that_has_ended_is_removed(store: Store, runner: ScriptRunner) -> None:
    """With all its keys; a running one stays, and one that is not known is nothing."""
    store.open(new())
    store.write([append("答")])
    store.remove([ID, "unknown"])
    assert text(store) == "答"

    store.write([finish(1)])
    store.remove([ID, "unknown"])

    assert runner.run([Call(None, ("EXISTS", key)) for key in stream_keys(ID)]) == [0, 0, 0]


def test_a_stream_born_finished_has_its_sentence(store: Store) -> None:
    """A refused question is one step, and a redelivery reads the same sentence."""
    fields = {"status": "error", "error_code": "user_full", "dify_finished": "1"}
    store.open(new(fields=fields, chunks=(Chunk("请稍候", "t", is_error=True, is_final=True),)))

    snapshot = store.read(ID)

    assert snapshot
    assert (snapshot.status, snapshot.error_code, snapshot.length) == ("error", "user_full", 1)


def test_a_page_begins_at_the_cursor(store: Store) -> None:
    """A cursor is an absolute index into the list."""
    store.open(new())
    store.write([append("一", "二", "三")])

    page = store.chunks(ID, 1, count=1)

    assert page
    assert [chunk.content for chunk in page.chunks] == ["二"]
    assert (page.standing.length, page.standing.start, page.standing.epoch, page.lapsed) == (3, 0, 1, False)
    assert store.chunks("unknown", 0) is None


def test_the_document_has_the_documented_shape(store: Store) -> None:
    """It has content, status, messages with `read`, and dify_finished."""
    store.open(new())
    store.write([append("一")])
    store.read(ID)
    store.write([append("二", index=1)])

    document = documented(store, ID)

    assert document
    assert (document["content"], document["status"], document["dify_finished"]) == ("问题", "processing", False)
    assert [(m["content"], m["read"]) for m in document["messages"]] == [("一", True), ("二", False)]
    assert documented(store, "unknown") is None


def test_a_persons_slots_are_limited(store: Store, clock: FakeClock) -> None:
    """The fourth question gets no slot; a redelivery keeps its own, and an end or the time limit frees one."""

    def enter(stream_id: str) -> int:
        call = store.enter_call("default", "zhang", stream_id, slots=3, seconds=330.0)
        return int(store.open(new(stream_id=stream_id), call)[2][0])

    outcomes = [enter(stream_id) for stream_id in ("1", "2", "3", "4", "1")]
    store.write([], leave_call("default", "zhang", "1"))
    after_leaving = enter("4")
    clock.advance(331.0)

    assert outcomes == [1, 1, 1, 0, 2]
    assert (after_leaving, enter("5")) == (1, 1)


def test_reading_the_standing_marks_nothing_read(store: Store, clock: FakeClock) -> None:
    """A stream that checks another one leaves its `read` field unchanged."""
    store.open(new())
    store.write([append("一")])
    clock.advance(7.0)

    status, late = store.standing(ID)
    assert (status, round(late, 3)) == ("processing", 1.0)
    assert store.standing("unknown") == ("", 0.0)
    document = documented(store, ID)
    assert document
    assert not document["messages"][0]["read"]


@pytest.mark.every_redis
def test_running_streams_are_indexed_by_the_end_of_their_lease(
    store: Store, clock: FakeClock, redis_client: redis.Redis
) -> None:
    """Sixteen sorted sets with a TTL have the running streams; any replica finds the lapsed ones."""
    store.write([], *store.running_calls(["a", "b"]))
    store.write([], *store.running_calls(["c"], seconds=0.0), *store.ended_calls(["a"]))

    keys = redis_client.keys("dify_streams:running:*")
    ends = {tuple(entry) for key in keys for entry in redis_client.zrange(key, 0, -1, withscores=True)}
    assert ends == {("b", clock.now + 6.0), ("c", clock.now)}
    assert all(0 < int(str(redis_client.ttl(key))) <= 1800 for key in keys)
    assert store.lapsed() == ["c"]
    clock.advance(6.0)
    assert sorted(store.lapsed()) == ["b", "c"]


@pytest.mark.every_redis
def test_a_lost_hash_is_written_anew_with_its_list(store: Store, redis_client: redis.Redis) -> None:
    """The rest of the old list and text does not double the new ones."""
    store.open(new())
    store.write([append("一", "二")])
    redis_client.delete(stream_keys(ID).hash)

    store.open(new(chunks=(Chunk("一", "t"), Chunk("二", "t"))))

    assert (text(store), len(store.load(ID)[1])) == ("一二", 2)


@pytest.mark.every_redis
def test_a_lost_text_is_sent_again(store: Store, redis_client: redis.Redis) -> None:
    """The reply has the index from which the owner sends; its chunks are stored once."""
    store.open(new())
    store.write([append("一", "二")])
    redis_client.delete(stream_keys(ID).text)

    assert store.write([append("三", index=2)]) == [Appended("gap", 0)]
    assert store.write([append("一", "二", "三")]) == [Appended("ok", 3)]
    assert (text(store), len(store.load(ID)[1])) == ("一二三", 3)


def test_a_new_owner_continues_after_a_lost_replacement(
    store: Store, clock: FakeClock, redis_client: redis.Redis
) -> None:
    """Redis lost the chunks of the present text, so `start` is past the list's end: the new owner's text is shown."""
    store.open(new())
    store.write([append("旧"), append("新", index=1, start=1)])
    redis_client.ltrim(stream_keys(ID).messages, 1, 0)
    clock.advance(7.0)
    store.takeover(ID, "b")
    clock.advance(4.0)
    taken = store.takeover(ID, "b")
    fields, chunks = store.load(ID)

    store.write([append("续", owner="b", epoch=taken.epoch, index=len(chunks), start=int(fields["start"]))])

    assert text(store) == "续"


def test_a_handover_does_not_count_as_a_takeover(store: Store, clock: FakeClock) -> None:
    """A release has the leaving owner's last chunks and makes the stream free at once; the owner was not lost."""
    store.open(new())
    store.write([append("一半", op="release")])
    handover = store.takeover(ID, "b")
    assert text(store) == "一半"
    clock.advance(7.0)
    store.takeover(ID, "c")
    clock.advance(4.0)
    takeover = store.takeover(ID, "c")

    assert (handover.kind, handover.takeovers, handover.former_owner, handover.epoch) == ("handover", 0, "a", 2)
    assert (takeover.kind, takeover.takeovers, takeover.former_owner, takeover.epoch) == ("takeover", 1, "b", 3)


def test_chunks_are_readable_json(store: Store, redis_client: redis.Redis) -> None:
    """A chunk has content and timestamp, in UTF-8 without escapes, and marks only where they are true."""
    store.open(new())
    store.write([append("一\n二")])

    raw = redis_client.lindex(stream_keys(ID).messages, 0)

    assert isinstance(raw, str)
    assert json.loads(raw) == {"content": "一\n二", "timestamp": "t"}
    assert "一" in raw
