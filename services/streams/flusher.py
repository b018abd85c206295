"""Group commit: the pending writes of all streams of this replica go to Redis in one pipeline.

A flush begins at once for urgent updates: first words, fields, the end. Further text waits until flushes take a tenth
of the time at most, so that with thousands of deltas a second one write carries several deltas of its stream. The lease
of a silent stream is renewed every third of its length.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from services import metrics
from services.errors import StoreUnavailable
from services.redis.store import Call
from services.streams.owned_stream import OwnedStream
from services.streams.records import Appended, Write, timestamp
from services.streams.store import StreamStore

log = logging.getLogger(__name__)

#: Bytes of text in one pipeline, over all streams: a slow connection carries them within a socket's timeout.
BATCH_BYTES = 1024 * 1024
#: Seconds from the start of one flush to the next without urgent updates: the minimum, the maximum, and the factor
#: applied to the duration of the last flush.
PACE, SLOWEST, PART = 0.01, 0.15, 10.0
#: Number of checks for silent streams within one lease.
LOOKS = 12
#: Number of streams to be ended later because the reply to opening them was lost.
MAX_LATE_ENDS = 1000
#: Seconds between attempts while Redis is away: the first and the longest.
RETRY_SECONDS = (0.05, 0.5)


class Flusher:
    """One thread that writes all streams of this replica."""

    def __init__(self, store: StreamStore, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._clock = clock
        self._lock = threading.Lock()
        self._streams: dict[str, OwnedStream] = {}
        #: Streams with updates in order of arrival. A deque needs no lock: each delta may pass here.
        self._queue: deque[OwnedStream] = deque()
        #: Ids of streams that the next write includes even without updates, to renew their lease; only the flusher uses
        #: it.
        self._due: set[str] = set()
        #: Ends for streams that may have been opened although the reply was lost; a full deque drops the oldest.
        self._late_ends: deque[tuple[Write, Sequence[Call], Sequence[Call]]] = deque(maxlen=MAX_LATE_ENDS)
        self._wake = threading.Event()
        self._hurry = threading.Event()
        self._stopping = False
        self._looked = self._indexed = clock()
        self._thread = threading.Thread(target=self._run, name="flusher", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout: float = 2.0) -> None:
        """Write the remaining updates, then end the thread."""
        self._stopping = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(timeout)

    def add(self, stream: OwnedStream) -> None:
        """Add a stream; its lease is renewed from now on."""
        with self._lock:
            self._streams[stream.stream_id] = stream
        self.changed(stream)

    def changed(self, stream: OwnedStream) -> None:
        """Queue the stream, so that its updates are written soon."""
        # A queued stream needs no second entry: the flusher clears the mark before it reads the updates.
        if not stream.queued:
            stream.queued = True
            self._queue.append(stream)
            self._wake.set()
        if stream.urgent:
            self._hurry.set()

    def end_later(self, end: Write, after: Sequence[Call], opened: Sequence[Call] = ()) -> None:
        """Send `end` when Redis answers again.

        Then, if the stream is gone or has the same owner, also `after`; `opened` only if it is there.
        """
        self._late_ends.append((end, after, opened))
        self._wake.set()

    def streams(self) -> list[OwnedStream]:
        with self._lock:
            return list(self._streams.values())

    def owned(self, stream_id: str) -> OwnedStream | None:
        with self._lock:
            return self._streams.get(stream_id)

    def _run(self) -> None:
        pause = RETRY_SECONDS[0]
        began = ended = 0.0
        while True:
            self._wake.wait(self._store.lease / LOOKS)
            pace = min(SLOWEST, max(PACE, PART * (ended - began)))
            if self._queue and (left := began + pace - time.monotonic()) > 0.0:
                self._hurry.wait(left)
            began = time.monotonic()
            self._wake.clear()
            self._hurry.clear()
            try:
                more, away = self._flush()
                ended = time.monotonic()
                pause = RETRY_SECONDS[0]
                if away:
                    time.sleep(pause)
            except StoreUnavailable:
                more = True
                time.sleep(pause)
                pause = min(2 * pause, RETRY_SECONDS[1])
            except Exception:
                log.exception("flush failed")
                more = True
                time.sleep(RETRY_SECONDS[1])
            if more:
                self._wake.set()
            if self._stopping and not self._queue:
                return

    def _flush(self) -> tuple[bool, bool]:
        """Send one pipeline; return whether updates are left, and whether a node of a Redis Cluster is away."""
        self._note_renewals()
        batch = self._collect()
        if not (batch or self._late_ends):
            return False, False
        away = self._send(batch)
        if not away:
            self._send_late_ends()
        return bool(self._queue), away

    def _note_renewals(self) -> None:
        """Queue the streams whose lease was not renewed for a third of its length."""
        now = self._clock()
        lease = self._store.lease
        if now - self._looked < lease / LOOKS:
            return
        self._looked = now
        latest = now - lease / 3 + lease / LOOKS
        for stream in self.streams():
            if stream.acked_at <= latest:
                self._due.add(stream.stream_id)
                self.changed(stream)

    def _collect(self) -> list[tuple[OwnedStream, Write]]:
        """Return the writes of the next pipeline; the rest stays in the queue."""
        batch: list[tuple[OwnedStream, Write]] = []
        size = 0
        stamp = timestamp()
        while self._queue and size <= BATCH_BYTES:
            stream = self._queue.popleft()
            stream.queued = False
            due = stream.stream_id in self._due
            if write := stream.next_write(renew=due, stamp=stamp):
                batch.append((stream, write))
                size += write.size
            if due:
                self._due.discard(stream.stream_id)
        return batch

    def _send(self, batch: Sequence[tuple[OwnedStream, Write]]) -> bool:
        """Send the writes; return whether a node of a Redis Cluster is away. Only its streams are retried."""
        try:
            replies = self._store.write([write for _, write in batch], *self._notes(batch))
            for (stream, write), reply in zip(batch, replies, strict=True):
                self._after(stream, write, reply)
        except Exception:
            # Renew every lease and the index with the next write that succeeds.
            self._indexed = self._looked = -math.inf
            for stream, _ in batch:
                self._failed(stream)
            raise
        away = [reply for reply in replies if isinstance(reply, StoreUnavailable)]
        if away and len(away) == len(replies):
            raise away[0]
        return bool(away)

    def _notes(self, batch: Sequence[tuple[OwnedStream, Write]]) -> list[Call]:
        """Return the calls for the index of running streams: released ones at once, all every third of a lease."""
        leaving = [write.stream_id for _, write in batch if write.op == "release"]
        notes = self._store.running_calls(leaving, seconds=0.0)
        now = self._clock()
        if now - self._indexed >= self._store.lease / 3:
            self._indexed = now
            notes = [*self._store.running_calls([stream.stream_id for stream in self.streams()]), *notes]
        return notes

    def _send_late_ends(self) -> None:
        """End streams whose opening reply was lost, one round trip each: this is rare."""
        while self._late_ends:
            entry = self._late_ends[0]
            end, after, opened = entry
            (reply,) = self._store.write([end])
            if isinstance(reply, StoreUnavailable):
                raise reply
            if reply.outcome in ("ok", "gone"):
                self._store.write([], *after, *(opened if reply.outcome == "ok" else ()))
            # A newer entry may have pushed this one out of the full deque meanwhile.
            if self._late_ends and self._late_ends[0] is entry:
                self._late_ends.popleft()

    def _failed(self, stream: OwnedStream) -> None:
        """Queue the stream's updates again; Redis skips chunks that did arrive."""
        stream.failed()
        self._due.add(stream.stream_id)
        self.changed(stream)
        self._drop_closed(stream)

    def _after(self, stream: OwnedStream, write: Write, reply: Appended | StoreUnavailable) -> None:
        if isinstance(reply, StoreUnavailable):
            self._failed(stream)
            return
        outcome = stream.settle(write, reply)
        if outcome == "gone":
            self._write_anew(stream)
        elif outcome == "behind":
            self.changed(stream)
        elif outcome == "refused":
            _note_refusal(stream, reply.epoch, reply.owner)
        elif stream.closed == "released":
            metrics.HANDOVERS.inc()
            log.info("stream handed over", extra={**stream.about, "owner": stream.owner})
        self._drop_closed(stream)

    def _write_anew(self, stream: OwnedStream) -> None:
        """Create a stream again that Redis lost, from its owner's memory."""
        new = stream.as_new()
        if new.age >= self._store.ttl:
            stream.lose()
            return
        ours, snapshot, _ = self._store.open(new)
        ours = ours and snapshot.epoch == stream.epoch
        stream.rewritten(new, ours)
        if ours:
            metrics.REWRITTEN.inc()
            log.warning("stream written anew", extra={**stream.about, "owner": stream.owner})
            self.changed(stream)
        else:
            _note_refusal(stream, snapshot.epoch, snapshot.owner)

    def _drop_closed(self, stream: OwnedStream) -> None:
        if not stream.closed:
            return
        self._due.discard(stream.stream_id)
        with self._lock:
            if self._streams.get(stream.stream_id) is stream:
                self._streams.pop(stream.stream_id)


def _note_refusal(stream: OwnedStream, epoch: int, owner: str) -> None:
    metrics.OWNERS_REFUSED.inc()
    owners = {"owner": stream.owner, "present_owner": owner}
    log.warning("owner refused", extra={**stream.about, **owners, "epoch": epoch})
