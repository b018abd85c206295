"""The memory of a live answer in Redis, and the cost of a poll, with 1,000 to 100,000 live answers in Redis.

Each number of answers has its own Redis and worker, which are polled in turns. An answer is 1 KiB of text so far,
written by the product's store with the fields of a real running answer, and is in the product's indexes.
"""

from __future__ import annotations

import random
import tempfile
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench.figures import Figure
from bench.growing.meter import Meter, Said, settle, table
from bench.load.callbacks import Callbacks
from bench.load.generator import Generator, Job, LoadFailed, generator, send
from bench.load.live_streams import LIVES, prose
from bench.load.turns import production, two_cores, worker
from bench.stage.cheap_dify import CheapDify, cheap_dify
from bench.stage.replicas import RedisServer, Replica, redis_server, wait_for
from config.bots import DEFAULT_BOT
from services.answers.conversation_store import ConversationStore
from services.models import Question
from services.redis.store import Call, ScriptRunner, connect
from services.streams.records import KEPT_BY_REDIS, Chunk, NewStream, timestamp
from services.streams.store import StreamStore, stream_keys

COUNTS = {"1k": 1_000, "10k": 10_000, "100k": 100_000}
#: Bytes of an answer so far, and characters of a delta.
TEXT, DELTA = 1024, 20
#: Answers written in one round trip, and the number of answers among which polls choose at random.
BATCH, POLLED = 500, 5_000
#: Rounds, slices of polls in a round, seconds of a slice, and connections.
ROUNDS, SLICES, SLICE, CONNECTIONS = 3, 8, 0.5, 64
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
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        server, others = two_cores()
        dify = stack.enter_context(cheap_dify(10_000, 1.0, others))
        load = stack.enter_context(generator(others))
        worlds: dict[str, World] = {}
        for which, count in counts.items():
            worlds[which] = stack.enter_context(world(folder, dify, server, others))
            worlds[which].fill(round(count * scale))
        for _ in range(max(1, round(ROUNDS * scale))):
            _round(list(worlds.values()), load, SLICE * scale)
    yield from table("growth.live", COSTS, {which: each.rounds for which, each in worlds.items()})


def _round(worlds: Sequence[World], load: Generator, seconds: float) -> None:
    slices: list[Said] = [defaultdict(list) for _ in worlds]
    for _ in range(SLICES):
        for each, noted in zip(worlds, slices, strict=True):
            each.poll(load, seconds, noted)
    for each, noted in zip(worlds, slices, strict=True):
        settle(each.rounds, noted)


@contextmanager
def world(
    folder: Path, dify: CheapDify, server: Collection[int] | None, others: Collection[int] | None
) -> Iterator[World]:
    """Run a Redis and one worker."""
    with ExitStack() as stack:
        store = stack.enter_context(redis_server(folder, others))
        settings = production(store.url, DIFY_BASE_URL=dify.base_url)
        replica = stack.enter_context(worker(settings, folder, server))
        yield World(store, replica, stack.enter_context(Meter(store, [replica])))


class World:
    """One Redis full of live answers, and one worker that reads them."""

    def __init__(self, store: RedisServer, replica: Replica, meter: Meter) -> None:
        self._store = store
        self._port = replica.port
        self._meter = meter
        self._callbacks = Callbacks()
        self._requests: list[bytes] = []
        self.rounds: Said = defaultdict(list)

    def fill(self, count: int) -> None:
        """Write this many live answers, and record the memory of one."""
        ids = [f"{number:032x}" for number in range(count)]
        with connect(self._store.url, pool_size=1, timeout=TIMEOUT) as client:
            runner = ScriptRunner(client)
            shelf = Shelf(runner, self._asked(StreamStore(runner)))
            before = self._meter.stored().memory
            for first in range(0, count, BATCH):
                runner.run(shelf.calls(ids[first : first + BATCH]))
            self.rounds["redis_bytes_per_stream"].append((self._meter.stored().memory - before) / count)
        polled = random.Random(count).sample(ids, min(count, POLLED))
        self._requests = [self._callbacks.refresh(stream, PERSON) for stream in polled]

    def _asked(self, streams: StreamStore) -> Mapping[str, str]:
        """Let the product answer a question; return the fields of the running answer."""
        question = self._callbacks.question("年假怎么申请？", PERSON)
        (body,) = send(Job(self._port, [question], 0.1, connections=1, rate=5.0, samples=1)).bodies.values()
        stream = self._callbacks.opened(body)["id"]
        wait_for(lambda: bool(streams.load(stream)[1]), "a first delta", TIMEOUT)
        return streams.load(stream)[0]

    def poll(self, load: Generator, seconds: float, slices: Said) -> None:
        """Poll random answers for one slice, and record the cost of a poll."""
        before = self._meter.cpu()
        outcome = load.run(Job(self._port, self._requests, seconds, CONNECTIONS, samples=1))
        spent, polls = self._meter.cpu() - before, len(outcome.delays)
        shown = self._callbacks.opened(outcome.bodies[0])
        if shown["finish"] or shown["content"] != prose(TEXT):
            raise LoadFailed(f"not the text: {str(shown)[:200]}")
        slices["poll_cpu"].append(1e6 * spent.workers / polls)
        slices["redis_cpu_per_poll"].append(1e6 * spent.redis / polls)


class Shelf:
    """Creates live answers from the fields of one: with the same person and the same text."""

    def __init__(self, runner: ScriptRunner, fields: Mapping[str, str]) -> None:
        self._streams = StreamStore(runner, ttl=LIVES, lease=LIVES, max_seconds=LIVES)
        self._turns = ConversationStore(runner, secret=b"bench", ttl=LIVES, queue_ttl=LIVES)
        own = {name: value for name, value in fields.items() if name not in KEPT_BY_REDIS}
        text = prose(TEXT)
        chunks = [Chunk(text[start : start + DELTA], timestamp()) for start in range(0, len(text), DELTA)]
        # Built once: the answers differ only in their keys.
        self._open = self._streams.open_call(NewStream("", fields["owner"], own, chunks, frame_seconds=LIVES))

    def calls(self, ids: Sequence[str]) -> list[Call]:
        """Return the calls that create these answers, each in its own person's and conversation's queues."""
        calls = self._streams.running_calls(ids)
        for stream in ids:
            calls.append(self._open._replace(keys=stream_keys(stream)))
            calls.append(self._streams.enter_call(DEFAULT_BOT, stream[-8:], stream, slots=3, seconds=LIVES))
            conversation = self._turns.key("dify:bench", Question("", "wecom", DEFAULT_BOT, stream[-8:]))
            calls.append(self._turns.turn_call(conversation, stream))
        return calls
