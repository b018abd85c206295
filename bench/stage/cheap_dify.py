"""A mock Dify that costs little, in a process of its own: about 20 µs of CPU a delta.

It answers like a chatflow of Dify 1.x. Each delta is a few Chinese words and the time it was sent at, between the marks
of `bench.stage.replicas`. Whatever is asked gets `pieces` of them, `every` seconds apart, the first after `every` as
well; a question that ends in "*12" gets twelve. A run whose client hangs up runs on, and can be looked up.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
from collections import Counter
from collections.abc import Collection, Iterator, MutableSequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection

from bench.stage.cheap_dify_server import BYTES, DELTAS, RUNS, Server
from bench.stage.replicas import START_SECONDS, cpu_of


class CheapDify:
    """The mock as a benchmark sees it."""

    def __init__(self, pid: int, pipe: Connection, counts: MutableSequence[int], base_url: str) -> None:
        self.pid = pid
        self.base_url = base_url
        self._pipe = pipe
        self._counts = counts

    @property
    def cpu(self) -> float:
        """Its CPU seconds so far."""
        return cpu_of(self.pid)

    @property
    def deltas(self) -> int:
        """How many it sent so far; asking costs it nothing."""
        return self._counts[DELTAS]

    @property
    def bytes(self) -> int:
        """How many these took on the wire; asking costs it nothing."""
        return self._counts[BYTES]

    @property
    def runs(self) -> int:
        """How many answers it began so far; asking costs it nothing."""
        return self._counts[RUNS]

    def finish(self) -> None:
        """Have all answers that are under way end with what they have said."""
        self._pipe.send(("finish", None))

    def halt(self) -> None:
        """Have each answer that begins from now on wait at its half, until it is let go on."""
        self._pipe.send(("halt", None))

    def let(self, question: str, more: int) -> None:
        """Let the answers whose questions begin so go on by so many deltas."""
        self._pipe.send(("let", (question, more)))

    def told(self) -> tuple[dict[str, str], Counter[str]]:
        """Return each question's whole answer, once it has ended, and how often each was asked."""
        self._pipe.send(("told", None))
        answers, asks = self._pipe.recv()
        return answers, asks


@contextmanager
def cheap_dify(pieces: int, every: float, cores: Collection[int] | None = None) -> Iterator[CheapDify]:
    """Run it in a process of its own, on these cores or on any, with room for as many files as the caller has."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    counts = context.RawArray("q", 3)
    process = context.Process(target=_serve, args=(theirs, counts, pieces, every, cores), daemon=True)
    process.start()
    theirs.close()
    try:
        if not ours.poll(START_SECONDS):
            raise TimeoutError("the mock Dify did not start")
        assert process.pid
        yield CheapDify(process.pid, ours, counts, ours.recv())
    finally:
        ours.close()
        process.terminate()
        process.join(10)


def _serve(
    pipe: Connection, counts: MutableSequence[int], pieces: int, every: float, cores: Collection[int] | None
) -> None:
    if cores:
        os.sched_setaffinity(0, cores)
    gc.disable()
    with suppress(EOFError):
        Server(pipe, counts, pieces=pieces, every=every).serve()
