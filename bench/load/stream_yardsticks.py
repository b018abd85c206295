"""The yardsticks of streams: a simple program that processes one delta after another, and parsing alone."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import redis
import requests

from bench.stage.cheap_dify import cheap_dify

#: Deltas of the answer, and seconds between two of them: long enough that each arrives separately.
PIECES, EVERY = 2000, 0.001
#: How often the same bytes are parsed.
PASSES = 20
_KEY = "bench:naive"


class Yardsticks:
    """Measures both yardsticks by the CPU time of this process, so nothing else may run in it."""

    def __init__(self, base_url: str, client: redis.Redis, pieces: int) -> None:
        self._base_url = base_url
        self._client = client
        self._pieces = pieces
        with self._asked() as reply:
            body = reply.content
        #: The bytes of each read, for a reader that keeps up.
        self._reads = [event + b"\n\n" for event in body.split(b"\n\n")[:-1]]

    def naive(self) -> float:
        """Return microseconds of CPU per delta of `requests.iter_lines`, `json.loads` and one RPUSH for each."""
        self._client.delete(_KEY)
        began = time.process_time()
        with self._asked() as reply:
            for line in reply.iter_lines():
                if line:
                    event = json.loads(line.removeprefix(b"data: "))
                    if event["event"] == "message":
                        self._client.rpush(_KEY, event["answer"])
        spent = time.process_time() - began
        return 1e6 * spent / self._client.llen(_KEY)

    def parse(self) -> float:
        """Return microseconds of CPU per delta for parsing bytes that have already been read."""
        began = time.process_time()
        for _ in range(PASSES):
            parse(self._reads)
        return 1e6 * (time.process_time() - began) / (PASSES * self._pieces)

    @contextmanager
    def _asked(self) -> Iterator[requests.Response]:
        asked = {"query": f"年假怎么申请 *{self._pieces}", "user": "bench", "inputs": {}, "response_mode": "streaming"}
        with requests.post(f"{self._base_url}/v1/chat-messages", json=asked, stream=True, timeout=60) as reply:
            yield reply


@contextmanager
def yardsticks(redis_url: str, scale: float) -> Iterator[Yardsticks]:
    """Yield the yardsticks, with their own Dify that streams one answer faster."""
    with cheap_dify(PIECES, EVERY) as dify, redis.Redis.from_url(redis_url) as client:
        yield Yardsticks(dify.base_url, client, max(100, round(PIECES * scale)))


def parse(reads: Sequence[bytes]) -> str:
    """Parse the answer from Dify's bytes with the minimum of work: split, load, join."""
    tail = b""
    said: list[str] = []
    for read in reads:
        *whole, tail = (tail + read).split(b"\n\n")
        for line in whole:
            event = json.loads(line.removeprefix(b"data: "))
            if event["event"] == "message":
                said.append(event["answer"])
    return "".join(said)
