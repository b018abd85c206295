"""The memory of a live answer in Redis, and the cost of a poll, with 1,000 to 100,000 live answers in Redis.

Each number of answers has its own Redis and worker, which are polled in turns. An answer is 1 KiB of text so far,
written by the product's store with the fields of a real running answer, and is in the product's indexes.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence

from bench.figures import Figure
from bench.load.callbacks import Callbacks
from bench.load.generator import LoadFailed
from bench.load.live_streams import LIFETIME, in_deltas, prose
from bench.parts.growth import Costs, table
from bench.stage.dify import MockDify
from bench.stage.servers import wait_for
from bench.stage.stage import Meter, Stage
from config.bots import DEFAULT_BOT
from services.conversations.store import ConversationStore
from services.models import Question
from services.redis.store import Call, ScriptRunner, connect
from services.streams.records import KEPT_BY_REDIS, NewStream
from services.streams.store import StreamStore, stream_keys

COUNTS = {"1k": 1_000, "10k": 10_000, "100k": 100_000}
#: Bytes of an answer so far.
TEXT = 1024
#: Answers written in one round trip, and the number of answers among which polls choose at random.
BATCH, POLLED = 500, 5_000
#: Rounds, slices of polls in a round, and seconds of a slice.
ROUNDS, SLICES, SLICE = 3, 8, 0.5
#: The shortest slice in seconds: at least one poll has to be answered in it.
SHORTEST = 0.2
#: Timeout for the product's first delta, in seconds.
TIMEOUT = 30.0
#: The user id of all questions.
PERSON = "u0"
COSTS = {
    "redis_bytes_per_stream": ("B", "kept by Redis per live answer: 1 KiB of text, its list, fields and indexes"),
    "poll_cpu": ("µs", "CPU of the worker per poll"),
    "redis_cpu_per_poll": ("µs", "CPU of Redis per poll"),
}


def measure(scale: float = 1.0, counts: Mapping[str, int] = COUNTS) -> Iterator[Figure]:
    """Yield the figures for these numbers of answers; `scale` multiplies answers, slices and rounds.

    Raises:
        LoadFailed: a poll was not answered with the text.
    """
    rounds = {name: Costs() for name in counts}
    with Stage() as stage:
        dify = stage.dify(10_000, 1.0)
        crowds = {name: Crowd(stage, dify) for name in counts}
        for name, count in counts.items():
            rounds[name].add(redis_bytes_per_stream=crowds[name].fill(round(count * scale)))
        for _ in range(max(1, round(ROUNDS * scale))):
            slices = {name: Costs() for name in counts}
            for name in [*counts] * SLICES:
                crowds[name].poll(max(SHORTEST, SLICE * scale), slices[name])
            for name in counts:
                rounds[name].end_round(slices[name])
    yield from table("growth.live", COSTS, rounds)


class Crowd:
    """One Redis full of live answers, and one worker that reads them."""

    def __init__(self, stage: Stage, dify: MockDify) -> None:
        self._stage = stage
        self._store = stage.redis()
        self._meter = Meter(self._store, stage.replica(self._store, dify))
        self._callbacks = Callbacks()
        self._requests: list[bytes] = []

    def fill(self, count: int) -> float:
        """Write this many live answers; return the bytes of one in Redis."""
        ids = [f"{number:032x}" for number in range(count)]
        with connect(self._store.url, pool_size=1, timeout=TIMEOUT) as client:
            runner = ScriptRunner(client)
            fields = self._running_answer(StreamStore(runner))
            before = self._meter.memory()
            for first in range(0, count, BATCH):
                runner.run(creation(runner, fields, ids[first : first + BATCH]))
            stored = self._meter.memory() - before
        polled = random.Random(count).sample(ids, min(count, POLLED))
        self._requests = [self._callbacks.refresh(stream, PERSON) for stream in polled]
        return stored / count

    def _running_answer(self, streams: StreamStore) -> Mapping[str, str]:
        """Let the product answer a question; return the fields of the running answer."""
        question = self._callbacks.question("年假怎么申请？", PERSON)
        turn = self._stage.turn(self._meter, [question], connections=1, samples=1)
        stream = self._callbacks.opened(turn.outcome.bodies[0])["id"]
        wait_for(lambda: bool(streams.load(stream)[1]), "a first delta", TIMEOUT)
        return streams.load(stream)[0]

    def poll(self, seconds: float, costs: Costs) -> None:
        """Poll random answers for one slice, and record the cost of a poll."""
        turn = self._stage.turn(self._meter, self._requests, seconds, samples=1)
        shown = self._callbacks.opened(turn.outcome.bodies[0])
        if shown["finish"] or shown["content"] != prose(TEXT):
            raise LoadFailed(f"not the text: {str(shown)[:200]}")
        costs.add(poll_cpu=turn.cpu, redis_cpu_per_poll=turn.redis_cpu)


def creation(runner: ScriptRunner, fields: Mapping[str, str], ids: Sequence[str]) -> list[Call]:
    """Return the calls that create live answers with these fields, each of its own person and conversation."""
    streams = StreamStore(runner, ttl=LIFETIME, lease=LIFETIME, max_seconds=LIFETIME)
    turns = ConversationStore(runner, secret=b"bench", ttl=LIFETIME, queue_ttl=LIFETIME)
    own = {name: value for name, value in fields.items() if name not in KEPT_BY_REDIS}
    # Built once: the answers differ only in their keys.
    opening = streams.open_call(NewStream("", fields["owner"], own, in_deltas(prose(TEXT)), frame_seconds=LIFETIME))
    calls = streams.running_calls(ids)
    for stream in ids:
        person = stream[-8:]
        conversation = turns.key("dify:bench", Question("", "wecom", DEFAULT_BOT, person))
        calls.append(opening._replace(keys=stream_keys(stream)))
        calls.append(streams.enter_call(DEFAULT_BOT, person, stream, slots=3, seconds=LIFETIME))
        calls.append(turns.turn_call(conversation, stream))
    return calls
