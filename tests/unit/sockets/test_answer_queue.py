"""The queue of one socket's answers: shown one after the other, each with an end, and none after the socket closed."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator

import pytest

from channels import following
from channels.sockets import answer_queue
from channels.sockets.answer_queue import AnswerCallbacks, AnswerQueue, Shown
from services.errors import StoreUnavailable, StreamUnknown
from services.streams.following import Update
from services.streams.records import Chunk
from tests.support.servers.processes import FakeClock, wait_until
from tests.support.streams.told_stream import Stream
from utils.deadline import Deadline

END = Update(9, ended=True, status="completed")
#: Seconds to wait for an event; long enough for a busy machine.
WIDE = 30.0


def update(cursor: int, text: str) -> Update:
    return Update(cursor, (Chunk(text, "2025-01-01T00:00:00.000+00:00"),))


def answer(stream_id: str) -> Shown:
    return Shown(stream_id, "default", "anonymous")


class Streams:
    """A gateway of the test's own streams."""

    def __init__(self) -> None:
        self.streams = {name: Stream() for name in "abcdefghi"}
        self.followed: list[tuple[str, int, str]] = []

    def __getitem__(self, name: str) -> Stream:
        return self.streams[name]

    def follow(self, stream_id: str, cursor: int = 0, *, bot: str, principal: str, text: bool = True) -> Stream:
        assert bot == "default"
        self.followed.append((stream_id, cursor, principal))
        return self.streams[stream_id]


class Screen:
    """The callbacks of one socket, which record what it would show."""

    def __init__(self, streams: Streams, *, most: int = 8, clock: FakeClock | None = None) -> None:
        self.before = set(threading.enumerate())
        self.seen: list[tuple[str, ...]] = []
        self.closing = False
        self.show_returns = True
        self.fails_at: str | None = None
        self.queue: AnswerQueue[Shown] = AnswerQueue(
            streams,
            AnswerCallbacks(
                begun=lambda shown: self.see(shown, "begun"),
                show=lambda shown, update: self.see(shown, *(chunk.content for chunk in update.chunks)),
                ended=lambda shown, update, full: self.see(shown, "ended", full.text),
                failed=lambda shown, code: self.see(shown, "failed", code),
                closing=lambda: self.closing,
            ),
            most=most,
            clock=clock or FakeClock(),
        )

    def see(self, shown: Shown, *words: str) -> bool:
        fails = self.fails_at in words
        self.seen.append((shown.stream_id, *words))
        if fails:
            raise ValueError("a callback that breaks")
        return self.show_returns

    def sees(self, *last: str) -> None:
        wait_until(lambda: self.seen[-1:] == [last], WIDE)

    def is_idle(self) -> bool:
        return not any(thread.name == "answers" for thread in set(threading.enumerate()) - self.before)


@pytest.fixture
def streams() -> Streams:
    return Streams()


@pytest.fixture
def screen(streams: Streams) -> Iterator[Screen]:
    screen = Screen(streams)
    yield screen
    screen.queue.close()
    wait_until(screen.is_idle, WIDE)


def test_an_answer_is_shown_from_begun_to_ended(streams: Streams, screen: Screen) -> None:
    """Begun, all pieces, ended with the whole text; read for the principal, from the cursor."""
    streams["a"].tells(update(4, "one"), update(5, "two"), END)

    assert screen.queue.add(answer("a"), 3)

    screen.sees("a", "ended", "whole")
    assert screen.seen == [("a", "begun"), ("a", "one"), ("a", "two"), ("a",), ("a", "ended", "whole")]
    assert streams.followed == [("a", 3, "anonymous")]


def test_the_second_answer_waits_for_the_first(streams: Streams, screen: Screen) -> None:
    """It begins after the first has ended, even if it is complete before."""
    streams["b"].tells(update(1, "fast"), END)
    screen.queue.add(answer("a"))
    screen.queue.add(answer("b"))
    screen.sees("a", "begun")
    waiting = [shown.stream_id for shown in screen.queue.unfinished()]

    streams["a"].tells(update(1, "slow"), END)

    screen.sees("b", "ended", "whole")
    assert waiting == ["a", "b"]
    assert [stream_id for stream_id, *_ in screen.seen] == ["a"] * 4 + ["b"] * 4


def test_the_thread_ends_when_the_queue_is_empty(streams: Streams, screen: Screen) -> None:
    """The thread ends with the last answer, and the next answer starts another."""
    for name in "ab":
        streams[name].tells(END)
        screen.queue.add(answer(name))
        screen.sees(name, "ended", "whole")

        wait_until(screen.is_idle, WIDE)

        assert not screen.queue.busy


def test_an_answer_added_when_the_thread_ends_is_not_forgotten(streams: Streams, screen: Screen) -> None:
    """An answer that is added at the moment the thread ends is shown."""
    deadline = Deadline(WIDE)
    for _ in range(300):
        streams["a"].tells(END)
        screen.queue.add(answer("a"))
        while screen.queue.busy:
            assert not deadline.over
            time.sleep(0)

    assert screen.seen.count(("a", "ended", "whole")) == 300


def test_the_length_of_the_queue_is_limited(streams: Streams) -> None:
    """One answer beyond the limit is rejected; an answer that ends frees a slot."""
    screen = Screen(streams, most=2)

    added = [screen.queue.add(answer(name)) for name in "abc"]
    full = screen.queue.full
    streams["a"].tells(END)
    wait_until(lambda: not screen.queue.full, WIDE)

    assert (added, full) == ([True, True, False], True)
    assert screen.queue.add(answer("c"))
    screen.queue.close()


@pytest.mark.parametrize(
    ("error", "code"), [(StreamUnknown("a"), "stream_unknown"), (ValueError("of ours"), "server_error")]
)
def test_an_error_fails_only_its_answer(
    streams: Streams, screen: Screen, caplog: pytest.LogCaptureFixture, error: Exception, code: str
) -> None:
    """Its code is shown instead of an end; one of ours is logged with its traceback. The next answer is shown."""
    streams["a"].tells(error)
    streams["b"].tells(END)

    screen.queue.add(answer("a"))
    screen.queue.add(answer("b"))

    screen.sees("b", "ended", "whole")
    assert screen.seen[:2] == [("a", "begun"), ("a", "failed", code)]
    logged = [record.levelno for record in caplog.records if record.exc_info and record.name == answer_queue.__name__]
    assert logged == [logging.ERROR] * (code == "server_error")


@pytest.mark.parametrize("callback", ["begun", "one", "ended"])
def test_a_failing_callback_does_not_end_the_queue(streams: Streams, screen: Screen, callback: str) -> None:
    """The next answer is shown after an exception in any callback."""
    streams["a"].tells(update(1, "one"), END)
    screen.fails_at = callback
    screen.queue.add(answer("a"))
    wait_until(lambda: any(callback in words for words in screen.seen), WIDE)
    screen.fails_at = None
    streams["b"].tells(END)

    screen.queue.add(answer("b"))

    screen.sees("b", "ended", "whole")
    wait_until(lambda: not screen.queue.busy, WIDE)


@pytest.fixture
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read an ended answer again without a pause."""
    monkeypatch.setattr(following, "AGAIN", 0.01)


@pytest.mark.usefixtures("_at_once")
def test_an_outage_at_the_end_delays_the_answer(streams: Streams, screen: Screen) -> None:
    """The whole text is read again until Redis is back, and shown once."""
    streams["a"].wholes = [StoreUnavailable(), StoreUnavailable()]
    streams["a"].tells(END)

    screen.queue.add(answer("a"))

    screen.sees("a", "ended", "whole")
    assert screen.seen == [("a", "begun"), ("a",), ("a", "ended", "whole")]


def test_an_answer_without_news_fails_after_half_an_hour(streams: Streams) -> None:
    """After 30 minutes without updates it fails, also during an outage."""
    clock = FakeClock()
    screen = Screen(streams, clock=clock)
    screen.queue.add(answer("a"))
    for cursor, text in enumerate(("one", "two"), 1):
        waits_without_news(streams["a"])
        clock.advance(1700.0)
        waits_without_news(streams["a"])
        streams["a"].tells(update(cursor, text))
        screen.sees("a", text)
    waits_without_news(streams["a"])
    clock.advance(1801.0)

    screen.sees("a", "failed", "service_unavailable")


def waits_without_news(stream: Stream) -> None:
    """Return once the queue has waited in vain, and found that the answer's time is not over."""
    waits = stream.waits
    wait_until(lambda: stream.waits > waits + 1, WIDE)


@pytest.mark.usefixtures("_at_once")
def test_reading_the_whole_answer_fails_after_half_an_hour(streams: Streams) -> None:
    """Reading the whole text fails too, 30 minutes after the last update."""
    clock = FakeClock()
    screen = Screen(streams, clock=clock)
    streams["a"].wholes = [StoreUnavailable()] * 10_000
    streams["a"].tells(END)
    screen.queue.add(answer("a"))
    wait_until(lambda: streams["a"].reads, WIDE)

    clock.advance(1801.0)

    screen.sees("a", "failed", "service_unavailable")


@pytest.mark.parametrize("closes", ["socket", "queue"])
def test_nothing_is_shown_after_the_socket_closed(streams: Streams, screen: Screen, closes: str) -> None:
    """No callback is called, and `add` returns false; a closed queue is empty, and its thread ends at once."""
    screen.queue.add(answer("a"))
    screen.queue.add(answer("b"))
    screen.sees("a", "begun")

    if closes == "queue":
        screen.queue.close()
    else:
        screen.closing = True
        streams["a"].tells(update(1, "late"), END)

    wait_until(screen.is_idle, WIDE)
    assert screen.seen == [("a", "begun")]
    assert not screen.queue.add(answer("c"))
    assert closes == "socket" or (screen.queue.busy, screen.queue.unfinished()) == (False, [])


def test_an_answer_ends_when_show_returns_false(streams: Streams, screen: Screen) -> None:
    """If `show` returns false, the answer ends."""
    screen.show_returns = False
    streams["a"].tells(update(1, "one"), update(2, "two"), END)

    screen.queue.add(answer("a"))

    wait_until(screen.is_idle, WIDE)
    assert screen.seen == [("a", "begun"), ("a", "one")]


@pytest.mark.parametrize("late", [update(1, "late"), StreamUnknown("a")], ids=["news", "error"])
def test_a_dropped_answer_has_no_more_callbacks(streams: Streams, screen: Screen, late: Update | Exception) -> None:
    """The shown answer ends, a queued one never begins, and the next is shown."""
    for name in "abc":
        screen.queue.add(answer(name))
    screen.sees("a", "begun")
    streams["c"].tells(END)

    screen.queue.drop("a")
    screen.queue.drop("b")
    streams["a"].tells(late, END)

    screen.sees("c", "ended", "whole")
    assert [stream_id for stream_id, *_ in screen.seen] == ["a", "c", "c", "c"]
