"""The ended streams in Redis that the log and the usage have not counted yet.

    {dify_log}:queue     sorted set of "<stream id> <end>" by the time they are due; at most `MOST_WAITING`; a day
                         from the last stream
    {dify_log}:dropped   string, the number of streams that found no room since it was last read; a day

The calls that release what a question has taken up also queue its stream, so an end is queued in the round trip that
there was before, and the sweep queues the end of a killed owner. All replicas share the queue. A stream is read while
`STREAM_TTL` lasts; an entry whose stream has expired is lost, and counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from services.errors import StoreUnavailable
from services.redis.store import Call, ScriptRunner, script
from services.streams.store import stream_keys

QUEUE, DROPPED = "{dify_log}:queue", "{dify_log}:dropped"
#: Streams in the queue: about 13 MB of Redis's memory, and an hour without SQL at 27 questions per second.
MOST_WAITING = 100_000
#: Seconds that the keys live without another stream.
KEPT_SECONDS = 86_400
#: Seconds for which claimed entries are no other replica's: the rows of a killed replica come that much later. A
#: transaction may take longer, because the stream's row in SQL decides who counts it.
LEASE = 10.0
#: The fields of a stream's hash that are read, after those that lua/usage_read.lua names itself.
FIELDS = (
    *("error_code", "question", "user_info", "created_time", "provider", "message_id", "conversation_id"),
    *("task_id", "run_id", "usage", "reported", "asks", "takeovers", "owner", "mock", "app"),
)


class ClaimedEntries(NamedTuple):
    """The reply of lua/usage_claim.lua."""

    #: Seconds since 1970 by Redis's clock.
    now: float
    #: Streams in the queue, these included.
    waiting: int
    #: Streams that found no room in the queue, each reported once.
    dropped: int
    entries: Sequence[str]


@dataclass(frozen=True, slots=True)
class StoredStream:
    """What Redis has of a stream."""

    status: str
    #: Of `FIELDS`; "" for one that is not there.
    fields: dict[str, str]
    #: Times of the first text and of the end, as in a chunk; "" if unknown.
    first_text: str
    end: str
    sources: int
    #: Bytes of the whole text, and the beginning that was asked for.
    size: int
    text: str

    @classmethod
    def from_reply(cls, reply: Sequence[Any]) -> StoredStream:
        (status, _, *values), *rest = reply
        return cls(status, dict(zip(FIELDS, values, strict=True)), *rest)


class EndedStore:
    """Owns the keys above. Every method is one round trip, and raises `StoreUnavailable` when Redis is away."""

    def __init__(
        self,
        runner: ScriptRunner,
        *,
        queues: bool,
        most_waiting: int = MOST_WAITING,
        lease: float = LEASE,
        now: str = "",
    ) -> None:
        """Without `queues` nothing is queued: there is no database. `now` is the time for scripts, "" for Redis's."""
        self._runner = runner
        self._queues = queues
        self._most_waiting = most_waiting
        self._lease = lease
        self.now = now

    def add_calls(self, stream_id: str) -> tuple[Call, ...]:
        """Return the call that queues an ended stream; none without a database."""
        args = (self.now, stream_id, self._most_waiting, KEPT_SECONDS)
        return (Call(script("usage_add"), (QUEUE, DROPPED), args),) if self._queues else ()

    def claim(self, most: int) -> ClaimedEntries:
        """Claim the entries that are due first; they are due again after the lease."""
        call = Call(script("usage_claim"), (QUEUE, DROPPED), (self.now, self._lease, most))
        now, waiting, dropped, *entries = self._runner.run([call])[0]
        return ClaimedEntries(float(now), waiting, dropped, entries)

    def read(self, stream_ids: Sequence[str], *, text_bytes: int) -> list[StoredStream | StoreUnavailable | None]:
        """Return each stream; None for one that has expired, an error if its node is away.

        Of its text at most the first `text_bytes` are read.
        """
        calls = [Call(script("usage_read"), stream_keys(each), (text_bytes, *FIELDS)) for each in stream_ids]
        replies = self._runner.run_each(calls) if calls else []
        return [
            reply if isinstance(reply, StoreUnavailable) or not reply else StoredStream.from_reply(reply)
            for reply in replies
        ]

    def settle(self, done: Sequence[str], again: Sequence[str] = (), *, delay: float = 0.0) -> None:
        """Remove the entries `done`; those of `again` are due in `delay` seconds."""
        head = (self.now, delay, len(done))
        self._runner.run([Call(script("usage_settle"), (QUEUE,), (*head, *done, *again))])
