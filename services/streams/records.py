"""The values of a stream: its chunks, its owner's writes, and the snapshots for its readers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple

import orjson

from services.models import Status

Op = Literal["", "finish", "release"]
#: Why a frame does not carry all of an answer: the text is too large; a poll ended the frame before the answer's end;
#: the frame's deadline passed and no poll came after it.
LateCause = Literal["overflow", "frame", "unread"]

#: Maximal chunks of one page, and its bytes unless the first chunk is larger: a reader with a slow connection holds
#: that much.
PAGE_CHUNKS = 128
PAGE_BYTES = 16 * 1024

#: Fields of a stream's hash that Lua scripts maintain, not the owner.
KEPT_BY_REDIS = ("v", "epoch", "owner", "lease", "suspect", "start", "read", "deadline", "frame_deadline")


class Chunk(NamedTuple):
    """One entry of a stream's list; the content of an error chunk is the sentence for the user."""

    content: str
    timestamp: str
    is_error: bool = False
    is_final: bool = False

    @classmethod
    def read(cls, entry: str) -> Chunk:
        """Parse an entry of the list, also one of another version, whose unknown fields are ignored."""
        written = json.loads(entry)
        marks = (bool(written.get("is_error")), bool(written.get("is_final")))
        return cls(written["content"], written["timestamp"], *marks)

    def args(self) -> tuple[str, str]:
        """Return the chunk's JSON, and the text that it adds to the answer."""
        entry: dict[str, str | bool] = {"content": self.content, "timestamp": self.timestamp}
        if self.is_error:
            entry["is_error"] = True
        if self.is_final:
            entry["is_final"] = True
        return orjson.dumps(entry).decode(), "" if self.is_error else self.content


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state and text of a stream at one moment, for a reader."""

    stream_id: str
    status: Status
    error_code: str = ""
    #: Whether the question waits for earlier ones of its conversation.
    waiting: bool = False
    access: str = ""
    epoch: int = 1
    owner: str = ""
    #: Whether the owner's lease ran out while the stream was unfinished.
    lapsed: bool = False
    #: Whether the frame's deadline has passed; `text` then stays as it was shown at that moment.
    frame_over: bool = False
    #: The beginning of the text: as many bytes as one poll reads.
    text: str = ""
    #: Size of the whole text in bytes.
    size: int = 0
    #: Number of chunks in the list, and the index of the text's first one.
    length: int = 0
    start: int = 0
    #: The sources of the answer as a few lines of Markdown.
    cited: str = ""
    #: Whether text that the frame cannot carry follows as a message of its own.
    late: bool = False
    #: Whether pictures or files are stored with the answer.
    has_files: bool = False
    #: The running step while there is no text to see; of an ended answer its suggested questions, one per line; of a
    #: refused one the sentence that takes the place of the code's, "" for none.
    note: str = ""
    #: The choices of the form that an ended answer asks, as `OfferedChoices` in JSON; "" for none and for several.
    choices: str = ""
    #: The stream existed before this question was asked; no reader sees it.
    found: bool = field(default=False, compare=False)
    #: A provider answers the question, or has; known only where it was asked just now.
    is_answer: bool = field(default=False, compare=False)

    @classmethod
    def from_reply(cls, stream_id: str, reply: Sequence[Any]) -> Snapshot:
        status, code, waiting, access, epoch, owner, lapsed, over, text, size, length, start, cited, *note = reply
        marks = (epoch, owner, lapsed == 1, bool(over & 1), text, size, length, start, cited)
        return cls(stream_id, status, code, waiting == "1", access, *marks, bool(over & 2), bool(over & 4), *note)


@dataclass(frozen=True, slots=True)
class NewStream:
    """A stream to be created: its first owner, its fields, and its chunks if it is created finished."""

    stream_id: str
    owner: str
    fields: Mapping[str, str]
    chunks: Sequence[Chunk] = ()
    epoch: int = 1
    start: int = 0
    #: Seconds until the deadline of WeCom's frame; None for channels without one.
    frame_seconds: float | None = None
    #: Age of the stream in seconds; above 0 when its owner writes it again.
    age: float = 0.0

    @property
    def text(self) -> str:
        """The answer's text in `chunks`."""
        return "".join(chunk.content for chunk in self.chunks[self.start :] if not chunk.is_error)


# Not frozen, unlike other values: each delta may make one, and a frozen one costs 2 µs more.
@dataclass(slots=True)
class Write:
    """One append by an owner: chunks from `index` on, fields, and possibly the end."""

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
        """Size of its text in bytes."""
        return sum([len(chunk.content.encode()) for chunk in self.chunks])


class Appended(NamedTuple):
    """The reply of lua/append.lua."""

    outcome: Literal["ok", "gap", "refused", "closed", "gone"]
    #: Of `ok` and `gap`: number of chunks in the list.
    length: int = 0
    #: Of `closed`: the status of the ended stream.
    status: str = ""
    #: Of `refused`: the present owner and its epoch.
    epoch: int = 0
    owner: str = ""
    #: Of the end: why this owner has to send a late message, and the part of the text that the frame shows.
    cause: LateCause | Literal[""] = ""
    shown: str = ""

    @classmethod
    def from_reply(cls, reply: Sequence[Any]) -> Appended:
        match reply:
            case "ok", length, cause, shown:
                return cls("ok", length, cause=cause, shown=shown)
            case "refused", epoch, owner:
                return cls("refused", epoch=int(epoch), owner=owner)
            case "closed", status:
                return cls("closed", status=status)
            case outcome, length:
                return cls(outcome, length)
        return cls("gone")


class Takeover(NamedTuple):
    """The reply of lua/takeover.lua; only `taken` has the other fields."""

    outcome: Literal["taken", "suspect", "alive", "ended", "gone", "newer"]
    epoch: int = 0
    former_owner: str = ""
    #: Whether the former owner was lost, or released its lease when it left.
    kind: Literal["takeover", "handover"] = "takeover"
    #: How many owners of this stream were lost, this one included.
    takeovers: int = 0
    #: Seconds until the producer's deadline.
    seconds_left: float = 0.0

    @classmethod
    def from_reply(cls, reply: Sequence[Any]) -> Takeover:
        outcome, *taken = reply
        if not taken:
            return cls(outcome)
        epoch, former_owner, kind, takeovers, seconds_left = taken
        return cls(outcome, epoch, former_owner, kind, takeovers, float(seconds_left))


class Standing(NamedTuple):
    """The state of a stream; a reader compares two of them to detect an update."""

    status: Status
    error_code: str
    #: The list index at which the text begins.
    start: int
    #: Number of chunks in the list.
    length: int
    epoch: int
    #: Whether the question waits for earlier ones of its conversation.
    waiting: bool = False
    owner: str = ""
    #: The running step while there is no text, "" for none.
    step: str = ""


class ChunkPage(NamedTuple):
    """A page of a stream's chunks from a cursor on; the next cursor is cursor + len(chunks)."""

    standing: Standing
    chunks: Sequence[Chunk]
    access: str
    #: Whether the owner's lease ran out while the stream was unfinished.
    lapsed: bool = False

    @classmethod
    def from_reply(cls, reply: Sequence[Any]) -> ChunkPage:
        status, code, start, length, entries, access, epoch, lapsed, waiting, owner, step = reply
        standing = Standing(status, code, start, length, epoch, waiting == "1", owner, step)
        return cls(standing, [Chunk.read(entry) for entry in entries], access, lapsed == 1)


def taken_stream(
    stream_id: str, owner: str, taken: Takeover, fields: Mapping[str, str], chunks: Sequence[Chunk], max_seconds: float
) -> NewStream:
    """Return a stream for its new owner; `max_seconds` is the time of a producer from creation to deadline."""
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
    """Return a stream that is created finished: an error's sentence, or the answer to a command."""
    status = {"status": "error" if error else "completed", "dify_finished": "1"}
    return NewStream(stream_id, owner, {**fields, **status}, (final_chunk(sentence, error=error),))
