"""One stream as a row for administrators: user, channel, age, and the state in words, without any text of people."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from services.redis.store import Call, ScriptRunner
from services.streams.store import running_keys, stream_keys

#: The hash fields read of each stream.
FIELDS = ("status", "created_time", "error_code", "owner", "lease", "waiting", "asks", "takeovers", "question")
NOT_KNOWN = "-"
#: Running streams that are read of each part of the index: with more, the list is a sample.
PER_SHARD = 64


@dataclass(frozen=True, slots=True)
class StreamRow:
    """One stream, without the text of questions and answers."""

    stream: str
    #: The question's principal: WeCom's userid, "key:<fingerprint>" or "user:<user_code>".
    person: str
    channel: str
    bot: str
    created_time: str
    #: Seconds since the question.
    age: float
    #: Bytes of the answer so far.
    bytes: int
    status: str
    #: The status in words, with details.
    state: str
    error_code: str
    owner: str
    #: Seconds since the owner last renewed its lease, if the lease has expired; 0 while it is valid.
    silent: float
    takeovers: int


class RunningStreams:
    """Lists the answers in progress on all replicas, by the index of running streams."""

    def __init__(self, runner: ScriptRunner, *, lease: float, clock: Callable[[], float] = time.time) -> None:
        self._runner = runner
        self._lease = lease
        self._clock = clock

    def count(self) -> int:
        """Return how many running streams are indexed; one round trip.

        Raises:
            StoreUnavailable: Redis is away.
        """
        return sum(self._runner.run([Call(None, ("ZCARD", key)) for key in running_keys()]))

    def rows(self, most: int) -> tuple[list[StreamRow], int]:
        """Return the newest running streams, and how many are indexed; three round trips.

        Raises:
            StoreUnavailable: Redis is away.
        """
        keys = running_keys()
        counts = [Call(None, ("ZCARD", key)) for key in keys]
        replies = self._runner.run([*counts, *(Call(None, ("ZRANGE", key), (0, PER_SHARD - 1)) for key in keys)])
        ids = [stream_id for found in replies[len(keys) :] for stream_id in found]
        return self._newest(ids, most), sum(replies[: len(keys)])

    def _newest(self, stream_ids: Sequence[str], most: int) -> list[StreamRow]:
        calls = [Call(None, ("HMGET", stream_keys(each).hash), FIELDS) for each in stream_ids]
        read = zip(stream_ids, map(fields_of, self._runner.run(calls)), strict=True) if calls else ()
        found = [(stream_id, fields) for stream_id, fields in read if fields["status"] == "processing"]
        found = sorted(found, key=lambda each: each[1]["created_time"], reverse=True)[:most]
        lengths = [Call(None, ("STRLEN", stream_keys(stream_id).text)) for stream_id, _ in found]
        sizes = self._runner.run(lengths) if lengths else []
        return [
            row_of(stream_id, fields, size, now=self._clock(), lease=self._lease)
            for (stream_id, fields), size in zip(found, sizes, strict=True)
        ]


def fields_of(values: Sequence[str | None]) -> dict[str, str]:
    """Return the values of `FIELDS` by their names; "" for those that a stream does not have."""
    return dict(zip(FIELDS, (value or "" for value in values), strict=True))


def row_of(stream_id: str, fields: Mapping[str, str], size: int, *, now: float, lease: float) -> StreamRow:
    question = _object(fields["question"])
    silent = _silence(fields, now, lease)
    return StreamRow(
        stream_id,
        _shown(question.get("principal")),
        _shown(question.get("channel")),
        _shown(question.get("bot")),
        fields["created_time"],
        round(_age(fields["created_time"], now), 1),
        size,
        fields["status"],
        _state(fields, silent),
        fields["error_code"],
        fields["owner"],
        round(silent, 1),
        int(fields["takeovers"] or 0),
    )


def _silence(fields: Mapping[str, str], now: float, lease: float) -> float:
    ends = float(fields["lease"] or 0)
    return now - ends + lease if fields["status"] == "processing" and 0 < ends <= now else 0.0


def _state(fields: Mapping[str, str], silent: float) -> str:
    """Return the state of a stream in words."""
    if fields["status"] != "processing":
        return f"error: {fields['error_code'] or 'unknown'}" if fields["status"] == "error" else fields["status"]
    if float(fields["lease"] or 0) == 0:
        return "left by its owner, waits for another"
    if silent:
        return f"owner silent for {silent:.0f} s"
    if fields["waiting"] == "1":
        return "waits for an earlier question"
    taken = int(fields["takeovers"] or 0)
    return f"being answered, taken over {taken} time{'s' if taken > 1 else ''}" if taken else "being answered"


def _age(created: str, now: float) -> float:
    with suppress(ValueError):
        return max(0.0, now - datetime.fromisoformat(created).timestamp())
    return 0.0


def _object(written: str) -> Mapping[str, Any]:
    with suppress(ValueError, RecursionError):
        value = json.loads(written or "{}")
        if isinstance(value, dict):
            return value
    return {}


def _shown(value: Any) -> str:
    """Return a name as one printable word."""
    text = value if isinstance(value, str) else ""
    return "".join(each if each.isprintable() and each != " " else "?" for each in text) or NOT_KNOWN
