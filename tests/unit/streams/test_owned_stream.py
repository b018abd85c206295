"""The owner's side of a stream without Redis: its writes, and its reactions to replies."""

from __future__ import annotations

import threading
from collections.abc import Mapping

import pytest

from services.errors import AnswerError, StoreUnavailable, StreamClosed
from services.streams.owned_stream import BUFFER_BYTES, CHUNK_BYTES, MAX_REPLACEMENTS, WRITE_BYTES, OwnedStream
from services.streams.records import Appended, Chunk, NewStream, Write
from tests.support.servers.processes import FakeClock, wait_until
from utils.deadline import Deadline


class Owner:
    """An owned stream that counts how often it reported updates."""

    def __init__(self, clock: FakeClock, *, max_bytes: int = 1000, outage_seconds: float = 20.0) -> None:
        self.changes = 0
        self.deadline = Deadline(100.0, clock=clock)
        self.stream = OwnedStream(
            NewStream("s", "a", {"status": "processing", "content": "问题"}, frame_seconds=330.0),
            deadline=self.deadline,
            changed=self._changed,
            max_bytes=max_bytes,
            outage_seconds=outage_seconds,
            clock=clock,
        )

    def _changed(self, stream: OwnedStream) -> None:
        self.changes += 1

    def write(self) -> Write:
        write = self.stream.next_write()
        assert write
        return write

    def sends(self) -> Write:
        """Acknowledge the next write as Redis would; return the write."""
        write = self.write()
        self.stream.settle(write, Appended("ok", write.index + len(write.chunks)))
        return write


@pytest.fixture
def owner(clock: FakeClock) -> Owner:
    return Owner(clock)


def texts(write: Write) -> list[str]:
    return [chunk.content for chunk in write.chunks]


def test_a_chunk_that_was_sent_keeps_its_boundaries(owner: Owner) -> None:
    """A chunk is sent again unchanged, followed by newer text."""
    owner.stream.emit("一")
    first = owner.write()
    owner.stream.emit("二")

    again = owner.write()

    assert (texts(first), texts(again), again.index) == (["一"], ["一", "二"], 0)


def test_acknowledged_chunks_are_not_sent_again(owner: Owner) -> None:
    """An acknowledged write moves the index on, and without updates there is no write."""
    owner.stream.emit("一")
    owner.sends()

    assert owner.stream.next_write() is None
    owner.stream.emit("二")
    assert (owner.write().index, texts(owner.write())) == (1, ["二"])


def test_after_a_gap_the_owner_sends_from_there(owner: Owner) -> None:
    """After Redis lost the tail, the owner sends every chunk from the list's length on."""
    for piece in ("一", "二", "三"):
        owner.stream.emit(piece)
        owner.sends()

    write = owner.stream.next_write(renew=True)
    assert write
    owner.stream.settle(write, Appended("gap", 1))

    assert (owner.write().index, texts(owner.write())) == (1, ["二", "三"])


def test_a_vanished_stream_is_written_whole(owner: Owner, clock: FakeClock) -> None:
    """An empty Redis gets all fields, chunks, epoch and start; the TTL still counts from creation."""
    owner.stream.emit("旧")
    owner.sends()
    owner.stream.replace("新")
    owner.stream.set(auth_state="cached")
    clock.advance(10.0)

    whole = owner.stream.as_new()
    owner.stream.rewritten(whole, ours=True)

    assert [chunk.content for chunk in whole.chunks] == ["旧", "新"]
    assert (whole.start, whole.age, whole.fields["auth_state"], whole.fields["content"]) == (1, 10.0, "cached", "问题")


def test_a_vanished_stream_that_had_ended_ends_again(owner: Owner) -> None:
    """The stream is rewritten as running, and the next write ends it."""
    owner.stream.emit("答")
    owner.stream.finish("completed")
    owner.write()

    whole = owner.stream.as_new()
    owner.stream.rewritten(whole, ours=True)

    write = owner.write()
    assert (whole.fields["status"], whole.fields["dify_finished"]) == ("processing", "0")
    assert (write.op, write.fields["status"], write.chunks[-1].is_final) == ("finish", "completed", True)


def test_a_stream_that_another_owner_wrote_anew_is_fenced(owner: Owner) -> None:
    """The old owner stops, and its deadline is aborted."""
    owner.stream.rewritten(owner.stream.as_new(), ours=False)

    assert (owner.stream.closed, owner.deadline.aborted) == ("fenced", "fenced")


@pytest.mark.parametrize(
    ("reply", "closed"),
    [
        (Appended("refused", epoch=2, owner="b"), "fenced"),
        (Appended("closed", status="cancelled"), "cancelled"),
        (Appended("closed", status="error"), "fenced"),
    ],
)
def test_a_refused_append_stops_the_producer(owner: Owner, reply: Appended, closed: str) -> None:
    """The deadline is aborted with the reason, and no text can be added."""
    owner.stream.emit("一")
    owner.stream.settle(owner.write(), reply)

    assert (owner.stream.closed, owner.deadline.aborted) == (closed, closed)
    assert owner.stream.next_write(renew=True) is None
    assert owner.stream.page(0) is None, "only Redis has the stream's state"
    with pytest.raises(StreamClosed):
        owner.stream.emit("二")


@pytest.mark.parametrize("pending", ["完", ""])
def test_the_end_carries_the_pending_text(owner: Owner, pending: str) -> None:
    """It is the final chunk, also without text, in one write with status and dify_finished."""
    owner.stream.emit("一")
    owner.sends()
    owner.stream.emit(pending)
    owner.stream.finish("completed")

    write = owner.sends()

    assert (texts(write), write.chunks[-1].is_final, write.op) == ([pending], True, "finish")
    assert (write.fields["status"], write.fields["dify_finished"]) == ("completed", "1")
    assert (owner.stream.closed, owner.deadline.aborted) == ("done", "")


def test_an_error_is_the_last_chunk_and_no_text(owner: Owner) -> None:
    """The sentence follows the text in the list, and is no part of the text."""
    owner.stream.emit("一半")
    owner.stream.finish("error", error_code="provider_error", sentence="出错了")

    write = owner.write()

    chunks = [(chunk.content, chunk.is_error, chunk.is_final) for chunk in write.chunks]
    assert chunks == [("一半", False, False), ("出错了", True, True)]
    assert (write.fields["error_code"], owner.stream.text) == ("provider_error", "一半")


def test_a_replacement_starts_after_the_sent_chunks(owner: Owner) -> None:
    """Sent chunks stay in the list, text that was not sent is dropped, and the text is the new one."""
    owner.stream.emit("旧")
    owner.sends()
    owner.stream.emit("没发出去")
    owner.stream.replace("新")

    write = owner.write()

    assert (write.start, texts(write), owner.stream.text) == (1, ["新"], "新")


def test_a_replacement_by_an_empty_text_is_written(owner: Owner) -> None:
    """The write has only the new start."""
    owner.stream.emit("旧")
    owner.sends()
    owner.stream.replace("")

    assert owner.sends().start == 1
    assert owner.stream.next_write() is None


def test_an_answer_with_too_many_replacements_is_ended(owner: Owner) -> None:
    """Each replacement leaves its chunks in the list; the text of the last allowed one stays."""
    for number in range(MAX_REPLACEMENTS):
        owner.stream.replace(str(number))

    with pytest.raises(AnswerError) as raised:
        owner.stream.replace("一个太多")

    assert (raised.value.code, owner.stream.text) == ("answer_too_long", str(MAX_REPLACEMENTS - 1))


def test_a_concurrent_write_has_all_of_the_end_or_nothing(owner: Owner) -> None:
    """A write made while the stream finishes contains nothing of the end, or all of it."""
    seen: list[Write | None] = []
    stream = owner.stream
    set_fields = stream._set_fields

    def slow_set(fields: Mapping[str, str]) -> bool:
        looking = threading.Thread(target=lambda: seen.append(stream.next_write()))
        looking.start()
        looking.join(0.05)
        if not seen:
            threads.append(looking)
        return set_fields(fields)

    threads: list[threading.Thread] = []
    stream._set_fields = slow_set  # type: ignore[method-assign]
    stream.finish("completed")
    for thread in threads:
        thread.join(30.0)

    assert [write.fields["status"] for write in seen if write] == ["completed"]


def test_fields_are_sent_until_redis_has_them(owner: Owner) -> None:
    """A value that changes during a write is sent again; an equal value is not."""
    owner.stream.set(auth_state="cached")
    write = owner.write()
    owner.stream.set(auth_state="renewed")
    owner.stream.settle(write, Appended("ok", 0))

    assert owner.sends().fields == {"auth_state": "renewed"}
    owner.stream.set(auth_state="renewed")
    assert owner.stream.next_write() is None


def test_a_mentioned_field_waits_for_the_next_write(owner: Owner) -> None:
    """It goes along with a renewal or the end, and asks for a write only to come soon, which is not urgent."""
    owner.stream.set(auth_state="cached")
    owner.sends()
    before = owner.changes

    owner.stream.mention(step="一")
    assert (owner.changes, owner.stream.urgent) == (before, False)
    write = owner.stream.next_write(renew=True)
    assert write
    assert write.fields == {"step": "一"}
    owner.stream.mention(soon=True, step="二")
    owner.stream.mention(soon=True, step="二")

    assert (owner.changes, owner.stream.urgent) == (before + 1, False)
    owner.stream.finish("completed")
    assert (owner.write().op, owner.write().fields["step"]) == ("finish", "二")


def test_wait_stored_returns_when_redis_has_the_field(clock: FakeClock) -> None:
    """A write that failed does not end the wait; its acknowledgement does."""
    owner = Owner(clock, outage_seconds=20.0)
    owner.stream.set(asks="1")
    waiting = threading.Thread(target=owner.stream.wait_stored)
    waiting.start()

    lost = owner.write()
    owner.stream.failed()
    assert waiting.is_alive()
    owner.stream.settle(lost, Appended("ok", 0))

    waiting.join(30.0)
    assert not waiting.is_alive()


def test_wait_stored_times_out_in_an_outage(clock: FakeClock) -> None:
    """StoreUnavailable is raised after `outage_seconds`, StreamClosed if another owner took over or has to."""
    owner = Owner(clock, outage_seconds=0.05)
    owner.stream.set(asks="1")

    with pytest.raises(StoreUnavailable):
        owner.stream.wait_stored()
    owner.stream.settle(owner.write(), Appended("refused", epoch=2, owner="b"))
    with pytest.raises(StreamClosed, match="fenced"):
        owner.stream.wait_stored()
    released = Owner(clock).stream
    released.release()
    released.set(asks="1")
    with pytest.raises(StreamClosed, match="released"):
        released.wait_stored()


def test_a_pause_of_the_process_is_no_outage(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reply of Redis is read when the process runs again: until then the wait for it goes on."""
    monkeypatch.setattr("utils.running_time.running_time", clock)
    owner = Owner(clock, outage_seconds=0.05)
    owner.stream.set(asks="1")
    waiting = threading.Thread(target=owner.stream.wait_stored, daemon=True)
    waiting.start()

    waiting.join(0.3)
    assert waiting.is_alive()

    owner.sends()
    waiting.join(30.0)
    assert not waiting.is_alive()


def test_an_answer_that_completes_during_a_release_finishes(owner: Owner) -> None:
    """The end replaces the release, because no other owner needs to continue."""
    owner.stream.release()
    owner.stream.emit("完整")
    owner.stream.finish("completed")

    write = owner.sends()

    assert (write.op, texts(write), owner.stream.closed) == ("finish", ["完整"], "done")


def test_known_is_the_acknowledged_text_within_the_lease(owner: Owner, clock: FakeClock) -> None:
    """Without Redis, a reader gets no more than other replicas may read, and nothing once another owner may write."""
    owner.stream.emit("有")
    owner.sends()
    owner.stream.emit("还没有")
    owner.write()

    known = owner.stream.known(6.0)
    clock.advance(6.1)

    assert known
    assert (known.status, known.text) == ("processing", "有")
    assert owner.stream.known(6.0) is None


def test_an_answer_that_is_too_long_keeps_what_fits(clock: FakeClock) -> None:
    """The text is cut between characters, the code is `answer_too_long`, and only the current text counts."""
    owner = Owner(clock, max_bytes=7)
    owner.stream.emit("旧的")
    owner.stream.replace("")

    with pytest.raises(AnswerError) as raised:
        owner.stream.emit("一二三")

    assert (raised.value.code, owner.stream.text) == ("answer_too_long", "一二")


def test_half_a_surrogate_pair_becomes_a_question_mark(owner: Owner) -> None:
    """Text without a UTF-8 form does not end the answer."""
    owner.stream.emit("好\ud83d！")

    assert owner.stream.text == "好?！"


def test_a_producer_waits_while_redis_is_behind(clock: FakeClock) -> None:
    """With a full buffer the producer blocks, and continues when the buffer drains."""
    owner = Owner(clock, max_bytes=10 * BUFFER_BYTES)
    owner.stream.emit("x" * BUFFER_BYTES)
    producer = threading.Thread(target=owner.stream.emit, args=("y",))
    producer.start()
    wait_until(lambda: owner.stream.figures["bytes"] == BUFFER_BYTES + 1)
    assert producer.is_alive()

    owner.sends()

    producer.join(30.0)
    assert not producer.is_alive()


def test_a_producer_stops_waiting_after_the_outage_limit(clock: FakeClock) -> None:
    """`emit` raises StoreUnavailable after `outage_seconds`."""
    owner = Owner(clock, max_bytes=10 * BUFFER_BYTES, outage_seconds=0.1)

    with pytest.raises(StoreUnavailable):
        owner.stream.emit("x" * (BUFFER_BYTES + 1))


def test_an_outage_has_a_limit_even_for_a_little_text(owner: Owner, clock: FakeClock) -> None:
    """Twenty seconds after the first failure `emit` raises; a stream whose end cannot be written either is lost."""
    owner.stream.emit("一")
    owner.stream.failed()
    clock.advance(19.0)
    owner.stream.emit("二")
    clock.advance(2.0)

    with pytest.raises(StoreUnavailable):
        owner.stream.emit("三")
    owner.stream.failed()
    assert owner.stream.closed == ""
    owner.stream.finish("error", error_code="store_unavailable", sentence="x")
    owner.stream.failed()
    assert owner.stream.closed == "lost"


def test_a_successful_write_ends_the_outage(owner: Owner, clock: FakeClock) -> None:
    """The seconds are counted from the first failure of the next outage."""
    owner.stream.emit("一")
    owner.stream.failed()
    clock.advance(19.0)
    owner.sends()
    owner.stream.failed()
    clock.advance(19.0)

    owner.stream.emit("二")

    assert owner.stream.text == "一二"


def test_only_the_first_end_counts(owner: Owner) -> None:
    """A second end changes nothing, and an end has precedence over a release."""
    owner.stream.finish("completed")
    owner.stream.finish("error", error_code="answer_failed", sentence="x")
    owner.stream.release()

    assert (owner.write().op, texts(owner.write())) == ("finish", [""])


def test_large_text_becomes_chunks_of_limited_size(clock: FakeClock) -> None:
    """Text is cut between characters, only the last chunk is final, and readers of this process get it in pages."""
    owner = Owner(clock, max_bytes=10**6)
    text = "a" + "答" * 30_000 + "👍"
    owner.stream.emit(text)
    owner.stream.finish("completed")
    write = owner.sends()

    assert "".join(texts(write)) == text
    assert max(len(one.encode()) for one in texts(write)) <= CHUNK_BYTES
    assert [chunk.is_final for chunk in write.chunks] == [False] * (len(write.chunks) - 1) + [True]
    pages: list[Chunk] = []
    while (page := owner.stream.page(len(pages))) and page.chunks:
        assert len(page.chunks) == 1
        pages += page.chunks
    assert "".join(chunk.content for chunk in pages) == text


def test_a_long_backlog_takes_several_writes(clock: FakeClock) -> None:
    """The first write fits a socket's timeout; fields and the end come with the last one."""
    owner = Owner(clock, max_bytes=10 * WRITE_BYTES)
    for letter in "abc":
        owner.stream.emit(letter * (WRITE_BYTES // 2))
        owner.sends()
    renewal = owner.stream.next_write(renew=True)
    assert renewal
    owner.stream.settle(renewal, Appended("gap", 0))
    owner.stream.finish("completed")

    first = owner.write()
    outcome = owner.stream.settle(first, Appended("ok", len(first.chunks)))
    second = owner.sends()

    letters = [[text[0] for text in texts(write) if text] for write in (first, second)]
    assert ([sorted(set(each)) for each in letters], outcome) == ([["a", "b"], ["c"]], "behind")
    assert (first.op, dict(first.fields), second.op, second.fields["status"]) == ("", {}, "finish", "completed")
    assert first.size == WRITE_BYTES


def local_page(owner: Owner, cursor: int = 0) -> tuple[list[str], int, str]:
    """Return what readers of this process get: the texts, `start` and the status."""
    page = owner.stream.page(cursor)
    assert page
    return [chunk.content for chunk in page.chunks], page.standing.start, page.standing.status


def test_readers_of_this_process_get_only_acknowledged_chunks(owner: Owner) -> None:
    """Other replicas could not show the rest yet, and perhaps never."""
    owner.stream.emit("一")
    owner.write()
    assert local_page(owner) == ([], 0, "processing")

    owner.sends()
    owner.stream.replace("二")
    owner.write()
    assert local_page(owner) == (["一"], 0, "processing")

    owner.stream.finish("completed")
    owner.write()
    assert local_page(owner) == (["一"], 0, "processing")
    owner.sends()

    assert local_page(owner, 1) == (["二", ""], 1, "completed")


def test_a_write_without_news_is_a_renewal_or_asked_for(owner: Owner) -> None:
    """A renewal keeps the lease; the reply to one that a reader asks for tells the owner of a cancellation."""
    assert owner.stream.next_write() is None

    renewal = owner.stream.next_write(renew=True)
    owner.stream.touch()
    touched = owner.stream.next_write()

    assert [(write.chunks, write.op) for write in (renewal, touched) if write] == [((), "")] * 2
    assert owner.stream.next_write() is None
