"""Polls: the present snapshot of a stream, in shared round trips, also while Redis is away or lacks text.

While Redis is away, and shortly after, only the stream's owner shows a running stream: another replica might show less
than its reader has seen. A stream that Redis lacks is unknown only after its owner had time to write it again.

Polls that arrive during a round trip are sent together with the next one, without a timer or a thread. The first poll
is the leader and sends the reads of all waiting polls; then the first poll that arrived meanwhile leads. So a single
poll is sent at once, and under load a process has one request at a time to each node of Redis.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

from services.errors import StoreUnavailable
from services.streams.following import Misses
from services.streams.manager import StreamManager
from services.streams.records import Snapshot
from services.streams.store import StreamStore

#: Streams in one request: at most 1 MB of text.
MAX_TOGETHER = 64
#: Seconds a poll waits for a request before its own; the store bounds each request.
WAIT_SECONDS = 1.0

Reading = Snapshot | StoreUnavailable | None


class StreamPolls:
    """Snapshots from Redis, or from this replica's memory where Redis may have less."""

    def __init__(self, store: StreamStore, manager: StreamManager) -> None:
        self._store = store
        self._reads = SharedReads(store)
        self._manager = manager
        # An owner writes with each renewal, a third of the lease apart, and tries again twice a second.
        self.misses = Misses(store.lease / 3 + 2)

    def snapshot(self, stream_id: str) -> Snapshot | None:
        """Return the stream's snapshot; None where it is unknown or expired.

        Raises:
            StoreUnavailable: nothing can be shown now; read again later.
        """
        try:
            snapshot = self._reads.read(stream_id)
        except StoreUnavailable as exc:
            return self._owned(stream_id, otherwise=exc)
        return self._checked(stream_id, snapshot) if snapshot else self._missed(stream_id)

    def _owned(self, stream_id: str, *, otherwise: StoreUnavailable) -> Snapshot:
        """Return a stream that this replica writes, from memory.

        Raises:
            StoreUnavailable: `otherwise`, where this replica does not write it.
        """
        snapshot = self._manager.known(stream_id)
        if snapshot is None:
            raise otherwise
        return snapshot

    def _checked(self, stream_id: str, snapshot: Snapshot) -> Snapshot:
        """Return a snapshot from Redis, or the owner's where Redis may have less than was shown."""
        self.misses.forget(stream_id)
        growing = snapshot.status == "processing" and not snapshot.frame_over
        if not growing or not self._store.away(stream_id):
            return snapshot
        newer = StoreUnavailable("after an outage only the stream's owner has all of its text", code="owner_only")
        return max(snapshot, self._owned(stream_id, otherwise=newer), key=lambda seen: seen.size)

    def _missed(self, stream_id: str) -> Snapshot | None:
        """Return the owner's snapshot of a stream that Redis lacks; None once its owner had time to write it again."""
        snapshot = self._manager.known(stream_id)
        if snapshot is None and self.misses.note(stream_id):
            raise StoreUnavailable("the stream's owner may be writing it again", code="stream_missing")
        return snapshot


@dataclass(slots=True, eq=False)
class _Poll:
    stream_id: str
    #: Locked until the poll has its reading or leads.
    ready: threading.Lock = field(default_factory=threading.Lock)
    leads: bool = False
    #: Empty, or the one reading once it has arrived.
    answers: tuple[Reading, ...] = ()


@dataclass(slots=True)
class _Queue:
    """The polls that wait for one node of Redis, and whether one of them leads."""

    waiting: list[_Poll] = field(default_factory=list)
    led: bool = False


class SharedReads:
    """Reads streams as the store does, with fewer round trips."""

    def __init__(self, store: StreamStore, *, timeout: float = WAIT_SECONDS) -> None:
        self._store = store
        self._timeout = timeout
        self._lock = threading.Lock()
        self._queues: dict[str, _Queue] = {}

    def read(self, stream_id: str) -> Snapshot | None:
        """Return the stream's snapshot; None if it does not exist.

        Raises:
            StoreUnavailable: Redis is away, or behind.
        """
        poll = _Poll(stream_id)
        poll.ready.acquire()
        with self._lock:
            queue = self._queues.setdefault(self._store.home(stream_id), _Queue())
            queue.waiting.append(poll)
            if not queue.led:
                queue.led = poll.leads = True
        if not poll.leads:
            self._wait(queue, poll)
        if poll.leads:
            self._lead(queue)
        for answer in poll.answers:
            if isinstance(answer, StoreUnavailable):
                raise StoreUnavailable(str(answer)) from answer
            return answer
        raise StoreUnavailable("redis is behind for too long")

    def _wait(self, queue: _Queue, poll: _Poll) -> None:
        """Wait until the poll is answered or leads; remove it from the queue after the timeout."""
        if poll.ready.acquire(timeout=self._timeout):
            return
        with self._lock:
            if poll.leads:
                # Appointed at this moment: its lock was released, and is locked while it leads.
                poll.ready.acquire()
                return
            sent = poll not in queue.waiting
            if not sent:
                queue.waiting.remove(poll)
        if sent:
            poll.ready.acquire(timeout=self._timeout)

    def _lead(self, queue: _Queue) -> None:
        """Send the reads of the waiting polls, the leader's included, and appoint the next leader."""
        with self._lock:
            polls = queue.waiting[:MAX_TOGETHER]
            del queue.waiting[:MAX_TOGETHER]
        answers: Sequence[Reading] = ()
        try:
            answers = self._store.snapshots([poll.stream_id for poll in polls])
        except StoreUnavailable as exc:
            answers = [exc] * len(polls)
        finally:
            # Also when the leader's thread is killed here: the next leader must not wait for it.
            for poll, answer in zip(polls, answers, strict=False):
                poll.answers = (answer,)
            for poll in polls:
                poll.ready.release()
            self._pass_on(queue)

    def _pass_on(self, queue: _Queue) -> None:
        with self._lock:
            queue.led = bool(queue.waiting)
            if queue.waiting:
                queue.waiting[0].leads = True
                queue.waiting[0].ready.release()
