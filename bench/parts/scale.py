"""How many people one machine serves: open bubbles that WeCom polls while answers grow, and idle sockets.

One gunicorn with two workers, Redis, the mock Dify, and the clients share all cores. 300 answers with ten deltas a
second grow meanwhile. Each bubble is a running answer of 1 KiB; its polls are evenly spaced, as those of many people
are, and a delay counts from the moment a poll was due.
"""

from __future__ import annotations

from collections.abc import Iterator

from bench.figures import Figure, percentile
from bench.load.live_streams import LiveStreams
from bench.load.socket_clients import Client, Crowd
from bench.parts.sockets import settings
from bench.parts.streams import Streams
from bench.stage.servers import allow_files
from bench.stage.stage import Meter, Stage

#: Bubbles, and seconds between two polls of each.
BUBBLES = {2_500: 1.0, 10_000: 4.0}
#: Answers that grow meanwhile, and seconds of polls.
GROWING, SECONDS = 300, 20.0
#: Idle sockets, and seconds of rest before their memory is read.
SOCKETS, REST = 5_000, 20.0


def measure(scale: float = 1.0) -> Iterator[Figure]:
    """Yield the figures; `scale` multiplies durations and numbers.

    Raises:
        LoadFailed: a poll was not answered, or not with its stream's text.
    """
    sockets = round(SOCKETS * scale)
    allow_files(sockets + 8 * GROWING)
    with Stage(own_core=False) as stage:
        streams = Streams(stage, **settings(sockets))
        meter = Meter(streams.store, streams.replica)
        streams.ask(max(4, round(GROWING * scale)), "growing")
        for count, every in BUBBLES.items():
            bubbles = LiveStreams(str(count), 1024, max(16, round(count * scale)))
            bubbles.write(streams.store.url)
            rate = max(4.0, scale * count / every)
            turn = stage.poll(meter, bubbles, max(1.0, SECONDS * scale), rate=rate)
            about = f"of a poll of {count:,} bubbles, each polled every {every:g} s, while {GROWING} answers grow"
            delays = turn.outcome.delays
            yield Figure(f"scale.{count}.p99", (1000 * percentile(delays, 99),), "ms", f"p99 {about}")
            yield Figure(f"scale.{count}.most", (1000 * max(delays),), "ms", f"slowest {about}", goal="< 1000")
        streams.dify.finish()
        yield _sockets(stage.enter_context(Crowd(streams.replica.port)), streams, sockets, REST * scale)


def _sockets(crowd: Crowd, streams: Streams, count: int, rest: float) -> Figure:
    for number in range(count):
        crowd.join(Client(f"idle-{number}"))
    crowd.listen_for(rest)
    about = f"memory of the two workers with {SOCKETS:,} idle sockets, after all that"
    return Figure("scale.sockets_mib", (streams.replica.pss / 1024,), "MiB", about, goal="< 400")
