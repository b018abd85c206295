"""A stream in Redis: the answer to one question, written by its owner, read on any replica.

    dify_stream:<id>              hash, lives STREAM_TTL from creation
        content token user_info status conversation_id dify_finished created_time
        v question access asker auth_state error_code message_id task_id run_id asks reply late delivered files attached
        and, once they are known: waiting sources mock provider usage reported cited resets whole asked_at retry_after
        speaker form step suggested choices refusal quotas limit
        epoch owner lease suspect former_owner taken takeovers deadline frame_deadline shown start read
    {dify_stream:<id>}:messages   list of JSON chunks {content, timestamp[, is_error][, is_final]}, append-only
    {dify_stream:<id>}:text       the non-error chunks from `start` on, joined
    dify_streams:running:<0-15>   sorted set of stream ids by the end of their lease; may be incomplete
    dify_user:<bot>:<principal>   sorted set of a person's running stream ids by the end of their frame

`access` has the fingerprints of the readers. `start` is the list index at which the present text begins. Times are
seconds since 1970 by Redis's clock. `lease`, `epoch` and `owner` fence writers: lua/append.lua and lua/takeover.lua.
`reply` is the sealed address for a late message, `late` is "1" where readers learn of it. `delivered` is its state:
"due" in the write that ends the stream, where lua/append.lua makes it "claimed …", then sent, refused, failed or lost.
`files` is "1" where an answer has stored files, `attached` the sealed addresses of some of them (services/files).
`form` is the sealed form that the question answers: its run goes on in this stream. `step` and `suggested` are plain
words beside the text, `refusal` is the sentence of a refusal that has one of its own, `choices` has the choices of the
form that the answer asks (JSON, for buttons). `quotas` names what the question has taken of quotas, `limit` the limit
that refused it (services/answers/quotas.py).
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from services.errors import StoreUnavailable
from services.redis.store import Call, ScriptRunner, script
from services.streams.answer_events import read_sources, read_usage
from services.streams.long_text import FullAnswer, LongText, TextSlice
from services.streams.records import (
    PAGE_BYTES,
    PAGE_CHUNKS,
    Appended,
    Chunk,
    ChunkPage,
    NewStream,
    Snapshot,
    Takeover,
    Write,
)

#: Version of this schema, in every hash: two versions run side by side during a rolling update. Streams of every
#: version are read; only the same or a newer version takes one over.
SCHEMA_VERSION = "1"
#: Bytes of text one poll reads: WeCom's 20,480 and one more character, which shows that the text was cut.
READ_BYTES = 20_484
RUNNING_SHARDS = 16
#: Bytes of a text that is read together with the rest of a stream, and of one slice of a longer text.
SHORT_BYTES = 16 * 1024
SLICE_BYTES = 8 * 1024
#: Seconds after which a claim without an outcome counts as lost: a late message takes a third of it at most.
CLAIM_SECONDS = 60.0
#: Seconds for attempts to open a stream: a new question has one exchange and two seconds for it.
OPEN_SECONDS = 1.0


class StreamKeys(NamedTuple):
    hash: str
    messages: str
    text: str


def stream_keys(stream_id: str) -> StreamKeys:
    """Return a stream's keys; the hash tag puts them into one slot of a Redis Cluster."""
    name = f"dify_stream:{stream_id}"
    return StreamKeys(name, f"{{{name}}}:messages", f"{{{name}}}:text")


class StreamStore:
    """Owns the keys above. Every method is one round trip.

    Raises:
        StoreUnavailable: from every method, when Redis is away.
    """

    def __init__(
        self,
        runner: ScriptRunner,
        *,
        ttl: float = 1800.0,
        lease: float = 6.0,
        max_seconds: float = 1200.0,
        now: str = "",
    ) -> None:
        self._runner = runner
        self.ttl = ttl
        self.lease = lease
        self.max_seconds = max_seconds
        #: The time that scripts use, in seconds; "" for Redis's own clock.
        self.now = now

    def away(self, stream_id: str) -> bool:
        """Tell whether the stream's Redis node failed recently; see `ScriptRunner.away`."""
        return self._runner.away(stream_keys(stream_id).hash)

    def open(
        self, stream: NewStream, *others: Call, hints: Sequence[Call] = (), retry_seconds: float = OPEN_SECONDS
    ) -> tuple[bool, Snapshot, list[Any]]:
        """Create the stream unless it exists; return whether it is ours, its snapshot, and the other replies.

        `hints` are sent in the same request; their replies and errors are ignored. Attempts continue for
        `retry_seconds`.
        """
        calls = [*others, self.open_call(stream), *hints]
        attempts = math.ceil(3 * retry_seconds / OPEN_SECONDS)
        replies = self._runner.run_each(calls, attempts=attempts, retry_seconds=retry_seconds)[: len(others) + 1]
        for reply in replies:
            if isinstance(reply, StoreUnavailable):
                raise reply
        *rest, (created, snapshot) = replies
        return created == 1, Snapshot.from_reply(stream.stream_id, snapshot), rest

    def open_call(self, stream: NewStream) -> Call:
        frame = "" if stream.frame_seconds is None else stream.frame_seconds - stream.age
        fields = {
            "dify_finished": "0",
            **stream.fields,
            "v": SCHEMA_VERSION,
            "epoch": stream.epoch,
            "start": stream.start,
        }
        chunks = [arg for chunk in stream.chunks for arg in chunk.args()]
        times = (self.lease, self.ttl - stream.age, self.max_seconds - stream.age, frame)
        return Call(
            script("open"),
            stream_keys(stream.stream_id),
            (self.now, stream.owner, *times, READ_BYTES, len(fields), *flat(fields), *chunks),
        )

    def read(self, stream_id: str) -> Snapshot | None:
        """Return the stream's snapshot; None if it does not exist."""
        reply = self._runner.run([self.read_call(stream_id)])[0]
        return Snapshot.from_reply(stream_id, reply) if reply else None

    def snapshots(self, stream_ids: Sequence[str]) -> list[Snapshot | StoreUnavailable | None]:
        """Return for each stream what `read` does, or an error if its node is away."""
        replies = self._runner.run_each([self.read_call(stream_id) for stream_id in stream_ids], attempts=2)
        return [
            reply if isinstance(reply, StoreUnavailable) else Snapshot.from_reply(stream_id, reply) if reply else None
            for stream_id, reply in zip(stream_ids, replies, strict=True)
        ]

    def home(self, stream_id: str) -> str:
        """Return the name of the stream's Redis node; "" if there is only one."""
        return self._runner.home(stream_keys(stream_id).hash)

    def chunks(self, stream_id: str, cursor: int, *, count: int = PAGE_CHUNKS) -> ChunkPage | None:
        """Return a page of chunks from `cursor`, an absolute list index; None if there is no such stream."""
        reply = self._runner.run([self._chunks_call(stream_id, cursor, count)])[0]
        return ChunkPage.from_reply(reply) if reply else None

    def pages(self, cursors: Sequence[tuple[str, int]]) -> list[ChunkPage | StoreUnavailable | None]:
        """Return for each stream and cursor what `chunks` does, or an error if its node is away."""
        replies = self._runner.run_each([self._chunks_call(*cursor, PAGE_CHUNKS) for cursor in cursors])
        return [
            reply if isinstance(reply, StoreUnavailable) or not reply else ChunkPage.from_reply(reply)
            for reply in replies
        ]

    def full_answer(self, stream_id: str) -> FullAnswer | None:
        """Return a stream's text, a long one to be read in slices, with its other fields; None if there is none."""
        keys = stream_keys(stream_id)
        words = ("error_code", "provider", "message_id", "conversation_id", "reported", "suggested", "choices", "limit")
        fields = ("status", "sources", "mock", "usage", "retry_after", "files", *words)
        calls = [Call(None, ("HMGET", keys.hash), fields), self._text_call(stream_id, 0, SHORT_BYTES)]
        calls.append(Call(None, ("PTTL", keys.hash)))
        (status, sources, mock, usage, retry_after, files, *found), text, left_ms = self._runner.run(calls)
        if not status:
            return None
        begun = TextSlice(*text)
        # Words have the same name in the hash and in `FullAnswer`.
        named: dict[str, Any] = {name: word or "" for name, word in zip(words, found, strict=True)}
        is_short = begun.end == begun.size
        return FullAnswer(
            begun.text if is_short else "",
            status,
            sources=read_sources(sources),
            mock=mock == "1",
            usage=read_usage(usage),
            retry_after=float(retry_after or 0),
            left=max(left_ms, 0) / 1000,
            has_files=files == "1",
            long=None if is_short else LongText(partial(self.text, stream_id), begun.size),
            **named,
        )

    def text(self, stream_id: str, offset: int) -> TextSlice:
        """Return the slice of the text that begins at byte `offset`; an empty one if there is no such stream."""
        return TextSlice(*self._runner.run([self._text_call(stream_id, offset, SLICE_BYTES)])[0])

    def write(self, writes: Sequence[Write], *others: Call) -> list[Appended | StoreUnavailable]:
        """Carry out appends of any number of streams in one round trip; return their replies.

        If a node of a Redis Cluster is away, the replies of its writes are `StoreUnavailable`.
        """
        if not writes:
            self._runner.run(others, attempts=3)
            return []
        replies = self._runner.run_each([*(self._append_call(write) for write in writes), *others])[: len(writes)]
        return [reply if isinstance(reply, StoreUnavailable) else Appended.from_reply(reply) for reply in replies]

    def takeover(self, stream_id: str, owner: str) -> Takeover:
        """Mark a lapsed stream as suspect or, if the mark is old enough, make `owner` its owner."""
        args = (self.now, owner, self.lease, SCHEMA_VERSION)
        return Takeover.from_reply(self._runner.run([Call(script("takeover"), stream_keys(stream_id), args)])[0])

    def lapsed(self, *, per_shard: int = 100) -> list[str]:
        """Return indexed streams whose lease is over; of a Redis Cluster, only from shards that can be read."""
        args = (self.now, per_shard)
        calls = [Call(script("lapsed"), (_shard_key(shard),), args) for shard in range(RUNNING_SHARDS)]
        found = [ids for ids in self._runner.run_each(calls) if not isinstance(ids, StoreUnavailable)]
        return [stream_id for ids in found for stream_id in ids]

    def cancel(self, stream_id: str) -> str:
        """Cancel a running stream; return the status it had before, "" if there is none."""
        return self._runner.run([self.cancel_call(stream_id)])[0] or ""

    def cancel_call(self, stream_id: str) -> Call:
        return Call(script("cancel"), stream_keys(stream_id))

    def standing(self, stream_id: str) -> tuple[str, float]:
        """Return a stream's status ("" if there is none) and the seconds since its lease ran out, 0 before."""
        reply = self._runner.run([Call(script("head"), stream_keys(stream_id), (self.now,))])[0]
        status, late = reply or ("", 0.0)
        return status, float(late)

    def delivered(self, stream_id: str, owner: str, outcome: str) -> None:
        """Replace an owner's claim by the outcome of its late message, and remove the stream from the index."""
        call = Call(script("delivered"), stream_keys(stream_id), (owner, outcome))
        self._runner.run([call, *self.ended_calls([stream_id])], attempts=3)

    def look_at_claim(self, stream_id: str) -> tuple[str, str]:
        """Look at the claim of an ended stream, and give it up if it is older than `CLAIM_SECONDS`.

        Return "" (no claim), "waiting", or "lost" with the claim's owner.
        """
        outcome, *owner = self._runner.run([Call(script("claim"), stream_keys(stream_id), (self.now, CLAIM_SECONDS))])[
            0
        ]
        return outcome, "".join(owner)

    def enter_call(self, bot: str, principal: str, stream_id: str, *, slots: int, seconds: float) -> Call:
        """Return the call that takes one of a user's slots; its reply: 0 full, 1 taken now, 2 taken before."""
        return Call(script("enter"), (user_key(bot, principal),), (self.now, stream_id, slots, seconds))

    def running_calls(self, running: Iterable[str], *, seconds: float | None = None) -> list[Call]:
        """Return the calls that index running streams by the end of their lease, which is `seconds` from now."""
        shards: dict[str, list[str]] = {}
        for stream_id in running:
            shards.setdefault(running_key(stream_id), []).append(stream_id)
        times = (self.now, self.lease if seconds is None else seconds, self.ttl)
        return [Call(script("running"), (key,), (*times, *ids)) for key, ids in shards.items()]

    def ended_calls(self, ended: Iterable[str]) -> list[Call]:
        """Return the calls that remove ended streams from the index."""
        return [Call(None, ("ZREM", running_key(stream_id), stream_id)) for stream_id in ended]

    def question(self, stream_id: str) -> str:
        """Return a stream's question as stored JSON, "" if there is no such stream."""
        return self.fields(stream_id, "question")["question"]

    def fields(self, stream_id: str, *names: str) -> dict[str, str]:
        """Return fields of a stream's hash, "" for those that are not there."""
        (values,) = self._runner.run([Call(None, ("HMGET", stream_keys(stream_id).hash), names)])
        return {name: value or "" for name, value in zip(names, values, strict=True)}

    def load(self, stream_id: str) -> tuple[dict[str, str], list[Chunk]]:
        """Return a stream's fields and all its chunks, empty if there is no such stream."""
        keys = stream_keys(stream_id)
        calls = [Call(None, ("HGETALL", keys.hash)), Call(None, ("LRANGE", keys.messages), (0, -1))]
        fields, raw = self._runner.run(calls)
        return fields, [Chunk.read(chunk) for chunk in raw]

    def expire_calls(self, stream_id: str, seconds: float) -> list[Call]:
        """Return the calls that make a stream expire in `seconds`; none if they are more than its life."""
        keys = stream_keys(stream_id) if seconds < self.ttl else ()
        return [Call(None, ("PEXPIRE", key), (math.ceil(seconds * 1000),)) for key in keys]

    def remove(self, stream_ids: Sequence[str]) -> None:
        """Remove those of the streams that have ended, before their time."""
        known = [stream_keys(stream_id) for stream_id in stream_ids]
        statuses = self._runner.run([Call(None, ("HGET", keys.hash), ("status",)) for keys in known])
        ended = [keys for keys, status in zip(known, statuses, strict=True) if status not in (None, "processing")]
        self._runner.run([Call(None, ("UNLINK", *keys)) for keys in ended])

    def read_call(self, stream_id: str) -> Call:
        return Call(script("read"), stream_keys(stream_id), (self.now, READ_BYTES))

    def _chunks_call(self, stream_id: str, cursor: int, count: int) -> Call:
        return Call(script("chunks"), stream_keys(stream_id), (self.now, cursor, count, PAGE_BYTES))

    def _text_call(self, stream_id: str, offset: int, limit: int) -> Call:
        return Call(script("text"), stream_keys(stream_id), (offset, limit))

    def _append_call(self, write: Write) -> Call:
        chunks = [arg for chunk in write.chunks for arg in chunk.args()]
        head = (self.now, write.epoch, write.owner, self.lease, write.start, write.index, write.op)
        return Call(
            script("append"),
            stream_keys(write.stream_id),
            (*head, len(write.fields), *flat(write.fields), *chunks),
        )


def flat(fields: Mapping[str, Any]) -> list[Any]:
    return [part for pair in fields.items() for part in pair]


def user_key(bot: str, principal: str) -> str:
    return f"dify_user:{bot}:{principal}"


def leave_call(bot: str, principal: str, stream_id: str) -> Call:
    """Return the call that leaves the slot which `StreamStore.enter_call` took."""
    return Call(None, ("ZREM", user_key(bot, principal), stream_id))


def running_key(stream_id: str) -> str:
    return _shard_key(zlib.crc32(stream_id.encode()) % RUNNING_SHARDS)


def running_keys() -> list[str]:
    """Return the keys of the index of running streams."""
    return [_shard_key(shard) for shard in range(RUNNING_SHARDS)]


def _shard_key(shard: int) -> str:
    return f"dify_streams:running:{shard}"
