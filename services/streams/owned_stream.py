"""The owner's side of a stream, safe in threads: a producer adds to it, the flusher writes it, readers wait for it.

The owner keeps every chunk, so that it can send again what Redis lost. `owned_state.py` has the state without locks.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from services.errors import AnswerError, StoreUnavailable, StreamClosed
from services.models import Status
from services.streams.owned_state import NO_FIELDS, OwnedState
from services.streams.records import Appended, ChunkPage, NewStream, Snapshot, Standing, Write
from utils.deadline import Deadline

#: Bytes of text that Redis lacks before a producer stops reading its provider.
BUFFER_BYTES = 256 * 1024
#: Seconds of an outage that a producer waits through.
OUTAGE_SECONDS = 20.0
#: Values of `closed` that end this owner but not the stream: another owner will continue the run at the provider.
LEAVING = ("fenced", "released", "lost")


class OwnedStream:
    """One stream that this replica writes: the producer calls `emit` and `finish`, the flusher `next_write`."""

    def __init__(
        self,
        new: NewStream,
        *,
        deadline: Deadline,
        changed: Callable[[OwnedStream], None],
        max_bytes: int,
        outage_seconds: float = OUTAGE_SECONDS,
        about: Mapping[str, str] = NO_FIELDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take the stream as it was opened or taken over; `about` is added to its log lines beside the stream's id."""
        self.stream_id, self.owner, self.epoch = new.stream_id, new.owner, new.epoch
        #: Fields of every log line of the stream.
        self.about = {"stream_id": new.stream_id, **about}
        self.deadline = deadline
        #: Whether the stream is in the flusher's queue; only the flusher uses it.
        self.queued = False
        self._changed = changed
        self._outage_seconds = outage_seconds
        self._clock = clock
        #: When Redis last accepted a write of the stream, by `clock`.
        self.acked_at = clock()
        # A condition's default lock is reentrant: under gevent that one is written in Python, and costs 2 µs each of
        # the three times that a delta takes it.
        self._lock = threading.Lock()
        self._condition = threading.Condition(self._lock)
        self._waiting = 0
        self._state = OwnedState(new, deadline=deadline, max_bytes=max_bytes, clock=clock)
        self._failing_since: float | None = None

    @property
    def closed(self) -> str:
        """The reason why it is written no more: "done", "released", "fenced", "cancelled" or "lost"; "" while it is."""
        return self._state.closed

    @property
    def urgent(self) -> bool:
        """Whether the next write must not wait: true for all news except further text."""
        return self._state.urgent

    @property
    def stalled(self) -> bool:
        """Whether the last write to Redis failed."""
        return self._failing_since is not None

    @property
    def text(self) -> str:
        """The answer so far, including what Redis lacks."""
        with self._lock:
            return self._state.backlog.text

    @property
    def figures(self) -> dict[str, Any]:
        """Fields of the stream's log line: `auth_state`, `chunks` and `bytes`."""
        return self._state.figures

    @property
    def late(self) -> Appended | None:
        """Redis's reply to the end, if this owner has to send a late message: nobody else will."""
        return self._state.late

    @property
    def age(self) -> float:
        """Seconds since the stream was created."""
        return self._state.age

    @property
    def frame_left(self) -> float | None:
        """Seconds until the frame's deadline, negative after it; None for a stream without one."""
        return self._state.frame_left

    def field(self, name: str) -> str:
        """Return a field of the stream's hash as its owner knows it, "" for none."""
        return self._state.field(name)

    def emit(self, text: str) -> None:
        """Add to the answer; block while Redis is behind.

        Raises:
            AnswerError: `answer_too_long`; the part that fits was added.
            StreamClosed: the stream ended or has another owner.
            StoreUnavailable: Redis was away for longer than `outage_seconds`.
        """
        with self._lock:
            self._check_open()
            fits = self._state.add(text)
        self._continue(fits)

    def replace(self, text: str) -> None:
        """Replace the answer by `text`; raises what `emit` does."""
        # Under one lock: no write may show the new beginning without its text.
        with self._lock:
            self._check_open()
            self._state.begin_anew()
            fits = self._state.add(text)
        self._continue(fits)

    def set(self, **fields: str) -> None:
        """Set fields of the stream's hash with the next write; a half surrogate pair becomes a question mark."""
        with self._lock:
            news = self._state.set_fields(fields)
        if news:
            self._changed(self)

    def mention(self, *, soon: bool = False, **fields: str) -> None:
        """Set fields that wait for the next write, the lease's renewal at the latest; `soon`: as further text does."""
        with self._lock:
            news = self._state.set_fields(fields, urgent=False)
        if news and soon:
            self._changed(self)

    def finish(self, status: Status, *, error_code: str = "", sentence: str = "", overflows: bool = False) -> None:
        """End the stream in one write with the remaining text, and an error chunk if there is a sentence.

        `overflows` claims the late message for a text that is larger than a frame, in the same write.
        """
        state = self._state
        # Under one lock: the end must not be written without its status.
        with self._lock:
            # The end of a complete answer replaces a release: no other owner needs to continue it.
            if state.closed or (state.ending and not state.released):
                return
            state.ending = ("finish", sentence)
            due = {"delivered": "due"} if overflows else {}
            state.set_fields({"status": status, "dify_finished": "1", "error_code": error_code, "waiting": "", **due})
            state.urgent = True
        self._changed(self)

    def release(self) -> None:
        """Give up the lease at once, after writing the text so far."""
        with self._lock:
            if not self._state.ending:
                self._state.ending = ("release", "")
            self._state.urgent = True
        self._changed(self)

    def wait_stored(self) -> None:
        """Block until Redis has every field that was set.

        Raises:
            StreamClosed: the stream ended or has another owner.
            StoreUnavailable: Redis was away for longer than `outage_seconds`.
        """
        state = self._state
        with self._lock:
            stored = self._wait_for(lambda: bool(state.closed or state.released or not state.dirty_fields))
            self._check_open()
            if state.released:
                raise StreamClosed("released")
            if not stored:
                raise StoreUnavailable("redis is behind for too long")

    def wait_closed(self, timeout: float) -> bool:
        """Block until Redis has the end or the stream has another owner; return whether either happened."""
        with self._lock:
            return self._wait_for(lambda: bool(self.closed), timeout)

    def known(self, lease: float) -> Snapshot | None:
        """Return what a reader sees while Redis is away; None when `lease` seconds passed since the last write.

        It contains only what Redis is known to have, so other replicas that still reach Redis show no less.
        """
        with self._lock:
            if self._clock() - self.acked_at > lease:
                return None
            text = self._state.backlog.acked_text
            access, late = self._state.access, self._state.field("late") == "1"
            seen = {"text": text, "size": len(text.encode()), "note": self._state.field("step")}
        return Snapshot(self.stream_id, "processing", access=access, late=late, **seen)  # type: ignore[arg-type]

    def page(self, cursor: int) -> ChunkPage | None:
        """Return the chunks from `cursor` that Redis is known to have; None once another owner may write.

        It saves readers of this process a round trip to Redis.
        """
        with self._lock:
            return self._state.page(cursor)

    def wait_page(self, cursor: int, seen: Standing, timeout: float) -> ChunkPage | None:
        """Block until the stream's standing differs from `seen`, then return what `page` does."""
        state = self._state
        with self._lock:
            self._wait_for(lambda: bool(state.closed) or state.standing() != seen, timeout)
            return state.page(cursor)

    def touch(self) -> None:
        """Have the stream written soon even without news: the reply tells if a reader cancelled it in Redis."""
        with self._lock:
            self._state.touched = self._state.urgent = True
        self._changed(self)

    def next_write(self, *, renew: bool = False, stamp: str = "") -> Write | None:
        """Return what Redis lacks, None for nothing; `renew` asks for a write in any case.

        A long backlog takes several writes; fields and the end come with the last one. `stamp` is the time of new
        chunks as text; "" reads the clock.
        """
        with self._lock:
            return self._state.next_write(renew=renew, stamp=stamp)

    def settle(self, write: Write, reply: Appended) -> str:
        """Apply Redis's reply to a write; return its outcome, or "behind" when there is more to send at once."""
        with self._lock:
            self._failing_since = None
            self.acked_at = self._clock()
            outcome = self._state.settle(write, reply)
            self._notify()
        return outcome

    def rewritten(self, stream: NewStream, ours: bool) -> None:
        """Note that the lost stream was written again, by this owner or (not `ours`) by another one."""
        with self._lock:
            if ours:
                self._state.backlog.has(len(stream.chunks))
            else:
                self._state.close("fenced")
            self._notify()

    def lose(self) -> None:
        """Close the stream because its life in Redis is over and no reader can find it."""
        with self._lock:
            self._state.close("lost")
            self._notify()

    def failed(self) -> None:
        """Note that Redis did not answer; after `outage_seconds` of it, close a stream that has its end."""
        with self._lock:
            if self._failing_since is None:
                self._failing_since = self._clock()
            if self._state.ending and self._outage() > self._outage_seconds:
                self._state.close("lost")
                self._notify()

    def whole(self) -> NewStream:
        """Return the stream as it would be created now, for a Redis that lost it."""
        with self._lock:
            return self._state.whole()

    def _check_open(self) -> None:
        if self._state.closed:
            raise StreamClosed(self._state.closed)

    def _has_room(self) -> bool:
        return bool(self._state.closed) or self._state.backlog.unsent_bytes <= BUFFER_BYTES

    def _wait_for(self, happened: Callable[[], bool], timeout: float | None = None) -> bool:
        self._waiting += 1
        try:
            return self._condition.wait_for(happened, self._outage_seconds if timeout is None else timeout)
        finally:
            self._waiting -= 1

    def _notify(self) -> None:
        if self._waiting:
            self._condition.notify_all()

    def _outage(self) -> float:
        return 0.0 if self._failing_since is None else self._clock() - self._failing_since

    def _continue(self, fits: bool) -> None:
        self._changed(self)
        if not fits:
            raise AnswerError(code="answer_too_long")
        if self._failing_since is None and self._has_room():
            return
        with self._lock:
            in_time = self._wait_for(self._has_room)
            self._check_open()
            if not in_time or self._outage() > self._outage_seconds:
                raise StoreUnavailable("redis is behind for too long")
