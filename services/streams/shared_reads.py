"""Polls that share round trips: who comes while one is under way goes with the next.

No timer and no thread: the first to come leads, asking for all who wait, and the first who came meanwhile leads then.
So a lone poll goes at once, and under load a process asks each node of Redis one thing at a time, for everybody.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

from services.errors import StoreUnavailable
from services.streams.records import Snapshot
from services.streams.store import StreamStore

#: Streams read at once: a megabyte of text at the most.
MAX_TOGETHER = 64
#: Seconds a poll waits for its turn: an exchange before its own, each bounded by the store.
WAIT_SECONDS = 1.0

Answer = Snapshot | StoreUnavailable | None


@dataclass(slots=True, eq=False)
class _Poll:
    stream_id: str
    #: Held until there is something to wake up for.
    turn: threading.Lock = field(default_factory=threading.Lock)
    leads: bool = False
    #: One answer, when it is there.
    answers: tuple[Answer, ...] = ()


@dataclass(slots=True)
class _Line:
    """Those who wait for one node of Redis, and whether somebody leads them."""

    waiting: list[_Poll] = field(default_factory=list)
    led: bool = False


class SharedReads:
    """Reads streams as the store does, in fewer round trips."""

    def __init__(self, store: StreamStore, *, patience: float = WAIT_SECONDS) -> None:
        self._store = store
        self._patience = patience
        self._lock = threading.Lock()
        self._lines: dict[str, _Line] = {}

    def read(self, stream_id: str) -> Snapshot | None:
        """Return what the stream shows now; None where there is no such stream.

        Raises:
            StoreUnavailable: Redis is away, or behind.
        """
        poll = _Poll(stream_id)
        poll.turn.acquire()
        with self._lock:
            line = self._lines.setdefault(self._store.home(stream_id), _Line())
            line.waiting.append(poll)
            if not line.led:
                line.led = poll.leads = True
        if not poll.leads:
            self._await_turn(line, poll)
        if poll.leads:
            self._lead(line)
        for answer in poll.answers:
            if isinstance(answer, StoreUnavailable):
                raise StoreUnavailable(str(answer)) from answer
            return answer
        raise StoreUnavailable("redis is behind for too long")

    def _await_turn(self, line: _Line, poll: _Poll) -> None:
        """Wait until the poll is answered or leads; leave the line where neither comes."""
        if poll.turn.acquire(timeout=self._patience):
            return
        with self._lock:
            if poll.leads:
                return
            asked = poll not in line.waiting
            if not asked:
                line.waiting.remove(poll)
        if asked:
            poll.turn.acquire(timeout=self._patience)

    def _lead(self, line: _Line) -> None:
        """Ask for all who wait, the leader among them, and pass the lead on."""
        with self._lock:
            polls = line.waiting[:MAX_TOGETHER]
            del line.waiting[:MAX_TOGETHER]
        answers: Sequence[Answer] = ()
        try:
            answers = self._store.snapshots([poll.stream_id for poll in polls])
        except StoreUnavailable as exc:
            answers = [exc] * len(polls)
        finally:
            # Also where the leader is ended in the middle: nobody waits for it then.
            for poll, answer in zip(polls, answers, strict=False):
                poll.answers = (answer,)
            for poll in polls:
                poll.turn.release()
            self._pass_on(line)

    def _pass_on(self, line: _Line) -> None:
        with self._lock:
            line.led = bool(line.waiting)
            if line.waiting:
                line.waiting[0].leads = True
                line.waiting[0].turn.release()
