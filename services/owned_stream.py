"""The owner's side of a stream: what was said, what Redis has of it, and what is to be sent next. No I/O.

The owner keeps every chunk, so that whatever Redis lost can be sent again. Deltas wait in `pending` until the flusher
asks for the next write; then all of them become one chunk, whose boundaries never change again, so that sending it
twice is harmless.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from services.errors import AnswerError, StoreUnavailable, StreamClosed
from services.models import Status
from services.stream_records import Chunk, NewStream, Op, Snapshot, Write, final_chunk, timestamp
from utils.deadline import Deadline

#: Bytes a producer may be ahead of Redis before it stops reading its provider.
BUFFER_BYTES = 256 * 1024
#: Bytes of text one write carries: what goes over a slow line within a socket's timeout.
WRITE_BYTES = 256 * 1024
#: How often an answer may begin anew: each time leaves its chunks in the list.
MAX_REPLACEMENTS = 10
#: Seconds of outage a producer waits through.
OUTAGE_SECONDS = 20.0


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
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.stream_id, self.owner, self.epoch = new.stream_id, new.owner, new.epoch
        self.deadline = deadline
        #: "" while it may be written, then "done", "released", "fenced", "cancelled" or "lost".
        self.closed = ""
        self._new = new
        self._changed = changed
        self._max_bytes = max_bytes
        self._outage_seconds = outage_seconds
        self._clock = clock
        self._opened = clock()
        self._state = threading.Condition()
        self._start = self._acked_start = new.start
        self._chunks: list[Chunk] = list(new.chunks)
        self._acked = len(self._chunks)
        self._pending: list[str] = []
        self._unsent_bytes = 0
        self._replacements = 0
        self._bytes = sum(len(chunk.content.encode()) for chunk in self._chunks[self._start :] if not chunk.is_error)
        self._fields: dict[str, str] = {}
        self._dirty_fields: dict[str, str] = {}
        self._ending: tuple[Op, str] | None = None
        self._failing_since: float | None = None

    def emit(self, text: str) -> None:
        """Add to the answer; wait while Redis is behind.

        Raises:
            AnswerError: `answer_too_long`, with what fits already added.
            StreamClosed: the stream ended or has another owner.
            StoreUnavailable: Redis was away for longer than a producer waits.
        """
        with self._state:
            self._check_open()
            room = self._max_bytes - self._bytes
            whole = text.encode("utf-8", "replace").decode()
            piece = whole.encode()[:room].decode(errors="ignore")
            self._add(piece)
            if len(piece) < len(whole):
                raise AnswerError(code="answer_too_long")
            in_time = self._state.wait_for(self._may_go_on, timeout=self._outage_seconds)
            self._check_open()
            if not in_time or self._outage() > self._outage_seconds:
                raise StoreUnavailable("redis is behind for too long")

    def replace(self, text: str) -> None:
        """Begin the answer anew with `text`."""
        with self._state:
            self._check_open()
            self._unsent_bytes -= sum(len(piece.encode()) for piece in self._pending)
            self._pending.clear()
            self._start, self._bytes = len(self._chunks), 0
            self._replacements += 1
            if self._replacements > MAX_REPLACEMENTS:
                raise AnswerError(code="answer_too_long")
            # Under one lock: no write may show the new beginning without its text.
            if text:
                self.emit(text)
        self._changed(self)

    def set(self, **fields: str) -> None:
        """Set fields of the stream's hash with the next write."""
        with self._state:
            news = {name: value for name, value in fields.items() if self._fields.get(name) != value}
            self._fields |= news
            self._dirty_fields |= news
        if news:
            self._changed(self)

    def finish(self, status: Status, *, error_code: str = "", sentence: str = "") -> None:
        """End the stream: what is pending, then an error chunk when there is a sentence, in one step."""
        with self._state:
            if self._ending or self.closed:
                return
            self._ending = ("finish", sentence)
            # Under one lock: the end must not go out without its status.
            self.set(status=status, dify_finished="1", error_code=error_code, waiting="")
        self._changed(self)

    def release(self) -> None:
        """Give the lease up at once, with everything said so far."""
        with self._state:
            if not self._ending:
                self._ending = ("release", "")
        self._changed(self)

    def wait_closed(self, timeout: float) -> bool:
        """Wait until Redis has the end, or the stream is somebody else's."""
        with self._state:
            return self._state.wait_for(lambda: bool(self.closed), timeout=timeout)

    @property
    def text(self) -> str:
        """The answer so far, whether Redis has it or not."""
        with self._state:
            said = "".join(chunk.content for chunk in self._chunks[self._start :] if not chunk.is_error)
            return said + "".join(self._pending)

    @property
    def snapshot(self) -> Snapshot:
        """What a reader would see if Redis had everything, while it is not known to have ended."""
        text = self.text
        access = self._new.fields.get("access", "")
        return Snapshot(self.stream_id, "processing", access=access, text=text, size=len(text.encode()))

    @property
    def figures(self) -> dict[str, Any]:
        """What the log line of a stream says of it."""
        auth_state = self._fields.get("auth_state", "")
        return {"auth_state": auth_state, "chunks": len(self._chunks), "bytes": self._bytes}

    def next_write(self, *, renew: bool = False) -> Write | None:
        """Return what Redis lacks, None when that is nothing; `renew` asks for a write in any case.

        A long backlog comes in several writes; fields and the end come with the last of them.
        """
        with self._state:
            if self.closed:
                return None
            self._freeze()
            chunks = self._backlog()
            last = self._acked + len(chunks) == len(self._chunks)
            op: Op = self._ending[0] if self._ending and last else ""
            fields = dict(self._dirty_fields) if last else {}
            if not (chunks or fields or op or renew or self._start > self._acked_start):
                return None
            head = (self.stream_id, self.epoch, self.owner, self._start, self._acked)
            return Write(*head, chunks, fields, op)

    def settle(self, write: Write, reply: Sequence[Any]) -> str:
        """Take Redis's reply to a write in; return what it was, "behind" where there is more to send at once."""
        outcome = str(reply[0])
        with self._state:
            self._failing_since = None
            if outcome == "ok":
                self._acknowledge(write)
                outcome = "behind" if self._acked < len(self._chunks) else outcome
            elif outcome == "gap":
                self._acked, outcome = int(reply[1]), "behind"
            elif outcome == "refused":
                self._close("fenced")
            elif outcome == "closed":
                self._close("cancelled" if reply[1] == "cancelled" else "fenced")
            self._state.notify_all()
        return outcome

    def rewritten(self, stream: NewStream, ours: bool) -> None:
        """Take in that the stream was written anew, or that somebody else had done it."""
        with self._state:
            if ours:
                self._acked = len(stream.chunks)
                self._count_unsent()
            else:
                self._close("fenced")
            self._state.notify_all()

    def lose(self) -> None:
        """Take in that the stream's time in Redis is over: nobody can read it any more."""
        with self._state:
            self._close("lost")
            self._state.notify_all()

    def failed(self) -> None:
        """Take in that Redis did not answer; give up after `outage_seconds` of it when nothing more will be said."""
        with self._state:
            if self._failing_since is None:
                self._failing_since = self._clock()
            if self._ending and self._outage() > self._outage_seconds:
                self._close("lost")
                self._state.notify_all()

    def whole(self) -> NewStream:
        """Return the stream as it would be created now: for a Redis that lost it."""
        with self._state:
            self._freeze()
            fields = {**self._new.fields, **self._fields}
            if self._ending:
                fields |= {"status": "processing", "dify_finished": "0"}
            return NewStream(
                self.stream_id,
                self.owner,
                fields,
                tuple(chunk for chunk in self._chunks if not chunk.is_final),
                epoch=self.epoch,
                start=self._start,
                frame_seconds=self._new.frame_seconds,
                age=self._new.age + self._clock() - self._opened,
            )

    def _check_open(self) -> None:
        if self.closed:
            raise StreamClosed(self.closed)

    def _may_go_on(self) -> bool:
        return bool(self.closed) or self._unsent_bytes <= BUFFER_BYTES

    def _outage(self) -> float:
        return 0.0 if self._failing_since is None else self._clock() - self._failing_since

    def _add(self, piece: str) -> None:
        if not piece:
            return
        size = len(piece.encode())
        self._pending.append(piece)
        self._bytes += size
        self._unsent_bytes += size
        self._changed(self)

    def _freeze(self) -> None:
        """Make one chunk of what is pending, and the last chunk when the end was said."""
        final = bool(self._ending and self._ending[0] == "finish")
        if self._chunks and self._chunks[-1].is_final:
            return
        sentence = self._ending[1] if self._ending else ""
        text = "".join(self._pending)
        self._pending.clear()
        if text or (final and not sentence):
            self._chunks.append(Chunk(text, timestamp(), is_final=final and not sentence))
        if sentence:
            self._chunks.append(final_chunk(sentence, error=True))

    def _backlog(self) -> tuple[Chunk, ...]:
        """Return the chunks Redis lacks, as many as one write carries and at least one."""
        backlog: list[Chunk] = []
        size = 0
        for chunk in self._chunks[self._acked :]:
            size += len(chunk.content.encode())
            if backlog and size > WRITE_BYTES:
                break
            backlog.append(chunk)
        return tuple(backlog)

    def _acknowledge(self, write: Write) -> None:
        self._acked = max(self._acked, write.index + len(write.chunks))
        self._acked_start = write.start
        self._dirty_fields = {n: v for n, v in self._dirty_fields.items() if write.fields.get(n) != v}
        self._count_unsent()
        if write.op:
            self._close("done" if write.op == "finish" else "released")

    def _count_unsent(self) -> None:
        unsent = [chunk.content for chunk in self._chunks[self._acked :]] + self._pending
        self._unsent_bytes = sum(len(piece.encode()) for piece in unsent)

    def _close(self, reason: str) -> None:
        self.closed = reason
        if reason != "done":
            self.deadline.abort(reason)
