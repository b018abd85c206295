"""The cost of a poll of a running answer, compared with the floor (bench/load/floor.py).

One worker of each. Both read the same streams with the same callbacks, in turns: floor, product, floor, product.
Figures are of the product unless they say otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator
from operator import attrgetter

from bench.figures import Figure, figure, percentile, ratios
from bench.load.generator import CONNECTIONS
from bench.load.live_streams import LiveStreams
from bench.stage.servers import FLOOR
from bench.stage.stage import Meter, Stage, Turn

#: The running answers that are polled: the maximum of one replica.
STREAMS = 1000
#: Bytes of the streams' texts, by their name in figures.
SIZES = {"1k": 1024, "16k": 16 * 1024}
#: Number and seconds of rounds: many short ones, so that other load on the machine affects few of them.
ROUNDS, ROUND = 20, 1.0
#: Seconds of warm-up before the rounds.
WARM_UP = 1.5
#: Polls a second and seconds of the run at a fixed rate.
PACE, PACED = 1000.0, 10.0


def measure(scale: float = 1.0) -> Iterator[Figure]:
    """Yield the figures; `scale` multiplies all durations. Raises: LoadFailed: a reply was wrong."""
    shorter = min(1.0, 3 * scale)
    with Stage() as stage:
        store = stage.redis()
        replica = stage.replica(store)
        floor, product = Meter(store, stage.replica(store, config=FLOOR)), Meter(store, replica)
        all_streams = {name: LiveStreams(name, size, STREAMS) for name, size in SIZES.items()}
        for name, streams in all_streams.items():
            streams.write(store.url)
            for meter in (floor, product):
                stage.poll(meter, streams, WARM_UP * shorter)
            rounds = [
                (stage.poll(floor, streams, ROUND * shorter), stage.poll(product, streams, ROUND * shorter))
                for _ in range(max(3, round(ROUNDS * scale)))
            ]
            yield from _compared(name, [one for one, _ in rounds], [one for _, one in rounds], len(streams.polls()[0]))
        delays = stage.poll(product, all_streams["1k"], PACED * shorter, rate=PACE).outcome.delays
        for percent, goal in ((50, ""), (99, "< 50")):
            delay, about = 1000 * percentile(delays, percent), f"p{percent} of a poll at {PACE:g} a second"
            yield Figure(f"polls.p{percent}", (delay,), "ms", about, goal=goal)
        yield Figure("polls.rss", (replica.rss / 1024,), "MiB", "memory of the worker after all that")


def _compared(name: str, floor: list[Turn], product: list[Turn], request: int) -> Iterator[Figure]:
    """Yield the figures of one size of text; `request` is the bytes of a poll's request."""
    size, rate, cpu = f"{name.replace('k', ' KiB')} of text", attrgetter("outcome.rate"), attrgetter("cpu")
    least = figure(f"polls.floor.{name}", floor, rate, "polls/s", f"bare WSGI function, {size}")
    ours = figure(f"polls.product.{name}", product, rate, "polls/s", f"product, {size}", yardstick=least.name)
    floor_cpu = figure(f"polls.floor_cpu.{name}", floor, cpu, "µs", f"CPU of the floor's worker a poll, {size}")
    yield from (least, ours)
    yield ratios(f"polls.ratio.{name}", ours.rounds, least.rounds, "product / floor, round by round", goal=">= 1.0")
    yield floor_cpu
    yield figure(f"polls.cpu.{name}", product, cpu, "µs", f"CPU of the worker a poll, {size}", yardstick=floor_cpu.name)
    yield figure(f"polls.redis_cpu.{name}", product, attrgetter("redis_cpu"), "µs", f"CPU of Redis a poll, {size}")
    yield figure(f"polls.redis_net.{name}", product, attrgetter("redis_net"), "B", f"to and from Redis a poll, {size}")
    about = f"to and from WeCom a poll, {size}"
    yield figure(f"polls.bytes.{name}", product, lambda one: request + one.outcome.received / one.count, "B", about)
    if name == "1k":
        about = f"mean of a poll, {CONNECTIONS} at a time"
        yield figure("polls.mean", product, lambda one: 1000 * sum(one.outcome.delays) / one.count, "ms", about)
        about = "of a core that the load generator takes"
        yield figure("polls.load_share", [*floor, *product], lambda one: one.outcome.share, "%", about)
