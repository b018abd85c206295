"""What the owner of a stream knows of it: its chunks, fields and end, and which of them Redis has. No I/O, no locks.

Text waits in the backlog until the next write, which makes one chunk of it. The boundaries of a chunk never change
again, so a write that is sent twice is harmless.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, cast

from services.errors import AnswerError
from services.models import Status
from services.streams.backlog import Backlog
from services.streams.records import PAGE_BYTES, PAGE_CHUNKS, Appended, ChunkPage, NewStream, Op, Standing, Write
from utils.deadline import Deadline

#: Times an answer may be replaced. The chunks of replaced texts stay in the list.
MAX_REPLACEMENTS = 10
NO_FIELDS: Mapping[str, str] = MappingProxyType({})


class OwnedState:
    """The state of one owned stream; the caller holds the stream's lock."""

    def __init__(self, new: NewStream, *, deadline: Deadline, max_bytes: int, clock: Callable[[], float]) -> None:
        self._new = new
        self._deadline = deadline
        self._max_bytes = max_bytes
        self._clock = clock
        self._opened = clock()
        self.backlog = Backlog(new.chunks, new.start)
        #: "" while the stream may be written, then "done", "released", "fenced", "cancelled" or "lost".
        self.closed = ""
        #: Whether the next write must not wait: true for all news except further text.
        self.urgent = True
        #: Whether the next write is sent even without news.
        self.touched = False
        #: Fields that were set, and those that Redis lacks.
        self.fields: dict[str, str] = {}
        self.dirty_fields: dict[str, str] = {}
        #: The last operation, and the sentence of its error chunk ("" for none).
        self.ending: tuple[Op, str] | None = None
        #: Redis's reply to the end, if this owner has to send a late message.
        self.late: Appended | None = None
        self._replacements = 0

    @property
    def released(self) -> bool:
        """Whether the owner gives its lease up instead of finishing the stream."""
        return self.ending is not None and self.ending[0] == "release"

    @property
    def access(self) -> str:
        return self._new.fields.get("access", "")

    @property
    def age(self) -> float:
        """Seconds since the stream was created."""
        return self._new.age + self._clock() - self._opened

    @property
    def frame_left(self) -> float | None:
        """Seconds until the frame's deadline, negative after it; None for a stream without one."""
        seconds = self._new.frame_seconds
        return None if seconds is None else seconds - self.age

    def field(self, name: str) -> str:
        """Return a field of the stream's hash as its owner knows it, "" for none."""
        return self.fields.get(name, self._new.fields.get(name, ""))

    def add(self, text: str) -> bool:
        """Add as much of the text as fits into `max_bytes`; return whether all of it did."""
        try:
            size = len(text.encode())
        except UnicodeEncodeError:
            # Half a surrogate pair is not a character: a question mark replaces it.
            text = text.encode("utf-8", "replace").decode()
            size = len(text.encode())
        backlog = self.backlog
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

    def begin_anew(self) -> None:
        """Drop the text that readers have; the next `add` begins a new one.

        Raises:
            AnswerError: `answer_too_long`, after `MAX_REPLACEMENTS` replacements.
        """
        self._replacements += 1
        if self._replacements > MAX_REPLACEMENTS:
            raise AnswerError(code="answer_too_long")
        self.backlog.begin_anew()
        self.urgent = True

    def set_fields(self, fields: Mapping[str, str], *, urgent: bool = True) -> bool:
        """Set fields; return whether any value changed. Those that are not `urgent` may wait for the next write."""
        written = {name: value.encode("utf-8", "replace").decode() for name, value in fields.items()}
        news = {name: value for name, value in written.items() if self.fields.get(name) != value}
        self.fields |= news
        self.dirty_fields |= news
        self.urgent = self.urgent or (urgent and bool(news))
        return bool(news)

    def next_write(self, *, renew: bool, stamp: str) -> Write | None:
        """Return what Redis lacks, as `OwnedStream.next_write` does."""
        self.urgent = False
        if self.closed:
            return None
        self.freeze(stamp)
        backlog = self.backlog
        chunks = backlog.unsent()
        last = backlog.acked + len(chunks) == len(backlog.chunks)
        op: Op = self.ending[0] if self.ending and last else ""
        fields = dict(self.dirty_fields) if last and self.dirty_fields else NO_FIELDS
        if not (chunks or fields or op or renew or self.touched or backlog.start_unknown):
            return None
        self.touched = False
        new = self._new
        return Write(new.stream_id, new.epoch, new.owner, backlog.start, backlog.acked, chunks, fields, op)

    def settle(self, write: Write, reply: Appended) -> str:
        """Apply Redis's reply to a write; return its outcome, or "behind" when there is more to send at once."""
        if reply.outcome == "ok":
            self.late = reply if reply.cause else None
            self._acknowledge(write)
            return "behind" if self.backlog.behind else "ok"
        if reply.outcome == "gap":
            self.backlog.has(reply.length)
            return "behind"
        if reply.outcome == "refused":
            self.close("fenced")
        elif reply.outcome == "closed":
            self.close("cancelled" if reply.status == "cancelled" else "fenced")
        return reply.outcome

    def close(self, reason: str) -> None:
        """Stop writing; every reason except "done" also aborts the request to the provider."""
        self.closed = reason
        if reason != "done":
            self._deadline.abort(reason)

    def freeze(self, stamp: str = "") -> None:
        """Make chunks of the waiting text, and of the end if the stream finishes."""
        op, sentence = self.ending or ("", "")
        self.backlog.freeze(stamp, final=op == "finish", sentence=sentence)

    def whole(self) -> NewStream:
        """Return the stream as it would be created now, for a Redis that lost it."""
        self.freeze()
        new, backlog = self._new, self.backlog
        fields = {**new.fields, **self.fields}
        if self.ending:
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

    def standing(self) -> Standing:
        """Return the state that Redis is known to have."""
        backlog, fields, new = self.backlog, self.fields, self._new
        ended = fields if self.closed else {}
        marks = (backlog.acked_start, backlog.acked, new.epoch, fields.get("waiting") == "1", new.owner)
        return Standing(cast(Status, ended.get("status", "processing")), ended.get("error_code", ""), *marks)

    def page(self, cursor: int) -> ChunkPage | None:
        """Return the chunks from `cursor` that Redis is known to have; None once another owner may write."""
        if self.closed not in ("", "done"):
            return None
        chunks = self.backlog.page(cursor, PAGE_CHUNKS, PAGE_BYTES)
        return ChunkPage(self.standing(), chunks, self.access)

    @property
    def figures(self) -> dict[str, Any]:
        written = self.backlog
        return {"auth_state": self.field("auth_state"), "chunks": len(written.chunks), "bytes": written.text_bytes}

    def _acknowledge(self, write: Write) -> None:
        self.backlog.acknowledge(write)
        if write.fields:
            self.dirty_fields = {n: v for n, v in self.dirty_fields.items() if write.fields.get(n) != v}
        if write.op:
            self.close("done" if write.op == "finish" else "released")
