"""The flusher, the only writer of a replica: one pipeline a flush, bounded in bytes, and stopped by no error."""

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


class Replica:
    """A flusher with a store that records its pipelines."""

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
def replica(redis_url: str, clock: FakeClock) -> Iterator[Replica]:
    replica = Replica(redis_url, clock)
    yield replica
    replica.flusher.stop()
    replica.client.close()


def test_all_pending_writes_go_in_one_pipeline(replica: Replica) -> None:
    """A flush is one round trip, however many streams have news."""
    streams = [replica.owns(str(number)) for number in range(50)]
    for stream in streams:
        stream.emit("x")

    replica.flusher.start()
    wait_until(lambda: all(replica.text(str(number)) == "x" for number in range(50)))

    assert [len(pipeline) for pipeline in replica.store.pipelines if pipeline] == [50]


def test_writes_beyond_the_byte_limit_go_in_the_next_pipeline(
    replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pipeline stays small enough for the socket's timeout, and each stream gets its turn."""
    monkeypatch.setattr(module, "BATCH_BYTES", 100)
    for number in range(10):
        replica.owns(str(number)).emit("x" * 60)

    replica.flusher.start()
    wait_until(lambda: all(replica.text(str(number)) == "x" * 60 for number in range(10)))

    assert max(len(pipeline) for pipeline in replica.store.pipelines) == 2


def test_a_bug_in_one_flush_loses_nothing(
    replica: Replica, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error is logged, and the same writes are sent again."""
    monkeypatch.setattr(module, "RETRY_SECONDS", (0.01, 0.01))
    replica.store.errors = [RuntimeError("a bug")]
    replica.owns("s").emit("x")

    replica.flusher.start()

    wait_until(lambda: replica.text("s") == "x")
    assert "flush failed" in caplog.text


def test_a_silent_stream_is_renewed_every_third_of_its_lease(replica: Replica) -> None:
    """A stream without text gets a write without chunks, and is indexed as running."""
    replica.owns("s")
    replica.flusher.start()
    before = len(replica.store.pipelines)
    replica.clock.advance(replica.store.lease / 3)
    replica.flusher.changed(replica.flusher.streams()[0])

    wait_until(lambda: len(replica.store.pipelines) > before)
    wait_until(lambda: replica.client.keys("dify_streams:running:*"))
    assert [write.chunks for write in replica.store.pipelines[-1]] == [()]


def test_a_stream_with_new_text_gets_no_extra_renewal(replica: Replica) -> None:
    """Appends renew the lease; the index of running streams is renewed all the same."""
    silent, spoken = replica.owns("silent"), replica.owns("spoken")
    replica.flusher.start()
    wait_until(lambda: not (silent.queued or spoken.queued))
    replica.clock.advance(replica.store.lease / 6)
    spoken.emit("x")
    wait_until(lambda: replica.text("spoken") == "x" and spoken.acked_at == replica.clock())

    replica.store.pipelines.clear()
    replica.clock.advance(replica.store.lease / 6)
    replica.flusher.changed(spoken)
    wait_until(lambda: replica.store.pipelines)

    assert [[write.stream_id for write in writes] for writes in replica.store.pipelines] == [["silent"]]
    wait_until(lambda: sorted(running_ids(replica)) == ["silent", "spoken"])


def test_further_text_waits_for_the_next_urgent_write(replica: Replica, monkeypatch: pytest.MonkeyPatch) -> None:
    """First text, fields and ends are written at once, together with all waiting text."""
    monkeypatch.setattr(module, "PACE", 3600.0)
    monkeypatch.setattr(module, "SLOWEST", 3600.0)
    stream, other = replica.owns("s"), replica.owns("t")
    replica.flusher.start()
    # Urgent updates that the first flush takes would leave its mark behind, and hurry the text below.
    wait_until(lambda: not (stream.queued or other.queued))
    stream.emit("first")
    wait_until(lambda: replica.text("s") == "first")

    for word in (" and", " on"):
        stream.emit(word)
    threading.Event().wait(0.3)
    assert replica.text("s") == "first"
    other.set(auth_state="cached")

    wait_until(lambda: replica.text("s") == "first and on")
    assert [chunk.content for chunk in replica.store.load("s")[1]] == ["first", " and on"]
    stream.emit("!")
    stream.finish("completed")
    wait_until(lambda: stream.closed == "done")


def test_an_idle_flusher_sends_nothing(replica: Replica) -> None:
    """Without a stream there is no request to Redis."""
    replica.flusher.start()
    threading.Event().wait(0.3)

    assert replica.store.pipelines == []


def test_a_late_end_is_written_at_once(replica: Replica) -> None:
    """It wakes an idle flusher, whose next check for silent streams is minutes away."""
    replica.store.lease = 3600.0
    replica.store.open(NewStream("s", "o", {"status": "processing"}))
    replica.flusher.start()

    replica.flusher.end_later(Write("s", 1, "o", 0, 0, fields={"status": "error"}, op="finish"), ())

    wait_until(lambda: replica.client.hget("dify_stream:s", "status") == "error")


def test_a_released_stream_counts_as_lapsed_at_once(replica: Replica) -> None:
    """A sweep finds a released stream at once, a running one when its lease has lapsed."""
    stream = replica.owns("s")
    replica.store.write([], *replica.store.running_calls(["s", "t"], seconds=1000.0))
    replica.flusher.start()

    stream.release()
    wait_until(lambda: stream.closed)

    assert (replica.store.lapsed(), sorted(running_ids(replica))) == (["s"], ["s", "t"])


def running_ids(replica: Replica) -> list[str]:
    """Return the ids in the index of running streams."""
    return [
        str(one) for key in replica.client.keys("dify_streams:running:*") for one in replica.client.zrange(key, 0, -1)
    ]


def test_an_expired_stream_is_not_written_again(replica: Replica) -> None:
    """A stream older than its TTL closes as lost, and Redis gets no key of it."""
    stream = replica.owns("s")
    replica.store.ttl = 0.0
    replica.client.flushdb()
    stream.emit("x")

    replica.flusher.start()

    wait_until(lambda: stream.closed == "lost")
    assert replica.client.keys("*s*") == []
