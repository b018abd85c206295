"""Measures when a delta becomes readable: the tails of some streams are read every few milliseconds.

A delay is the time from the delta's own time to the reply of the read that shows it. It is never too short, and too
long by at most `TICK` and one round trip to Redis.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from typing import Any

import redis

from bench.stage.dify import sent_times
from services.streams.store import stream_keys

#: Seconds between two reads, and the timeout of a read.
TICK, TIMEOUT = 0.005, 30.0


def watch(redis_url: str, streams: Sequence[str], seconds: float) -> list[float]:
    """Read these streams for this many seconds; return the delay of each delta that arrived, in seconds."""
    delays: list[float] = []
    with redis.Redis.from_url(redis_url, socket_timeout=TIMEOUT) as client:
        # A pipeline would pack every command again for each read, which costs three times as much.
        pool: Any = client.connection_pool
        connection = pool.get_connection()
        tails = [_Tail(connection, stream_keys(stream).messages) for stream in streams]
        due = time.monotonic()
        end = due + seconds
        while due < end:
            delays += _read(connection, tails)
            due = max(due + TICK, time.monotonic())
            time.sleep(max(0.0, due - time.monotonic()))
        pool.release(connection)
    return delays


class _Tail:
    """The unread part of one stream."""

    def __init__(self, connection: Any, key: str) -> None:
        self._connection = connection
        self._key = key
        connection.send_command("LLEN", key)
        self._read = 0
        self.advance(int(connection.read_response()))

    def advance(self, count: int) -> None:
        self._read += count
        #: The Redis command, packed once for all reads.
        self.command = b"".join(self._connection.pack_command("LRANGE", self._key, self._read, -1))


def _read(connection: Any, tails: Sequence[_Tail]) -> Iterator[float]:
    connection.send_packed_command([b"".join(tail.command for tail in tails)])
    for tail in tails:
        entries = connection.read_response()
        now = time.time()
        if entries:
            tail.advance(len(entries))
            for entry in entries:
                yield from (now - sent for sent in sent_times(json.loads(entry)["content"]))
