"""A mock Dify with little overhead, in its own process: about 20 µs of CPU per delta.

It answers like a chatflow of Dify 1.x. Each delta is a few Chinese words and its send time, between the marks
of `bench.stage.replicas`. Every question gets `pieces` deltas, `every` seconds apart, the first after `every` as
well; a question that ends in "*12" gets twelve. A run whose client disconnects continues, and can be looked up.
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
    """The benchmark's handle of the mock."""

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
        """Number of deltas sent so far, read without a request to the mock."""
        return self._counts[DELTAS]

    @property
    def bytes(self) -> int:
        """Bytes of these deltas on the wire, read without a request to the mock."""
        return self._counts[BYTES]

    @property
    def runs(self) -> int:
        """Number of answers begun so far, read without a request to the mock."""
        return self._counts[RUNS]

    def finish(self) -> None:
        """End all running answers with their text so far."""
        self._pipe.send(("finish", None))

    def halt(self) -> None:
        """Make each later answer wait at its half until `let` is called."""
        self._pipe.send(("halt", None))

    def let(self, question: str, more: int) -> None:
        """Let the waiting answers whose questions start with `question` continue by `more` deltas."""
        self._pipe.send(("let", (question, more)))

    def told(self) -> tuple[dict[str, str], Counter[str]]:
        """Return each ended question's whole answer, and how often each question was asked."""
        self._pipe.send(("told", None))
        answers, asks = self._pipe.recv()
        return answers, asks


@contextmanager
def cheap_dify(pieces: int, every: float, cores: Collection[int] | None = None) -> Iterator[CheapDify]:
    """Run the mock in its own process, on these cores (None means any), with the caller's limit of open files."""
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
