"""What a stream is made of, as values: its chunks, what its owner writes, what its readers see."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple

import orjson

from services.models import Status, Usage
from services.streams.long_text import LongText

Op = Literal["", "finish", "release"]

#: Chunks one page has at the most, and bytes of them unless its first one has more: so much does a reader hold that
#: waits for its connection.
PAGE_CHUNKS = 128
PAGE_BYTES = 16 * 1024
#: Sources an answer is kept with, and bytes of them.
MAX_SOURCES = 20
SOURCES_BYTES = 64 * 1024
#: Bytes of what else a provider says of its answer.
TOLD_BYTES = 8 * 1024


class Chunk(NamedTuple):
    """One entry of a stream's list; an error chunk's content is the sentence for the user."""

    content: str
    timestamp: str
    is_error: bool = False
    is_final: bool = False

    @classmethod
    def read(cls, entry: str) -> Chunk:
        """Return an entry of a list as this or another version wrote it; what is new there is passed over."""
        written = json.loads(entry)
        marks = (bool(written.get("is_error")), bool(written.get("is_final")))
        return cls(written["content"], written["timestamp"], *marks)

    def args(self) -> tuple[str, str]:
        """Return its JSON and the text it adds."""
        entry: dict[str, str | bool] = {"content": self.content, "timestamp": self.timestamp}
        if self.is_error:
            entry["is_error"] = True
        if self.is_final:
            entry["is_final"] = True
        return orjson.dumps(entry).decode(), "" if self.is_error else self.content


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a reader sees of a stream at one moment."""

    stream_id: str
    status: Status
    error_code: str = ""
    #: Whether the question waits for its conversation's earlier ones.
    waiting: bool = False
    access: str = ""
    epoch: int = 1
    owner: str = ""
    #: The owner's lease ran out while the stream was unfinished.
    lapsed: bool = False
    #: The frame's time is over; `text` is what was shown at that moment, for ever.
    frame_over: bool = False
    #: The text's head: as many bytes as one poll reads.
    text: str = ""
    #: Bytes of the whole text.
    size: int = 0
    #: Chunks in the list, and the one the text begins at.
    length: int = 0
    start: int = 0
    #: Where the answer comes from, as a few lines of Markdown.
    cited: str = ""
    #: The stream existed before this question was asked: no part of what it shows.
    found: bool = field(default=False, compare=False)

    @classmethod
    def from_reply(cls, stream_id: str, reply: Sequence[Any]) -> Snapshot:
        status, code, waiting, access, epoch, owner, lapsed, over, *counts = reply
        marks = (epoch, owner, lapsed == 1, over == 1)
        return cls(stream_id, status, code, waiting == "1", access, *marks, *counts)


@dataclass(frozen=True, slots=True)
class NewStream:
    """A stream to be created: its first owner, its fields, and its chunks when it is born finished."""

    stream_id: str
    owner: str
    fields: Mapping[str, str]
    chunks: Sequence[Chunk] = ()
    epoch: int = 1
    start: int = 0
    #: Seconds until WeCom's frame ends; None where the door has no such limit.
    frame_seconds: float | None = None
    #: Seconds the stream exists already: not 0 when its owner writes it again.
    age: float = 0.0


# Not frozen, like what crosses floors elsewhere: each delta may make one, and to make a frozen one takes 2 µs more.
@dataclass(slots=True)
class Write:
    """One append by an owner: chunks from `index` on, fields to set, and perhaps the end."""

    stream_id: str
    epoch: int
    owner: str
    start: int
    index: int
    chunks: Sequence[Chunk] = ()
    fields: Mapping[str, str] = field(default_factory=dict)
    op: Op = ""

    @property
    def size(self) -> int:
        """Bytes of its text."""
        return sum([len(chunk.content.encode()) for chunk in self.chunks])


@dataclass(frozen=True, slots=True)
class Whole:
    """A stream's whole text and what goes with it."""

    #: The text; "" where it is long.
    short: str
    status: Status
    error_code: str = ""
    #: Where the answer comes from, as the provider says it: title, content, score, position.
    sources: tuple[Mapping[str, Any], ...] = ()
    #: The answer is the built-in mock's, not the provider's.
    mock: bool = False
    #: What it cost, without the sources.
    usage: Usage = field(default_factory=Usage)
    #: The provider that was asked, and its ids; "" where there is none.
    provider: str = ""
    message_id: str = ""
    conversation_id: str = ""
    #: What else the provider said of it, as JSON.
    told: str = ""
    #: Of a failed answer: how long the provider asked to be left alone, in seconds; 0.0 where it did not.
    retry_after: float = 0.0
    #: A long text, to be read from Redis; None where it is short.
    long: LongText | None = None

    @property
    def text(self) -> str:
        """All of the text.

        Raises:
            StoreUnavailable: Redis is away.
        """
        return "".join(self.slices())

    @property
    def size(self) -> int:
        """Bytes of the whole text."""
        return self.long.size if self.long else len(self.short.encode())

    def slices(self) -> Iterator[str]:
        """Yield the text slice by slice, each read when it is asked for; raises what `text` does."""
        yield from self.long or (self.short,)

    def complete(self) -> Whole:
        """Return the same with its text as a short one; raises what `text` does."""
        return replace(self, short=self.text, long=None) if self.long else self

    @property
    def metadata(self) -> dict[str, Any]:
        """Return who answered, under which ids, and what else they said of it, as JSON has it."""
        names = {"provider": self.provider, "message_id": self.message_id, "conversation_id": self.conversation_id}
        told = json.loads(self.told) if self.told else {}
        return {**told, **{name: value for name, value in names.items() if value}}


class Appended(NamedTuple):
    """Redis's reply to a write, as lua/append.lua says it."""

    outcome: Literal["ok", "gap", "refused", "closed", "gone"]
    #: Of `ok` and `gap`: chunks in the list.
    length: int = 0
    #: Of `closed`: how the stream ended.
    status: str = ""
    #: Of `refused`: whose the stream is.
    epoch: int = 0
    owner: str = ""

    @classmethod
    def from_reply(cls, reply: Sequence[Any]) -> Appended:
        match reply:
            case "refused", epoch, owner:
                return cls("refused", epoch=int(epoch), owner=owner)
            case "closed", status:
                return cls("closed", status=status)
            case outcome, length:
                return cls(outcome, length)
        return cls("gone")


class Takeover(NamedTuple):
    """The outcome of trying to take a stream over: only `taken` carries the rest."""

    outcome: Literal["taken", "suspect", "alive", "ended", "gone", "newer"]
    epoch: int = 0
    former_owner: str = ""
    #: Whether the former owner was lost, or gave its lease up on leaving.
    kind: Literal["takeover", "handover"] = "takeover"
    #: How often an owner of this stream was lost, this time included.
    takeovers: int = 0
    #: Seconds to the producer's end.
    seconds_left: float = 0.0

    @classmethod
    def from_reply(cls, reply: Sequence[Any]) -> Takeover:
        outcome, *taken = reply
        if not taken:
            return cls(outcome)
        epoch, former_owner, kind, takeovers, seconds_left = taken
        return cls(outcome, epoch, former_owner, kind, takeovers, float(seconds_left))


class Standing(NamedTuple):
    """How a stream stands, to see whether a reader has news."""

    status: Status
    error_code: str
    #: The place in the list that the text begins at.
    start: int
    #: Chunks in the list.
    length: int
    epoch: int
    #: Whether the question waits for its conversation's earlier ones.
    waiting: bool = False
    owner: str = ""


class ChunkPage(NamedTuple):
    """A stream's chunks from a cursor on, as many as were asked for: the next cursor is cursor + len(chunks)."""

    standing: Standing
    chunks: Sequence[Chunk]
    access: str
    #: The owner's lease ran out while the stream was unfinished.
    lapsed: bool = False

    @classmethod
    def from_reply(cls, reply: Sequence[Any]) -> ChunkPage:
        status, code, start, length, entries, access, epoch, lapsed, waiting, owner = reply
        standing = Standing(status, code, start, length, epoch, waiting == "1", owner)
        return cls(standing, [Chunk.read(entry) for entry in entries], access, lapsed == 1)


#: Fields of a stream's hash that a step in Lua keeps, not its owner.
KEPT_BY_REDIS = ("v", "epoch", "owner", "lease", "suspect", "start", "read", "deadline", "frame_deadline")


def taken_stream(
    stream_id: str, owner: str, taken: Takeover, fields: Mapping[str, str], chunks: Sequence[Chunk], max_seconds: float
) -> NewStream:
    """Return a stream as its new owner goes on with it; `max_seconds` is a producer's time from creation here."""
    now = float(fields["deadline"]) - taken.seconds_left
    age = max(0.0, max_seconds - taken.seconds_left)
    frame = fields.get("frame_deadline", "")
    return NewStream(
        stream_id,
        owner,
        {name: value for name, value in fields.items() if name not in KEPT_BY_REDIS},
        tuple(chunks),
        epoch=taken.epoch,
        start=int(fields["start"]),
        frame_seconds=float(frame) - now + age if frame else None,
        age=age,
    )


def timestamp() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def final_chunk(sentence: str, *, error: bool) -> Chunk:
    return Chunk(sentence, timestamp(), is_error=error, is_final=True)


def born_finished(stream_id: str, owner: str, fields: Mapping[str, str], sentence: str, *, error: bool) -> NewStream:
    """Return a stream that ends as it begins: a refusal, or the answer to a command."""
    status = {"status": "error" if error else "completed", "dify_finished": "1"}
    return NewStream(stream_id, owner, {**fields, **status}, (final_chunk(sentence, error=error),))


def written_sources(sources: Sequence[Mapping[str, Any]]) -> str:
    """Return where an answer comes from as JSON, "" for nowhere; what is too much is left out from the end."""
    kept = list(sources[:MAX_SOURCES])
    while kept:
        written = _json(kept)
        if len(written.encode()) <= SOURCES_BYTES:
            return written
        kept.pop()
    return ""


def written_told(fields: Mapping[str, Any]) -> str:
    """Return what a provider said of its answer as JSON, "" where that is too much to keep."""
    written = _json(dict(fields))
    return written if len(written.encode()) <= TOLD_BYTES else ""


def written_usage(usage: Usage) -> str:
    """Return what an answer cost as JSON."""
    return json.dumps(usage.figures(), separators=(",", ":"))


def read_usage(written: str | None) -> Usage:
    return Usage(**json.loads(written)) if written else Usage()


def read_sources(written: str | None) -> tuple[Mapping[str, Any], ...]:
    return tuple(json.loads(written)) if written else ()


def _json(value: Any) -> str:
    """Return a provider's value as JSON that can be stored: half a surrogate pair, which is no character, is none."""
    written = json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)
    return written.encode("utf-8", "replace").decode()
