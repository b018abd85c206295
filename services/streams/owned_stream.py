"""The owner's side of a stream: a producer adds to it, the flusher writes it to Redis, readers wait for it.

`OwnedStream` is safe in threads and does no I/O. New text is pending until the next write makes one chunk of it. The
boundaries of a chunk never change again, so a write that is sent twice is harmless. The owner keeps every chunk, so
that it can send again what Redis lost.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any, cast

from services.errors import AnswerError, StoreUnavailable, StreamClosed
from services.models import Status
from services.streams.records import (
    PAGE_BYTES,
    PAGE_CHUNKS,
    Appended,
    Chunk,
    ChunkPage,
    NewStream,
    Op,
    Snapshot,
    Standing,
    Write,
    timestamp,
)
from utils.deadline import Deadline
from utils.running_time import wait_running

#: Bytes of text that Redis lacks before a producer stops reading its provider.
BUFFER_BYTES = 256 * 1024
#: Bytes of text in one write: a slow connection carries them within a socket's timeout.
WRITE_BYTES = 256 * 1024
#: Maximal bytes of text in one chunk. A reader's cursor is between two chunks.
CHUNK_BYTES = 16 * 1024
#: Seconds of an outage that a producer waits through.
OUTAGE_SECONDS = 20.0
#: Times an answer may be replaced. The chunks of replaced texts stay in the list.
MAX_REPLACEMENTS = 10
#: Values of `closed` that end this owner but not the stream: another owner will continue the run at the provider.
LEAVING = ("fenced", "released", "lost")
NO_FIELDS: Mapping[str, str] = MappingProxyType({})


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
        #: The reason why it is written no more: "done", "released", "fenced", "cancelled" or "lost"; "" while it is.
        self.closed = ""
        #: Whether the next write must not wait: true for all updates except further text.
        self.urgent = True
        #: Redis's reply to the end, if this owner has to send a late message: no other owner will.
        self.late: Appended | None = None
        #: When Redis last accepted a write of the stream, by `clock`.
        self.acked_at = clock()
        self._new = new
        self._changed = changed
        self._max_bytes = max_bytes
        self._outage_seconds = outage_seconds
        self._clock = clock
        self._opened = clock()
        # A condition's default lock is reentrant: under gevent that one is written in Python, and costs 2 µs each of
        # the three times that a delta takes it.
        self._lock = threading.Lock()
        self._condition = threading.Condition(self._lock)
        self._waiting = 0
        self._failing_since: float | None = None
        self._backlog = Backlog(new.chunks, new.start)
        #: Fields that were set, and those that Redis lacks.
        self._fields: dict[str, str] = {}
        self._dirty_fields: dict[str, str] = {}
        #: The last operation, and the sentence of its error chunk ("" for none).
        self._ending: tuple[Op, str] | None = None
        #: Whether the next write is sent even without updates.
        self._touched = False
        self._replacements = 0

    @property
    def stalled(self) -> bool:
        """Whether the last write to Redis failed."""
        return self._failing_since is not None

    @property
    def text(self) -> str:
        """The answer so far, including text that Redis lacks."""
        with self._lock:
            return self._backlog.text

    @property
    def figures(self) -> dict[str, Any]:
        """Fields of the stream's log line: `auth_state`, `chunks` and `bytes`."""
        backlog = self._backlog
        return {"auth_state": self.field("auth_state"), "chunks": len(backlog.chunks), "bytes": backlog.text_bytes}

    @property
    def owned_seconds(self) -> float:
        """Seconds since this replica owns the stream."""
        return self._clock() - self._opened

    @property
    def age(self) -> float:
        """Seconds since the stream was created."""
        return self._new.age + self.owned_seconds

    @property
    def frame_left(self) -> float | None:
        """Seconds until the frame's deadline, negative after it; None for a stream without one."""
        seconds = self._new.frame_seconds
        return None if seconds is None else seconds - self.age

    def field(self, name: str) -> str:
        """Return a field of the stream's hash as its owner knows it, "" for none."""
        return self._fields.get(name, self._new.fields.get(name, ""))

    def emit(self, text: str) -> None:
        """Add to the answer; block while Redis is behind.

        Raises:
            AnswerError: `answer_too_long`; the part that fits was added.
            StreamClosed: the stream ended or has another owner.
            StoreUnavailable: Redis was away for longer than `outage_seconds`.
        """
        with self._lock:
            self._check_open()
            fits = self._add(text)
        self._continue(fits)

    def replace(self, text: str) -> None:
        """Replace the answer by `text`; raises what `emit` does."""
        # Under one lock: no write may show the new beginning without its text.
        with self._lock:
            self._check_open()
            self._replacements += 1
            if self._replacements > MAX_REPLACEMENTS:
                raise AnswerError(code="answer_too_long")
            self._backlog.begin_anew()
            self.urgent = True
            fits = self._add(text)
        self._continue(fits)

    def set(self, **fields: str) -> None:
        """Set fields of the stream's hash with the next write; a half surrogate pair becomes a question mark."""
        with self._lock:
            changed = self._set_fields(fields)
            self.urgent = self.urgent or changed
        if changed:
            self._changed(self)

    def mention(self, *, soon: bool = False, **fields: str) -> None:
        """Set fields without a write of their own: the next write has them, at the latest the lease's renewal.

        With `soon` that write starts as soon as one with further text would.
        """
        with self._lock:
            changed = self._set_fields(fields)
        if changed and soon:
            self._changed(self)

    def finish(self, status: Status, *, error_code: str = "", sentence: str = "", overflows: bool = False) -> None:
        """End the stream in one write with the remaining text, and an error chunk if there is a sentence.

        `overflows` claims the late message for a text that is larger than a frame, in the same write.
        """
        # Under one lock: the end must not be written without its status.
        with self._lock:
            # The end of a complete answer replaces a release: no other owner needs to continue it.
            if self.closed or (self._ending and not self._released):
                return
            self._ending = ("finish", sentence)
            due = {"delivered": "due"} if overflows else {}
            self._set_fields({"status": status, "dify_finished": "1", "error_code": error_code, "waiting": "", **due})
            self.urgent = True
        self._changed(self)

    def release(self) -> None:
        """Give up the lease at once, after writing the text so far."""
        with self._lock:
            if not self._ending:
                self._ending = ("release", "")
            self.urgent = True
        self._changed(self)

    def wait_stored(self) -> None:
        """Block until Redis has every field that was set.

        Raises:
            StreamClosed: the stream ended or has another owner.
            StoreUnavailable: Redis was away for longer than `outage_seconds`.
        """
        with self._lock:
            stored = self._wait_for(lambda: bool(self.closed or self._released or not self._dirty_fields))
            self._check_open()
            if self._released:
                raise StreamClosed("released")
            if not stored:
                raise StoreUnavailable("redis is behind for too long")

    def wait_closed(self, timeout: float) -> bool:
        """Block until Redis has the end or the stream has another owner; return whether either happened."""
        with self._lock:
            return self._wait_for(lambda: bool(self.closed), timeout)

    def known(self, lease: float) -> Snapshot | None:
        """Return the snapshot for readers while Redis is away; None when `lease` seconds passed since the last write.

        It contains only text that Redis has acknowledged, so other replicas that still reach Redis show no less.
        """
        with self._lock:
            if self._clock() - self.acked_at > lease:
                return None
            text = self._backlog.acked_text
            return Snapshot(
                self.stream_id,
                "processing",
                access=self._access,
                late=self.field("late") == "1",
                text=text,
                size=len(text.encode()),
                note=self.field("step"),
            )

    def page(self, cursor: int) -> ChunkPage | None:
        """Return the chunks from `cursor` that Redis is known to have; None once another owner may write.

        It saves readers of this process a round trip to Redis.
        """
        with self._lock:
            return self._page(cursor)

    def wait_page(self, cursor: int, seen: Standing, timeout: float) -> ChunkPage | None:
        """Block until the stream's standing differs from `seen`, then return what `page` does."""
        with self._lock:
            self._wait_for(lambda: bool(self.closed) or self._standing() != seen, timeout)
            return self._page(cursor)

    def touch(self) -> None:
        """Have the stream written soon even without updates: the reply shows if a reader cancelled it in Redis."""
        with self._lock:
            self._touched = self.urgent = True
        self._changed(self)

    def next_write(self, *, renew: bool = False, stamp: str = "") -> Write | None:
        """Return the next write, None if Redis lacks nothing; `renew` requests a write in any case.

        A long backlog takes several writes; fields and the end come with the last one. `stamp` is the time of new
        chunks as text; "" reads the clock.
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
            fields = dict(self._dirty_fields) if last and self._dirty_fields else NO_FIELDS
            if not (chunks or fields or op or renew or self._touched or backlog.start_unknown):
                return None
            self._touched = False
            return Write(self.stream_id, self.epoch, self.owner, backlog.start, backlog.acked, chunks, fields, op)

    def settle(self, write: Write, reply: Appended) -> str:
        """Apply Redis's reply to a write; return its outcome, or "behind" when there is more to send at once."""
        with self._lock:
            self._failing_since = None
            self.acked_at = self._clock()
            outcome: str = reply.outcome
            if outcome == "ok":
                self.late = reply if reply.cause else None
                self._acknowledge(write)
                outcome = "behind" if self._backlog.behind else "ok"
            elif outcome == "gap":
                self._backlog.has(reply.length)
                outcome = "behind"
            elif outcome == "refused":
                self._close("fenced")
            elif outcome == "closed":
                self._close("cancelled" if reply.status == "cancelled" else "fenced")
            self._notify()
        return outcome

    def rewritten(self, stream: NewStream, ours: bool) -> None:
        """Note that the lost stream was written again, by this owner or (not `ours`) by another one."""
        with self._lock:
            if ours:
                self._backlog.has(len(stream.chunks))
            else:
                self._close("fenced")
            self._notify()

    def lose(self) -> None:
        """Close the stream because its life in Redis is over and no reader can find it."""
        with self._lock:
            self._close("lost")
            self._notify()

    def failed(self) -> None:
        """Note that Redis did not answer; after `outage_seconds` of it, close a stream that has its end."""
        with self._lock:
            if self._failing_since is None:
                self._failing_since = self._clock()
            if self._ending and self._outage() > self._outage_seconds:
                self._close("lost")
                self._notify()

    def as_new(self) -> NewStream:
        """Return the stream as it would be created now, for a Redis that lost it."""
        with self._lock:
            self._freeze()
            new, backlog = self._new, self._backlog
            fields = {**new.fields, **self._fields}
            if self._ending:
                fields |= {"status": "processing", "dify_finished": "0"}
            return NewStream(
                new.stream_id,
                new.owner,
                fields,
                tuple(chunk for chunk in backlog.chunks if not chunk.is_final),
                epoch=new.epoch,
                start=backlog.start,
                frame_seconds=new.frame_seconds,
                age=self.age,
            )

    # The methods below are called with the lock held, `_continue` excepted.

    @property
    def _released(self) -> bool:
        """Whether the owner gives its lease up instead of finishing the stream."""
        return self._ending is not None and self._ending[0] == "release"

    @property
    def _access(self) -> str:
        return self._new.fields.get("access", "")

    def _check_open(self) -> None:
        if self.closed:
            raise StreamClosed(self.closed)

    def _add(self, text: str) -> bool:
        """Add as much of the text as fits into `max_bytes`; return whether all of it did."""
        try:
            size = len(text.encode())
        except UnicodeEncodeError:
            # Half a surrogate pair is not a character: a question mark replaces it.
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
            # Readers wait for the first words.
            self.urgent = self.urgent or not backlog.text_bytes
            backlog.add(piece, size)
        return fits

    def _set_fields(self, fields: Mapping[str, str]) -> bool:
        """Set fields; return whether any value changed."""
        written = {name: value.encode("utf-8", "replace").decode() for name, value in fields.items()}
        changed = {name: value for name, value in written.items() if self._fields.get(name) != value}
        self._fields |= changed
        self._dirty_fields |= changed
        return bool(changed)

    def _freeze(self, stamp: str = "") -> None:
        """Make chunks of the pending text, and of the end if the stream finishes."""
        op, sentence = self._ending or ("", "")
        self._backlog.freeze(stamp, final=op == "finish", sentence=sentence)

    def _acknowledge(self, write: Write) -> None:
        self._backlog.acknowledge(write)
        if write.fields:
            self._dirty_fields = {n: v for n, v in self._dirty_fields.items() if write.fields.get(n) != v}
        if write.op:
            self._close("done" if write.op == "finish" else "released")

    def _close(self, reason: str) -> None:
        """Stop writing; every reason except "done" also aborts the request to the provider."""
        self.closed = reason
        if reason != "done":
            self.deadline.abort(reason)

    def _standing(self) -> Standing:
        """Return the state that Redis is known to have."""
        backlog, fields = self._backlog, self._fields
        ended = fields if self.closed else {}
        step = fields.get("step", "") if backlog.acked == backlog.acked_start and not ended else ""
        marks = (backlog.acked_start, backlog.acked, self.epoch, fields.get("waiting") == "1", self.owner, step)
        return Standing(cast(Status, ended.get("status", "processing")), ended.get("error_code", ""), *marks)

    def _page(self, cursor: int) -> ChunkPage | None:
        if self.closed not in ("", "done"):
            return None
        chunks = self._backlog.page(cursor, PAGE_CHUNKS, PAGE_BYTES)
        return ChunkPage(self._standing(), chunks, self._access)

    def _has_room(self) -> bool:
        return bool(self.closed) or self._backlog.unsent_bytes <= BUFFER_BYTES

    def _wait_for(self, happened: Callable[[], bool], timeout: float | None = None) -> bool:
        self._waiting += 1
        try:
            seconds = self._outage_seconds if timeout is None else timeout
            return wait_running(partial(self._condition.wait_for, happened), seconds)
        finally:
            self._waiting -= 1

    def _notify(self) -> None:
        if self._waiting:
            self._condition.notify_all()

    def _outage(self) -> float:
        return 0.0 if self._failing_since is None else self._clock() - self._failing_since

    def _continue(self, fits: bool) -> None:
        """Queue the stream for the flusher after new text, and wait while Redis is behind."""
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


class Backlog:
    """The chunks of one stream, and how many of them Redis has; not thread-safe."""

    def __init__(self, chunks: Sequence[Chunk], start: int) -> None:
        """Take the chunks that Redis has, and the list index at which the text begins."""
        self.chunks = list(chunks)
        self.start = start
        #: The number of chunks that Redis has, and the start index that it knows.
        self.acked = len(self.chunks)
        self.acked_start = start
        self._pending: list[str] = []
        #: Bytes of text from `start` on, and of the text that Redis lacks.
        self.text_bytes = sum(_bytes(chunk.content) for chunk in self.chunks[start:] if not chunk.is_error)
        self.unsent_bytes = 0

    @property
    def text(self) -> str:
        frozen = "".join(chunk.content for chunk in self.chunks[self.start :] if not chunk.is_error)
        return frozen + "".join(self._pending)

    @property
    def acked_text(self) -> str:
        """The text that Redis is known to have."""
        return "".join(chunk.content for chunk in self.chunks[self.start : self.acked] if not chunk.is_error)

    @property
    def behind(self) -> bool:
        """Whether there are chunks that Redis lacks."""
        return self.acked < len(self.chunks)

    @property
    def start_unknown(self) -> bool:
        """Whether Redis does not know yet where the text begins."""
        return self.start > self.acked_start

    def add(self, piece: str, size: int) -> None:
        """Add a piece of `size` bytes; the next `freeze` makes one chunk of all pending pieces."""
        self._pending.append(piece)
        self.text_bytes += size
        self.unsent_bytes += size

    def begin_anew(self) -> None:
        """Drop the current text; the next piece begins a new one."""
        self.unsent_bytes -= sum(_bytes(piece) for piece in self._pending)
        self._pending.clear()
        self.start, self.text_bytes = len(self.chunks), 0

    def freeze(self, stamp: str, *, final: bool = False, sentence: str = "") -> None:
        """Make chunks of the pending text; if `final`, mark the last one, or add one for `sentence`."""
        if self.chunks and self.chunks[-1].is_final:
            return
        text = "".join(self._pending)
        self._pending.clear()
        if text or (final and not sentence):
            stamp = stamp or timestamp()
            *others, last = _pieces(text)
            self.chunks += [Chunk(piece, stamp) for piece in others]
            self.chunks.append(Chunk(last, stamp, False, final and not sentence))
        if sentence:
            self.chunks.append(Chunk(sentence, stamp or timestamp(), True, True))

    def page(self, cursor: int, count: int, room: int) -> list[Chunk]:
        """Return the chunks that Redis has from `cursor` on: up to `count`, of `room` bytes, but at least one."""
        page: list[Chunk] = []
        for chunk in self.chunks[cursor : min(self.acked, cursor + count)]:
            room -= _bytes(chunk.content)
            if page and room < 0:
                break
            page.append(chunk)
        return page

    def unsent(self) -> tuple[Chunk, ...]:
        """Return the chunks that Redis lacks: as many as one write carries, but at least one."""
        count = len(self.chunks) - self.acked
        if count <= 1:
            # The usual case: one chunk, made of the pending text.
            return (self.chunks[-1],) if count else ()
        unsent = tuple(self.chunks[self.acked :])
        size = 0
        for count, chunk in enumerate(unsent):
            size += _bytes(chunk.content)
            if count and size > WRITE_BYTES:
                return unsent[:count]
        return unsent

    def acknowledge(self, write: Write) -> None:
        """Note that Redis has the chunks of a write."""
        self.has(max(self.acked, write.index + len(write.chunks)))
        self.acked_start = write.start

    def has(self, length: int) -> None:
        """Note that Redis has the first `length` chunks."""
        self.acked = length
        if length == len(self.chunks) and not self._pending:
            self.unsent_bytes = 0
            return
        unsent = [chunk.content for chunk in self.chunks[length:]] + self._pending
        self.unsent_bytes = sum(map(_bytes, unsent))


def _pieces(text: str) -> list[str]:
    """Split a text into pieces of at most `CHUNK_BYTES`; an empty text is one piece."""
    # A character has at most four bytes in UTF-8.
    if len(text) <= CHUNK_BYTES // 4:
        return [text]
    data, pieces, position = text.encode(), [], 0
    while position < len(data):
        piece = data[position : position + CHUNK_BYTES].decode(errors="ignore")
        pieces.append(piece)
        position += _bytes(piece)
    return pieces


def _bytes(text: str) -> int:
    return len(text.encode())
