"""The owner's side of a stream without Redis: its writes, and its reactions to replies."""

from __future__ import annotations

import threading
from collections.abc import Mapping

import pytest

from services.errors import AnswerError, StoreUnavailable, StreamClosed
from services.streams.backlog import CHUNK_BYTES, WRITE_BYTES
from services.streams.owned_state import MAX_REPLACEMENTS
from services.streams.owned_stream import BUFFER_BYTES, OwnedStream
from services.streams.records import Appended, Chunk, NewStream, Write
from tests.support.servers.processes import FakeClock, wait_until
from utils.deadline import Deadline


class Desk:
    """An owned stream, and how often it reported news."""

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
        """Acknowledge the next write as Redis would."""
        write = self.write()
        self.stream.settle(write, Appended("ok", write.index + len(write.chunks)))
        return write


@pytest.fixture
def desk(clock: FakeClock) -> Desk:
    return Desk(clock)


def said(write: Write) -> list[str]:
    return [chunk.content for chunk in write.chunks]


def test_all_deltas_of_one_flush_are_one_chunk(desk: Desk) -> None:
    """All waiting text becomes one entry of the list."""
    desk.stream.emit("一")
    desk.stream.emit("二")

    assert said(desk.write()) == ["一二"]


def test_a_chunk_that_was_sent_keeps_its_boundaries(desk: Desk) -> None:
    """A chunk is sent again unchanged, followed by newer text."""
    desk.stream.emit("一")
    first = desk.write()
    desk.stream.emit("二")

    again = desk.write()

    assert (said(first), said(again), again.index) == (["一"], ["一", "二"], 0)


def test_what_redis_has_is_not_sent_again(desk: Desk) -> None:
    """An acknowledged write moves the index on, and without news there is no write."""
    desk.stream.emit("一")
    desk.sends()

    assert desk.stream.next_write() is None
    desk.stream.emit("二")
    assert (desk.write().index, said(desk.write())) == (1, ["二"])


def test_a_renewal_is_a_write_without_news(desk: Desk) -> None:
    """A silent stream keeps its lease."""
    renewal = desk.stream.next_write(renew=True)

    assert renewal
    assert (renewal.chunks, renewal.op) == ((), "")


def test_after_a_gap_the_owner_sends_from_there(desk: Desk) -> None:
    """Redis lost the tail, and the owner has all of it."""
    for piece in ("一", "二", "三"):
        desk.stream.emit(piece)
        desk.sends()

    write = desk.stream.next_write(renew=True)
    assert write
    desk.stream.settle(write, Appended("gap", 1))

    assert (desk.write().index, said(desk.write())) == (1, ["二", "三"])


def test_a_vanished_stream_is_written_whole(desk: Desk, clock: FakeClock) -> None:
    """An empty Redis gets fields, chunks, epoch and start, but no longer TTL."""
    desk.stream.emit("旧")
    desk.sends()
    desk.stream.replace("新")
    desk.stream.set(auth_state="cached")
    clock.advance(10.0)

    whole = desk.stream.whole()
    desk.stream.rewritten(whole, ours=True)

    assert [chunk.content for chunk in whole.chunks] == ["旧", "新"]
    assert (whole.start, whole.age, whole.fields["auth_state"], whole.fields["content"]) == (1, 10.0, "cached", "问题")


def test_a_vanished_stream_that_had_ended_ends_again(desk: Desk) -> None:
    """The end follows the rewritten stream."""
    desk.stream.emit("答")
    desk.stream.finish("completed")
    desk.write()

    whole = desk.stream.whole()
    desk.stream.rewritten(whole, ours=True)

    write = desk.write()
    assert (whole.fields["status"], whole.fields["dify_finished"]) == ("processing", "0")
    assert (write.op, write.fields["status"], write.chunks[-1].is_final) == ("finish", "completed", True)


def test_a_stream_somebody_else_wrote_anew_is_theirs(desk: Desk) -> None:
    """The old owner stops."""
    desk.stream.rewritten(desk.stream.whole(), ours=False)

    assert (desk.stream.closed, desk.deadline.aborted) == ("fenced", "fenced")


@pytest.mark.parametrize(
    ("reply", "closed"),
    [
        (Appended("refused", epoch=2, owner="b"), "fenced"),
        (Appended("closed", status="cancelled"), "cancelled"),
        (Appended("closed", status="error"), "fenced"),
    ],
)
def test_a_refusal_stops_the_producer(desk: Desk, reply: Appended, closed: str) -> None:
    """The deadline is aborted with the reason, and no text can be added."""
    desk.stream.emit("一")
    desk.stream.settle(desk.write(), reply)

    assert (desk.stream.closed, desk.deadline.aborted) == (closed, closed)
    assert desk.stream.next_write(renew=True) is None
    with pytest.raises(StreamClosed):
        desk.stream.emit("二")


def test_the_end_carries_the_last_words(desk: Desk) -> None:
    """Pending text is the final chunk, in one write with status and dify_finished."""
    desk.stream.emit("完")
    desk.stream.finish("completed")

    write = desk.sends()

    assert (said(write), write.chunks[-1].is_final, write.op) == (["完"], True, "finish")
    assert (write.fields["status"], write.fields["dify_finished"]) == ("completed", "1")
    assert (desk.stream.closed, desk.deadline.aborted) == ("done", "")


def test_an_end_without_words_still_has_a_final_chunk(desk: Desk) -> None:
    """Readers with a cursor see the end."""
    desk.stream.emit("完")
    desk.sends()
    desk.stream.finish("completed")

    assert [(chunk.content, chunk.is_final) for chunk in desk.write().chunks] == [("", True)]


def test_an_error_is_the_last_chunk_and_no_text(desk: Desk) -> None:
    """The text stays, and the sentence follows it."""
    desk.stream.emit("一半")
    desk.stream.finish("error", error_code="provider_error", sentence="出错了")

    write = desk.write()

    chunks = [(chunk.content, chunk.is_error, chunk.is_final) for chunk in write.chunks]
    assert chunks == [("一半", False, False), ("出错了", True, True)]
    assert (write.fields["error_code"], desk.stream.text) == ("provider_error", "一半")


def test_only_the_first_end_counts(desk: Desk) -> None:
    """Ending twice changes nothing."""
    desk.stream.finish("completed")
    desk.stream.finish("error", error_code="answer_failed", sentence="x")

    assert [chunk.content for chunk in desk.write().chunks] == [""]


def test_a_replacement_starts_behind_what_was_sent(desk: Desk) -> None:
    """Old chunks stay in the list; the text is the new one."""
    desk.stream.emit("旧")
    desk.sends()
    desk.stream.emit("没发出去")
    desk.stream.replace("新")

    write = desk.write()

    assert (write.start, said(write), desk.stream.text) == (1, ["新"], "新")


def test_a_replacement_by_nothing_is_sent_too(desk: Desk) -> None:
    """A new start alone is written."""
    desk.stream.emit("旧")
    desk.sends()
    desk.stream.replace("")

    assert desk.sends().start == 1
    assert desk.stream.next_write() is None


def test_an_answer_that_begins_anew_for_ever_is_ended(desk: Desk) -> None:
    """Each replacement leaves its chunks in the list, so their number is limited."""
    for _ in range(MAX_REPLACEMENTS):
        desk.stream.replace("又一次")

    with pytest.raises(AnswerError) as raised:
        desk.stream.replace("又一次")

    assert raised.value.code == "answer_too_long"


def test_one_beginning_too_many_leaves_the_text(desk: Desk) -> None:
    """The text before it stays."""
    for number in range(MAX_REPLACEMENTS):
        desk.stream.replace(str(number))

    with pytest.raises(AnswerError):
        desk.stream.replace("一个太多")

    assert desk.stream.text == str(MAX_REPLACEMENTS - 1)


def test_the_end_is_one_step_for_whoever_writes(desk: Desk) -> None:
    """A write made while the stream finishes contains nothing of the end, or all of it."""
    seen: list[Write | None] = []
    stream = desk.stream
    set_fields = stream._state.set_fields

    def slow_set(fields: Mapping[str, str]) -> bool:
        looking = threading.Thread(target=lambda: seen.append(stream.next_write()))
        looking.start()
        looking.join(0.3)
        if not seen:
            threads.append(looking)
        return set_fields(fields)

    threads: list[threading.Thread] = []
    stream._state.set_fields = slow_set  # type: ignore[method-assign]
    stream.finish("completed")
    for thread in threads:
        thread.join(5.0)

    assert [write.fields["status"] for write in seen if write] == ["completed"]


def test_fields_are_sent_until_redis_has_them(desk: Desk) -> None:
    """A value that changes during a write is sent again; an equal value is not."""
    desk.stream.set(auth_state="cached")
    write = desk.write()
    desk.stream.set(auth_state="renewed")
    desk.stream.settle(write, Appended("ok", 0))

    assert desk.sends().fields == {"auth_state": "renewed"}
    desk.stream.set(auth_state="renewed")
    assert desk.stream.next_write() is None


def test_a_field_may_have_to_be_stored_before_anything_else(clock: FakeClock) -> None:
    """`wait_stored` returns when Redis has the field, not before."""
    desk = Desk(clock, outage_seconds=20.0)
    desk.stream.set(asks="1")
    waiting = threading.Thread(target=desk.stream.wait_stored)
    waiting.start()

    lost = desk.write()
    desk.stream.failed()
    assert waiting.is_alive()
    desk.stream.settle(lost, Appended("ok", 0))

    waiting.join(10.0)
    assert not waiting.is_alive()


def test_what_is_not_stored_in_time_is_an_outage(clock: FakeClock) -> None:
    """`wait_stored` times out, and raises StreamClosed if another owner took over meanwhile."""
    desk = Desk(clock, outage_seconds=0.05)
    desk.stream.set(asks="1")

    with pytest.raises(StoreUnavailable):
        desk.stream.wait_stored()
    desk.stream.settle(desk.write(), Appended("refused", epoch=2, owner="b"))
    with pytest.raises(StreamClosed, match="fenced"):
        desk.stream.wait_stored()


def test_nothing_is_asked_for_a_stream_that_leaves(desk: Desk) -> None:
    """The next owner asks the provider; a field of a released stream does not count as stored."""
    desk.stream.release()
    desk.stream.set(asks="1")

    with pytest.raises(StreamClosed, match="released"):
        desk.stream.wait_stored()


def test_an_answer_that_becomes_whole_while_it_leaves_ends(desk: Desk) -> None:
    """The end replaces the release, because no other owner needs to continue."""
    desk.stream.release()
    desk.stream.emit("完整")
    desk.stream.finish("completed")

    write = desk.sends()

    assert (write.op, said(write), desk.stream.closed) == ("finish", ["完整"], "done")


def test_what_redis_cannot_be_asked_for_is_what_it_had(desk: Desk, clock: FakeClock) -> None:
    """A reader sees no more than other replicas may read, and nothing once another owner may write."""
    desk.stream.emit("有")
    desk.sends()
    desk.stream.emit("还没有")
    desk.write()

    known = desk.stream.known(6.0)
    clock.advance(6.1)

    assert known
    assert (known.status, known.text) == ("processing", "有")
    assert desk.stream.known(6.0) is None


def test_an_answer_that_is_too_long_keeps_what_fits(clock: FakeClock) -> None:
    """The text is cut between characters, and the code says so."""
    desk = Desk(clock, max_bytes=7)

    with pytest.raises(AnswerError) as raised:
        desk.stream.emit("一二三")

    assert (raised.value.code, desk.stream.text) == ("answer_too_long", "一二")


def test_a_replacement_gives_the_room_back(clock: FakeClock) -> None:
    """Only the current text counts against the limit."""
    desk = Desk(clock, max_bytes=6)
    desk.stream.emit("一二")

    desk.stream.replace("三四")

    assert desk.stream.text == "三四"


def test_half_a_surrogate_pair_costs_one_character(desk: Desk) -> None:
    """Text without a UTF-8 form does not end the answer."""
    desk.stream.emit("好\ud83d！")

    assert desk.stream.text == "好?！"


def test_a_producer_waits_while_redis_is_behind(clock: FakeClock) -> None:
    """With a full buffer the producer blocks, and continues when the buffer drains."""
    desk = Desk(clock, max_bytes=10 * BUFFER_BYTES)
    desk.stream.emit("x" * BUFFER_BYTES)
    producer = threading.Thread(target=desk.stream.emit, args=("y",))
    producer.start()
    wait_until(lambda: desk.stream.figures["bytes"] == BUFFER_BYTES + 1)
    assert producer.is_alive()

    desk.sends()

    producer.join(5.0)
    assert not producer.is_alive()


def test_a_producer_gives_up_when_redis_stays_behind(clock: FakeClock) -> None:
    """The wait has a limit."""
    desk = Desk(clock, max_bytes=10 * BUFFER_BYTES, outage_seconds=0.1)

    with pytest.raises(StoreUnavailable):
        desk.stream.emit("x" * (BUFFER_BYTES + 1))


def test_an_outage_has_a_limit_even_for_a_little_text(desk: Desk, clock: FakeClock) -> None:
    """Twenty seconds after the first failure the producer ends, and later its end is dropped too."""
    desk.stream.emit("一")
    desk.stream.failed()
    clock.advance(19.0)
    desk.stream.emit("二")
    clock.advance(2.0)

    with pytest.raises(StoreUnavailable):
        desk.stream.emit("三")
    desk.stream.failed()
    assert desk.stream.closed == ""
    desk.stream.finish("error", error_code="store_unavailable", sentence="x")
    desk.stream.failed()
    assert desk.stream.closed == "lost"


def test_an_outage_that_ends_is_forgotten(desk: Desk, clock: FakeClock) -> None:
    """The seconds start again with the next outage."""
    desk.stream.emit("一")
    desk.stream.failed()
    clock.advance(19.0)
    desk.sends()
    desk.stream.failed()
    clock.advance(19.0)

    desk.stream.emit("二")

    assert desk.stream.text == "一二"


def test_a_released_stream_takes_its_words_along(desk: Desk) -> None:
    """A release writes all text so far and stops the producer without an end."""
    desk.stream.emit("一半")
    desk.stream.release()

    write = desk.sends()

    assert (said(write), write.op, write.chunks[-1].is_final) == (["一半"], "release", False)
    assert (desk.stream.closed, desk.deadline.aborted) == ("released", "released")


def test_a_stream_that_ends_is_not_released(desk: Desk) -> None:
    """The end has precedence."""
    desk.stream.finish("completed")
    desk.stream.release()

    assert desk.write().op == "finish"


def test_much_at_once_becomes_chunks_that_a_reader_can_take(clock: FakeClock) -> None:
    """Large text is cut between characters, with one final mark; readers of this process get it in pages."""
    desk = Desk(clock, max_bytes=10**6)
    text = "a" + "答" * 30_000 + "👍"
    desk.stream.emit(text)
    desk.stream.finish("completed")
    write = desk.sends()

    assert "".join(said(write)) == text
    assert max(len(one.encode()) for one in said(write)) <= CHUNK_BYTES
    assert [chunk.is_final for chunk in write.chunks] == [False] * (len(write.chunks) - 1) + [True]
    pages: list[Chunk] = []
    while (page := desk.stream.page(len(pages))) and page.chunks:
        assert len(page.chunks) == 1
        pages += page.chunks
    assert "".join(chunk.content for chunk in pages) == text


def test_a_long_backlog_comes_in_several_writes(clock: FakeClock) -> None:
    """The first write fits a socket's timeout; fields and the end come with the last one."""
    desk = Desk(clock, max_bytes=10 * WRITE_BYTES)
    for letter in "abc":
        desk.stream.emit(letter * (WRITE_BYTES // 2))
        desk.sends()
    renewal = desk.stream.next_write(renew=True)
    assert renewal
    desk.stream.settle(renewal, Appended("gap", 0))
    desk.stream.finish("completed")

    first = desk.write()
    outcome = desk.stream.settle(first, Appended("ok", len(first.chunks)))
    second = desk.sends()

    letters = [[text[0] for text in said(write) if text] for write in (first, second)]
    assert ([sorted(set(each)) for each in letters], outcome) == ([["a", "b"], ["c"]], "behind")
    assert (first.op, dict(first.fields), second.op, second.fields["status"]) == ("", {}, "finish", "completed")
    assert first.size == WRITE_BYTES


def shown(desk: Desk, cursor: int = 0) -> tuple[list[str], int, str]:
    page = desk.stream.page(cursor)
    assert page
    return [chunk.content for chunk in page.chunks], page.standing.start, page.standing.status


def test_readers_here_see_what_redis_is_known_to_have(desk: Desk) -> None:
    """They see no more: other replicas could not show it yet, and perhaps never."""
    desk.stream.emit("一")
    desk.write()
    assert shown(desk) == ([], 0, "processing")

    desk.sends()
    desk.stream.replace("二")
    desk.write()
    assert shown(desk) == (["一"], 0, "processing")

    desk.stream.finish("completed")
    desk.write()
    assert shown(desk) == (["一"], 0, "processing")
    desk.sends()

    assert shown(desk, 1) == (["二", ""], 1, "completed")


@pytest.mark.parametrize("reply", [Appended("refused", epoch=2, owner="b"), Appended("closed", status="cancelled")])
def test_readers_here_ask_redis_about_what_is_not_ours_any_more(desk: Desk, reply: Appended) -> None:
    """Another owner writes the stream, or a reader cancelled it: memory does not know that."""
    desk.stream.emit("一")
    desk.stream.settle(desk.write(), reply)

    assert desk.stream.page(0) is None


def test_a_touched_stream_is_written_once_more(desk: Desk) -> None:
    """A write without news tells the owner if the stream was ended."""
    assert desk.stream.next_write() is None

    desk.stream.touch()

    assert said(desk.write()) == []
    assert desk.stream.next_write() is None
