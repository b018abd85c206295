"""`python -m bench.start`: a replica's time from exec to ready, and the cost of an idle worker.

Every other start is one of the floor (bench/load/floor.py): interpreter, gevent, gunicorn and settings without the app.
"""

from __future__ import annotations

import argparse
import socket
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from bench.figures import Figure
from bench.growing.meter import Meter
from bench.load.turns import FLOOR, PRODUCT, production
from bench.report import show
from bench.stage.replicas import START_SECONDS, Replica, redis_server

#: Starts of each, and seconds of rest until the after-effects of a start have ended.
STARTS, REST = 7, 3.0
#: Seconds during which an idle worker's CPU is counted.
IDLE = 10.0
#: Seconds between two checks of whether the server answers.
LOOK = 0.005
_ASK = b"GET /readyz HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n"


def measure(scale: float = 1.0) -> Iterator[Figure]:
    """Yield the figures; `scale` multiplies starts and rests.

    Raises:
        TimeoutError: a replica was not ready in time.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        store = stack.enter_context(redis_server(folder))
        settings = production(store.url)
        # The first start compiles the modules' bytecode.
        with started(settings, folder, PRODUCT) as (_, replica), Meter(store, [replica]) as meter:
            time.sleep(REST * scale)
            before = meter.cpu()
            time.sleep(IDLE * scale)
            idle = (meter.cpu() - before).workers / (IDLE * scale)
        floor, product = _alternating(settings, folder, scale)
    yield Figure("start.floor", tuple(seconds for seconds, _ in floor), "s", "exec to 200 of the floor")
    ready = tuple(seconds for seconds, _ in product)
    yield Figure("start.ready", ready, "s", "exec to /readyz 200, one worker", yardstick="start.floor")
    yield Figure("start.floor_rss", tuple(mib for _, mib in floor), "MiB", "memory of the floor's idle worker")
    rss = tuple(mib for _, mib in product)
    yield Figure("start.worker_rss", rss, "MiB", "memory of an idle worker", yardstick="start.floor_rss")
    yield Figure("start.idle_cpu", (100 * idle,), "%", "of a core that an idle worker takes")


def _alternating(
    settings: Mapping[str, str], folder: Path, scale: float
) -> tuple[list[tuple[float, float]], list[tuple[float, float]]]:
    """Return the seconds of each start and the worker's MiB after a rest, for the floor and for the product."""
    said: dict[Path, list[tuple[float, float]]] = {FLOOR: [], PRODUCT: []}
    for _ in range(max(2, round(STARTS * scale))):
        for config, starts in said.items():
            with started(settings, folder, config) as (seconds, replica):
                time.sleep(REST * scale)
                starts.append((seconds, replica.rss / 1024))
    return said[FLOOR], said[PRODUCT]


@contextmanager
def started(settings: Mapping[str, str], folder: Path, config: Path) -> Iterator[tuple[float, Replica]]:
    """Run a replica while the block runs; yield it with the seconds until its first 200."""
    began = time.perf_counter()
    replica = Replica(settings, folder, config=config)
    try:
        while not _ready(replica.port):
            if time.perf_counter() - began > START_SECONDS:
                raise TimeoutError(f"not ready (see {replica.log})")
            time.sleep(LOOK)
        seconds = time.perf_counter() - began
        replica.wait_ready()
        yield seconds, replica
    finally:
        replica.kill()


def _ready(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), START_SECONDS) as connection:
        connection.sendall(_ASK)
        return connection.recv(64).startswith(b"HTTP/1.1 200 ")
    return False


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.start", description="What starting and idling cost.")
    parser.add_argument("--scale", type=float, default=1.0, help="how much of it, beside the usual")
    show(measure(parser.parse_args(argv).scale))
    return 0


if __name__ == "__main__":
    sys.exit(main())
