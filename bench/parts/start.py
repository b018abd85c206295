"""A replica's time from exec to ready, and the cost of an idle worker.

Every other start is one of the floor (bench/load/floor.py): interpreter, gevent, gunicorn and settings without the app.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from bench.figures import Figure
from bench.stage.servers import FLOOR, PRODUCT
from bench.stage.stage import Meter, Stage

#: Starts of each, and seconds of rest until the after-effects of a start have ended.
STARTS, REST = 7, 3.0
#: Seconds during which an idle worker's CPU is counted.
IDLE = 10.0


def measure(scale: float = 1.0) -> Iterator[Figure]:
    """Yield the figures; `scale` multiplies starts and rests. Raises: TimeoutError: a replica was not ready in time."""
    with Stage(own_core=False) as stage:
        store = stage.redis()
        # The first start compiles the modules' bytecode.
        first = stage.replica(store)
        time.sleep(REST * scale)
        idle = Meter(store, first).idle(IDLE * scale)
        first.kill()
        #: Seconds of each start, and the worker's MiB after a rest: all, and its part where the master shares them.
        starts: dict[Path, list[tuple[float, float, float]]] = {FLOOR: [], PRODUCT: []}
        for config in [FLOOR, PRODUCT] * max(2, round(STARTS * scale)):
            replica = stage.replica(store, config=config)
            time.sleep(REST * scale)
            starts[config].append((replica.start_seconds, replica.rss / 1024, replica.pss / 1024))
            replica.kill()
    (floor, floor_rss, _), (ready, rss, pss) = (tuple(zip(*starts[config], strict=True)) for config in (FLOOR, PRODUCT))
    yield Figure("start.floor", floor, "s", "exec to 200 of the floor")
    yield Figure("start.ready", ready, "s", "exec to /readyz 200, one worker", yardstick="start.floor")
    yield Figure("start.floor_rss", floor_rss, "MiB", "memory of the floor's idle worker")
    yield Figure("start.worker_rss", rss, "MiB", "memory of an idle worker", yardstick="start.floor_rss")
    yield Figure(
        "start.worker_pss", pss, "MiB", "the same, with its part of what it shares with the master", goal="<= 100"
    )
    yield Figure("start.idle_cpu", (100 * idle.workers / idle.seconds,), "%", "of a core that an idle worker takes")
