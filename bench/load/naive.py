"""The yardsticks of streams: a simple program that processes one delta after another, and parsing alone."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence

import redis
import requests

#: Deltas of the answer, and seconds between two of them: long enough that each arrives separately.
PIECES, EVERY = 2000, 0.001
#: How often the same bytes are parsed.
PASSES = 20
_KEY = "bench:naive"


class Yardsticks:
    """Measures both by the CPU time of this process, so nothing else may run in it."""

    def __init__(self, dify_url: str, redis_url: str, pieces: int) -> None:
        self._url = f"{dify_url}/v1/chat-messages"
        self._client = redis.Redis.from_url(redis_url)
        self._pieces = pieces
        with self._ask() as reply:
            #: The bytes of each read, for a reader that keeps up.
            self._reads = [event + b"\n\n" for event in reply.content.split(b"\n\n")[:-1]]

    def naive(self) -> float:
        """Return microseconds of CPU per delta of `requests.iter_lines`, `json.loads` and one RPUSH for each."""
        self._client.delete(_KEY)
        began = time.process_time()
        with self._ask() as reply:
            for line in reply.iter_lines():
                if line:
                    event = json.loads(line.removeprefix(b"data: "))
                    if event["event"] == "message":
                        self._client.rpush(_KEY, event["answer"])
        return 1e6 * (time.process_time() - began) / self._client.llen(_KEY)

    def parse(self) -> float:
        """Return microseconds of CPU per delta for parsing bytes that have already been read."""
        began = time.process_time()
        for _ in range(PASSES):
            parse(self._reads)
        return 1e6 * (time.process_time() - began) / (PASSES * self._pieces)

    def _ask(self) -> requests.Response:
        question = {"query": f"年假怎么申请 *{self._pieces}", "user": "bench", "response_mode": "streaming"}
        return requests.post(self._url, json=question, stream=True, timeout=60)


def parse(reads: Sequence[bytes]) -> str:
    """Parse the answer from Dify's bytes with the minimum of work: split, load, join."""
    tail = b""
    answer: list[str] = []
    for read in reads:
        *events, tail = (tail + read).split(b"\n\n")
        for text in events:
            event = json.loads(text.removeprefix(b"data: "))
            if event["event"] == "message":
                answer.append(event["answer"])
    return "".join(answer)
