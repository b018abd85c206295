"""The flusher, the one writer of a replica: fair, bounded, and ended by no error."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from services.errors import StoreUnavailable
from services.redis.store import Call, ScriptRunner, connect
from services.streams import flusher as module
from services.streams.flusher import Flusher
from services.streams.owned_stream import OwnedStream
from services.streams.records import Appended, NewStream, Write
from services.streams.store import StreamStore
from tests.support.servers.processes import FakeClock, wait_until
from utils.deadline import Deadline


class Store(StreamStore):
    """A store that records each pipeline, and fails on demand."""

    def __init__(self, runner: ScriptRunner, **options: Any) -> None:
        super().__init__(runner, **options)
        self.pipelines: list[Sequence[Write]] = []
        self.errors: list[Exception] = []

    def write(self, writes: Sequence[Write], *others: Call) -> list[Appended | StoreUnavailable]:
        if self.errors:
            raise self.errors.pop()
        self.pipelines.append(writes)
        return super().write(writes, *others)


class Desk:
    def __init__(self, url: str, clock: FakeClock) -> None:
        self.client = connect(url, pool_size=4, timeout=5.0)
        self.store = Store(ScriptRunner(self.client))
        self.clock = clock
        self.flusher = Flusher(self.store, clock=clock)

    def owns(self, stream_id: str, **options: Any) -> OwnedStream:
        new = NewStream(stream_id, "o", {"status": "processing"})
        self.store.open(new)
        options |= {
            "deadline": Deadline(60.0),
            "changed": self.flusher.changed,
            "max_bytes": 10_000_000,
            "clock": self.clock,
        }
        stream = OwnedStream(new, **options)
        self.flusher.add(stream)
        return stream

    def text(self, stream_id: str) -> str:
        return str(self.client.get(f"{{dify_stream:{stream_id}}}:text") or "")


@pytest.fixture
def desk(redis_url: str, clock: FakeClock) -> Iterator[Desk]:
    desk = Desk(redis_url, clock)
    yield desk
    desk.flusher.stop()
    desk.client.close()


def test_everything_pending_goes_in_one_pipeline(desk: Desk) -> None:
    """A flush is one round trip, however many streams have news."""
    streams = [desk.owns(str(number)) for number in range(50)]
    for stream in streams:
        stream.emit("x")

    desk.flusher.start()
    wait_until(lambda: all(desk.text(str(number)) == "x" for number in range(50)))

    assert [len(pipeline) for pipeline in desk.store.pipelines if pipeline] == [50]


def test_too_much_for_one_pipeline_waits_for_the_next(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """News too large for a socket's timeout is divided over pipelines, and each stream gets its turn."""
    monkeypatch.setattr(module, "BATCH_BYTES", 100)
    for number in range(10):
        desk.owns(str(number)).emit("x" * 60)

    desk.flusher.start()
    wait_until(lambda: all(desk.text(str(number)) == "x" * 60 for number in range(10)))

    assert max(len(pipeline) for pipeline in desk.store.pipelines) == 2


def test_a_bug_in_one_flush_loses_nothing(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    """The error is logged, and the same news is sent again."""
    desk.store.errors = [RuntimeError("a bug")]
    desk.owns("s").emit("x")

    desk.flusher.start()

    wait_until(lambda: desk.text("s") == "x")
    assert "flush failed" in caplog.text


def test_a_silent_stream_is_renewed_every_third_of_its_lease(desk: Desk) -> None:
    """A silent stream is renewed once by the clock, and indexed as running."""
    desk.owns("s")
    desk.flusher.start()
    before = len(desk.store.pipelines)
    desk.clock.advance(desk.store.lease / 3)
    desk.flusher.changed(desk.flusher.streams()[0])

    wait_until(lambda: len(desk.store.pipelines) > before)
    wait_until(lambda: desk.client.keys("dify_streams:running:*"))
    assert [write.chunks for write in desk.store.pipelines[-1]] == [()]


def test_a_stream_that_speaks_is_not_renewed_besides(desk: Desk) -> None:
    """Appends renew the lease; the index of running streams is renewed all the same."""
    silent, spoken = desk.owns("silent"), desk.owns("spoken")
    desk.flusher.start()
    wait_until(lambda: not (silent.queued or spoken.queued))
    desk.clock.advance(desk.store.lease / 6)
    spoken.emit("x")
    wait_until(lambda: desk.text("spoken") == "x" and spoken.acked_at == desk.clock())

    desk.store.pipelines.clear()
    desk.clock.advance(desk.store.lease / 6)
    desk.flusher.changed(spoken)
    wait_until(lambda: desk.store.pipelines)

    assert [[write.stream_id for write in writes] for writes in desk.store.pipelines] == [["silent"]]
    wait_until(lambda: sorted(noted(desk)) == ["silent", "spoken"])


def test_text_that_goes_on_waits_for_company(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """First words, fields and ends go at once, together with all waiting text."""
    monkeypatch.setattr(module, "PACE", 3600.0)
    monkeypatch.setattr(module, "SLOWEST", 3600.0)
    stream, other = desk.owns("s"), desk.owns("t")
    desk.flusher.start()
    stream.emit("first")
    wait_until(lambda: desk.text("s") == "first")

    for word in (" and", " on"):
        stream.emit(word)
    threading.Event().wait(0.3)
    assert desk.text("s") == "first"
    other.set(auth_state="cached")

    wait_until(lambda: desk.text("s") == "first and on")
    assert [chunk.content for chunk in desk.store.load("s")[1]] == ["first", " and on"]
    stream.emit("!")
    stream.finish("completed")
    wait_until(lambda: stream.closed == "done")


def test_an_idle_flusher_sends_nothing(desk: Desk) -> None:
    """Without a stream there is no traffic."""
    desk.flusher.start()
    threading.Event().wait(0.3)

    assert desk.store.pipelines == []


def test_what_is_released_is_found_at_once(desk: Desk) -> None:
    """A released stream is first in the index; a written one stays for its lease."""
    stream = desk.owns("s")
    desk.store.write([], *desk.store.running_calls(["s", "t"]))
    desk.flusher.start()

    stream.release()
    wait_until(lambda: stream.closed)

    assert (desk.store.lapsed(), sorted(noted(desk))) == (["s"], ["s", "t"])


def noted(desk: Desk) -> list[str]:
    """Return the ids in the index of running streams."""
    return [str(one) for key in desk.client.keys("dify_streams:running:*") for one in desk.client.zrange(key, 0, -1)]


def test_a_stream_whose_time_is_over_is_not_written_again(desk: Desk) -> None:
    """The stream has expired in Redis, so no reader could find it."""
    stream = desk.owns("s")
    desk.store.ttl = 0.0
    desk.client.flushdb()
    stream.emit("x")

    desk.flusher.start()

    wait_until(lambda: stream.closed == "lost")
    assert desk.client.keys("*s*") == []
