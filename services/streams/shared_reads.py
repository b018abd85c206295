"""Polls that share round trips: those that arrive during one are sent together with the next.

It needs no timer and no thread. The first poll is the leader and sends the reads of all waiting polls; then the first
poll that arrived meanwhile leads. So a single poll is sent at once, and under load a process has one request at a time
to each node of Redis.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

from services.errors import StoreUnavailable
from services.streams.records import Snapshot
from services.streams.store import StreamStore

#: Streams in one request: at most 1 MB of text.
MAX_TOGETHER = 64
#: Seconds a poll waits for a request before its own; the store bounds each request.
WAIT_SECONDS = 1.0

Reading = Snapshot | StoreUnavailable | None


@dataclass(slots=True, eq=False)
class _Poll:
    stream_id: str
    #: Locked until the poll has its reading or leads.
    turn: threading.Lock = field(default_factory=threading.Lock)
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
        poll.turn.acquire()
        with self._lock:
            queue = self._queues.setdefault(self._store.home(stream_id), _Queue())
            queue.waiting.append(poll)
            if not queue.led:
                queue.led = poll.leads = True
        if not poll.leads:
            self._await_turn(queue, poll)
        if poll.leads:
            self._lead(queue)
        for answer in poll.answers:
            if isinstance(answer, StoreUnavailable):
                raise StoreUnavailable(str(answer)) from answer
            return answer
        raise StoreUnavailable("redis is behind for too long")

    def _await_turn(self, queue: _Queue, poll: _Poll) -> None:
        """Wait until the poll is answered or leads; remove it from the queue after the timeout."""
        if poll.turn.acquire(timeout=self._timeout):
            return
        with self._lock:
            if poll.leads:
                return
            asked = poll not in queue.waiting
            if not asked:
                queue.waiting.remove(poll)
        if asked:
            poll.turn.acquire(timeout=self._timeout)

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
                poll.turn.release()
            self._pass_on(queue)

    def _pass_on(self, queue: _Queue) -> None:
        with self._lock:
            queue.led = bool(queue.waiting)
            if queue.waiting:
                queue.waiting[0].leads = True
                queue.waiting[0].turn.release()
