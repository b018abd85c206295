"""Lists the streams in Redis for a person: user, channel, age, and the state in words."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import redis

from services.redis.store import redis_errors
from services.streams.store import stream_keys

#: The hash fields read of each stream, and the number of streams per pipeline.
FIELDS = ("status", "created_time", "error_code", "owner", "lease", "waiting", "asks", "takeovers", "question")
AT_ONCE = 200
STATUSES = ("processing", "completed", "error", "cancelled")
NOT_KNOWN = "-"


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


def rows_of(server: redis.Redis, *, lease: float) -> Iterator[StreamRow]:
    """Yield every stream of a server. `lease` is the length of an owner's lease in seconds."""
    with redis_errors():
        seconds, micros = server.time()
        ids = [str(key).removeprefix("dify_stream:") for key in server.scan_iter("dify_stream:*", count=1000)]
    for some in (ids[at : at + AT_ONCE] for at in range(0, len(ids), AT_ONCE)):
        with redis_errors(), server.pipeline(transaction=False) as pipe:
            for stream_id in some:
                keys = stream_keys(stream_id)
                pipe.hmget(keys.hash, FIELDS)
                pipe.strlen(keys.text)
            replies = pipe.execute()
        for stream_id, values, size in zip(some, replies[::2], replies[1::2], strict=True):
            fields = dict(zip(FIELDS, (value or "" for value in values), strict=True))
            if fields["status"]:
                yield _row(stream_id, fields, size, now=seconds + micros / 1e6, lease=lease)


def _row(stream_id: str, fields: Mapping[str, str], size: int, *, now: float, lease: float) -> StreamRow:
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


def table(rows: Sequence[StreamRow]) -> Iterator[str]:
    """Yield a header and a line for each row."""
    head = ("STREAM", "AGE", "CHANNEL", "BOT", "PERSON", "BYTES", "OWNER", "STATE")
    cells = [
        (row.stream, duration(row.age), row.channel, row.bot, row.person, str(row.bytes), row.owner, row.state)
        for row in rows
    ]
    widths = [max(map(len, column)) for column in zip(head, *cells, strict=True)]
    for line in (head, *cells):
        yield "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()


def duration(seconds: float) -> str:
    """Format seconds: 12 s, 5 min, 2 h 10 min."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(int(seconds // 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


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
