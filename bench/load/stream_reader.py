"""Measures when a delta becomes readable: a separate process reads the tails of some streams every few milliseconds.

A delay is the time from the delta's own time stamp to the reply of the read that shows it. It is never too short, and
too long by at most `TICK` and one round trip to Redis.
"""

from __future__ import annotations

import json
import multiprocessing
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

import redis

from bench.load.socket_clients import stamps
from bench.stage.replicas import START_SECONDS
from services.streams.store import stream_keys

#: Seconds between two reads.
TICK = 0.005
#: Timeout of a read, in seconds.
TIMEOUT = 30.0


class Reader:
    """The reading process. It runs one watch at a time."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe

    def watch(self, redis_url: str, streams: Sequence[str], seconds: float) -> list[float]:
        """Read these streams for this many seconds; return the delay of each delta that arrived, in seconds.

        Raises:
            TimeoutError: the process does not answer.
        """
        self._pipe.send((redis_url, streams, seconds))
        if not self._pipe.poll(seconds + TIMEOUT):
            raise TimeoutError("the reader does not come back")
        delays: list[float] = self._pipe.recv()
        return delays


@contextmanager
def reader() -> Iterator[Reader]:
    """Run a reader."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs,), daemon=True)
    process.start()
    theirs.close()
    try:
        if not ours.poll(START_SECONDS):
            raise TimeoutError("the reader did not start")
        ours.recv()
        yield Reader(ours)
    finally:
        ours.close()
        process.terminate()
        process.join(10)


def _serve(pipe: Connection) -> None:
    pipe.send("ready")
    while True:
        try:
            pipe.send(watch(*pipe.recv()))
        except EOFError:
            return


class _Tail:
    """The unread part of one stream."""

    def __init__(self, connection: Any, key: str) -> None:
        self._connection = connection
        self._key = key
        connection.send_command("LLEN", key)
        self._seen = 0
        self.see(int(connection.read_response()))

    def see(self, count: int) -> None:
        self._seen += count
        #: The Redis command, packed once for all reads.
        self.command = b"".join(self._connection.pack_command("LRANGE", self._key, self._seen, -1))


def watch(redis_url: str, streams: Sequence[str], seconds: float) -> list[float]:
    """Read in this process; see `Reader.watch`."""
    delays: list[float] = []
    with redis.Redis.from_url(redis_url, socket_timeout=TIMEOUT) as client:
        # A pipeline would pack every command again for each read, which costs three times as much.
        pool: Any = client.connection_pool
        connection = pool.get_connection()
        tails = [_Tail(connection, stream_keys(stream).messages) for stream in streams]
        due = time.monotonic()
        end = due + seconds
        while due < end:
            delays += _look(connection, tails)
            due = max(due + TICK, time.monotonic())
            time.sleep(max(0.0, due - time.monotonic()))
        pool.release(connection)
    return delays


def _look(connection: Any, tails: Sequence[_Tail]) -> Iterator[float]:
    connection.send_packed_command([b"".join(tail.command for tail in tails)])
    for tail in tails:
        entries = connection.read_response()
        now = time.time()
        if entries:
            tail.see(len(entries))
            for entry in entries:
                yield from (now - sent for sent in stamps(json.loads(entry)["content"]))
