"""The owner's side of a stream: what was said, what Redis has of it, and what is to be sent next. No I/O.

The owner keeps every chunk, so that whatever Redis lost can be sent again. Deltas wait in `pending` until the flusher
asks for the next write; then all of them become one chunk, whose boundaries never change again, so that sending it
twice is harmless.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, cast

from services.errors import AnswerError, StoreUnavailable, StreamClosed
from services.models import Status
from services.streams.backlog import Backlog
from services.streams.records import (
    PAGE_BYTES,
    PAGE_CHUNKS,
    Appended,
    ChunkPage,
    NewStream,
    Op,
    Snapshot,
    Standing,
    Write,
)
from utils.deadline import Deadline

#: Bytes a producer may be ahead of Redis before it stops reading its provider.
BUFFER_BYTES = 256 * 1024
#: How often an answer may begin anew: each time leaves its chunks in the list.
MAX_REPLACEMENTS = 10
#: Seconds of outage a producer waits through.
OUTAGE_SECONDS = 20.0
#: Ways to be closed that end the owner, not the stream: somebody else will want the run at the provider.
LEAVING = ("fenced", "released", "lost")
_NO_FIELDS: Mapping[str, str] = MappingProxyType({})


class OwnedStream:
    """One stream this replica writes; the producer calls the verbs, the flusher `next_write` and `settle`."""

    def __init__(
        self,
        new: NewStream,
        *,
        deadline: Deadline,
        changed: Callable[[OwnedStream], None],
        max_bytes: int,
        outage_seconds: float = OUTAGE_SECONDS,
        about: Mapping[str, str] = _NO_FIELDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take the stream as it stands; `about` is what log lines say of it besides its id."""
        self.stream_id, self.owner, self.epoch = new.stream_id, new.owner, new.epoch
        #: What every log line about it says.
        self.about = {"stream_id": new.stream_id, **about}
        self.deadline = deadline
        #: "" while it may be written, then "done", "released", "fenced", "cancelled" or "lost".
        self.closed = ""
        #: Whether the flusher has it in its line; the flusher's own.
        self.noted = False
        #: Whether somebody waits for its next write: for all but text that goes on.
        self.urgent = True
        self._new = new
        self._changed = changed
        self._max_bytes = max_bytes
        self._outage_seconds = outage_seconds
        self._clock = clock
        #: When Redis last took a write of it, by the clock.
        self._opened = self.acked_at = clock()
        # Not the reentrant lock that a condition has by itself: gevent's is written in Python, and costs 2 µs each of
        # the three times that a delta takes it.
        self._lock = threading.Lock()
        self._state = threading.Condition(self._lock)
        self._waiting = 0
        self._backlog = Backlog(new.chunks, new.start)
        self._replacements = 0
        self._fields: dict[str, str] = {}
        self._dirty_fields: dict[str, str] = {}
        self._ending: tuple[Op, str] | None = None
        self._failing_since: float | None = None
        self._touched = False

    def emit(self, text: str) -> None:
        """Add to the answer; wait while Redis is behind.

        Raises:
            AnswerError: `answer_too_long`, with what fits already added.
            StreamClosed: the stream ended or has another owner.
            StoreUnavailable: Redis was away for longer than a producer waits.
        """
        with self._lock:
            self._check_open()
            fits = self._add(text)
        self._go_on(fits)

    def replace(self, text: str) -> None:
        """Begin the answer anew with `text`; raises what `emit` does."""
        # Under one lock: no write may show the new beginning without its text.
        with self._lock:
            self._check_open()
            self._replacements += 1
            if self._replacements > MAX_REPLACEMENTS:
                raise AnswerError(code="answer_too_long")
            self._backlog.begin_anew()
            self.urgent = True
            fits = self._add(text)
        self._go_on(fits)

    def set(self, **fields: str) -> None:
        """Set fields of the stream's hash with the next write; what is no character in them becomes a question mark."""
        with self._lock:
            news = self._set(fields)
        if news:
            self._changed(self)

    def finish(self, status: Status, *, error_code: str = "", sentence: str = "") -> None:
        """End the stream: what is pending, then an error chunk when there is a sentence, in one step."""
        # Under one lock: the end must not go out without its status.
        with self._lock:
            # A release gives way: nobody need go on with what is whole.
            if self.closed or (self._ending and not self._leaves):
                return
            self._ending = ("finish", sentence)
            self._set({"status": status, "dify_finished": "1", "error_code": error_code, "waiting": ""})
            self.urgent = True
        self._changed(self)

    def release(self) -> None:
        """Give the lease up at once, with everything said so far."""
        with self._lock:
            if not self._ending:
                self._ending = ("release", "")
            self.urgent = True
        self._changed(self)

    def wait_stored(self) -> None:
        """Wait until Redis has every field that was set.

        Raises:
            StreamClosed: the stream ended or has another owner.
            StoreUnavailable: Redis was away for longer than a producer waits.
        """
        with self._lock:
            stored = self._wait_for(lambda: bool(self.closed or self._leaves or not self._dirty_fields))
            self._check_open()
            if self._leaves:
                raise StreamClosed("released")
            if not stored:
                raise StoreUnavailable("redis is behind for too long")

    def wait_closed(self, timeout: float) -> bool:
        """Wait until Redis has the end, or the stream is somebody else's."""
        with self._lock:
            return self._wait_for(lambda: bool(self.closed), timeout)

    @property
    def text(self) -> str:
        """The answer so far, whether Redis has it or not."""
        with self._lock:
            return self._backlog.text

    def known(self, lease: float) -> Snapshot | None:
        """Return what a reader sees whom Redis cannot be asked for; None when the stream may be another's by now.

        Only what Redis is known to have: other replicas, which may still reach it, show no less.
        """
        with self._lock:
            if self._clock() - self.acked_at > lease:
                return None
            text = self._backlog.acked_text
        access = self._new.fields.get("access", "")
        return Snapshot(self.stream_id, "processing", access=access, text=text, size=len(text.encode()))

    def page(self, cursor: int) -> ChunkPage | None:
        """Return what Redis is known to have from `cursor` on; None when it may be another's by now.

        Readers of this process need not ask Redis for it.
        """
        with self._lock:
            return self._page(cursor)

    def wait_page(self, cursor: int, seen: Standing, timeout: float) -> ChunkPage | None:
        """Wait until the stream stands otherwise than it was seen; return what `page` does then."""
        with self._lock:
            self._wait_for(lambda: bool(self.closed) or self._standing() != seen, timeout)
            return self._page(cursor)

    def touch(self) -> None:
        """Have it written soon, whether or not there is news: somebody may have ended it in Redis."""
        with self._lock:
            self._touched = self.urgent = True
        self._changed(self)

    @property
    def stalled(self) -> bool:
        """Whether Redis takes nothing of it at present."""
        return self._failing_since is not None

    def field(self, name: str) -> str:
        """Return a field of its record as its owner knows it, "" for none."""
        return self._fields.get(name, self._new.fields.get(name, ""))

    @property
    def figures(self) -> dict[str, Any]:
        """What the log line of a stream says of it."""
        written = self._backlog
        return {"auth_state": self.field("auth_state"), "chunks": len(written.chunks), "bytes": written.text_bytes}

    def next_write(self, *, renew: bool = False, stamp: str = "") -> Write | None:
        """Return what Redis lacks, None when that is nothing; `renew` asks for a write in any case.

        A long backlog comes in several writes; fields and the end come with the last of them. `stamp` is the present
        time as chunks have it, "" to look at the clock.
        """
        with self._lock:
            self.urgent = False
            if self.closed:
                return None
            self._freeze(stamp)
            backlog = self._backlog
            chunks = backlog.unsent()
            last = backlog.acked + len(chunks) == len(backlog.chunks)
            op: Op = self._ending[0] if self._ending and last else ""
            fields = dict(self._dirty_fields) if last and self._dirty_fields else _NO_FIELDS
            if not (chunks or fields or op or renew or self._touched or backlog.start_unknown):
                return None
            self._touched = False
            return Write(self.stream_id, self.epoch, self.owner, backlog.start, backlog.acked, chunks, fields, op)

    def settle(self, write: Write, reply: Appended) -> str:
        """Take Redis's reply to a write in; return what it was, "behind" where there is more to send at once."""
        outcome: str = reply.outcome
        with self._lock:
            self._failing_since = None
            self.acked_at = self._clock()
            if outcome == "ok":
                self._acknowledge(write)
                outcome = "behind" if self._backlog.behind else outcome
            elif outcome == "gap":
                self._backlog.has(reply.length)
                outcome = "behind"
            elif outcome == "refused":
                self._close("fenced")
            elif outcome == "closed":
                self._close("cancelled" if reply.status == "cancelled" else "fenced")
            self._tell()
        return outcome

    def rewritten(self, stream: NewStream, ours: bool) -> None:
        """Take in that the stream was written anew, or that somebody else had done it."""
        with self._lock:
            if ours:
                self._backlog.has(len(stream.chunks))
            else:
                self._close("fenced")
            self._tell()

    def lose(self) -> None:
        """Take in that the stream's time in Redis is over: nobody can read it any more."""
        with self._lock:
            self._close("lost")
            self._tell()

    def failed(self) -> None:
        """Take in that Redis did not answer; give up after `outage_seconds` of it when nothing more will be said."""
        with self._lock:
            if self._failing_since is None:
                self._failing_since = self._clock()
            if self._ending and self._outage() > self._outage_seconds:
                self._close("lost")
                self._tell()

    def whole(self) -> NewStream:
        """Return the stream as it would be created now: for a Redis that lost it."""
        with self._lock:
            self._freeze()
            fields = {**self._new.fields, **self._fields}
            if self._ending:
                fields |= {"status": "processing", "dify_finished": "0"}
            return NewStream(
                self.stream_id,
                self.owner,
                fields,
                tuple(chunk for chunk in self._backlog.chunks if not chunk.is_final),
                epoch=self.epoch,
                start=self._backlog.start,
                frame_seconds=self._new.frame_seconds,
                age=self._new.age + self._clock() - self._opened,
            )

    def _standing(self) -> Standing:
        backlog, fields = self._backlog, self._fields
        ended = fields if self.closed else {}
        place = (backlog.acked_start, backlog.acked, self.epoch, fields.get("waiting") == "1", self.owner)
        return Standing(cast(Status, ended.get("status", "processing")), ended.get("error_code", ""), *place)

    def _check_open(self) -> None:
        if self.closed:
            raise StreamClosed(self.closed)

    @property
    def _leaves(self) -> bool:
        return self._ending is not None and self._ending[0] == "release"

    def _may_go_on(self) -> bool:
        return bool(self.closed) or self._backlog.unsent_bytes <= BUFFER_BYTES

    def _wait_for(self, happened: Callable[[], bool], timeout: float | None = None) -> bool:
        self._waiting += 1
        try:
            return self._state.wait_for(happened, self._outage_seconds if timeout is None else timeout)
        finally:
            self._waiting -= 1

    def _tell(self) -> None:
        if self._waiting:
            self._state.notify_all()

    def _outage(self) -> float:
        return 0.0 if self._failing_since is None else self._clock() - self._failing_since

    def _add(self, text: str) -> bool:
        """Add as much as there is room for; return whether that is all of it."""
        try:
            size = len(text.encode())
        except UnicodeEncodeError:
            # Half a surrogate pair, which is no character, becomes a question mark.
            text = text.encode("utf-8", "replace").decode()
            size = len(text.encode())
        backlog = self._backlog
        room = self._max_bytes - backlog.text_bytes
        if fits := size <= room:
            piece = text
        else:
            piece = text.encode()[:room].decode(errors="ignore")
            size = len(piece.encode())
        if piece:
            # The first words are waited for.
            self.urgent = self.urgent or not backlog.text_bytes
            backlog.add(piece, size)
        return fits

    def _go_on(self, fits: bool) -> None:
        self._changed(self)
        if not fits:
            raise AnswerError(code="answer_too_long")
        if self._failing_since is None and self._may_go_on():
            return
        with self._lock:
            in_time = self._wait_for(self._may_go_on)
            self._check_open()
            if not in_time or self._outage() > self._outage_seconds:
                raise StoreUnavailable("redis is behind for too long")

    def _set(self, fields: Mapping[str, str]) -> bool:
        """Set fields; return whether that is news."""
        written = {name: value.encode("utf-8", "replace").decode() for name, value in fields.items()}
        news = {name: value for name, value in written.items() if self._fields.get(name) != value}
        self._fields |= news
        self._dirty_fields |= news
        self.urgent = self.urgent or bool(news)
        return bool(news)

    def _page(self, cursor: int) -> ChunkPage | None:
        if self.closed not in ("", "done"):
            return None
        chunks = self._backlog.page(cursor, PAGE_CHUNKS, PAGE_BYTES)
        return ChunkPage(self._standing(), chunks, self._new.fields.get("access", ""))

    def _freeze(self, stamp: str = "") -> None:
        op, sentence = self._ending or ("", "")
        self._backlog.freeze(stamp, final=op == "finish", sentence=sentence)

    def _acknowledge(self, write: Write) -> None:
        self._backlog.acknowledge(write)
        if write.fields:
            self._dirty_fields = {n: v for n, v in self._dirty_fields.items() if write.fields.get(n) != v}
        if write.op:
            self._close("done" if write.op == "finish" else "released")

    def _close(self, reason: str) -> None:
        self.closed = reason
        if reason != "done":
            self.deadline.abort(reason)
