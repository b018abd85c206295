"""Lists the streams in Redis for a person: user, channel, age, and the state in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import redis

from services.redis.store import redis_errors
from services.streams.listing import FIELDS, StreamRow, fields_of, row_of
from services.streams.store import stream_keys

#: The number of streams per pipeline.
AT_ONCE = 200
STATUSES = ("processing", "completed", "error", "cancelled")


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
            fields = fields_of(values)
            if fields["status"]:
                yield row_of(stream_id, fields, size, now=seconds + micros / 1e6, lease=lease)


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
