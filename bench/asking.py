"""`python -m bench.asking`: what a new question costs, and how long its first frame takes.

One worker on the first core; Redis, the load generator and a cheap Dify on the second. Questions come at a fixed pace,
each with its own id and from many people, and get short answers, so the limit of running answers is never reached.
The cost of a question is measured while the worker is never idle, as for polls: idle times double the cost of both.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from bench.figures import Figure, percentile, ratios
from bench.load.callbacks import Callbacks
from bench.load.generator import Job, LoadFailed, generator
from bench.load.live_streams import LiveStreams, prose
from bench.load.turns import Bench, Turn, production, two_cores, worker
from bench.report import show
from bench.stage.cheap_dify import CheapDify, cheap_dify
from bench.stage.replicas import Replica, redis_server

#: Rates in questions a second, with the goal for the 99th percentile of the delay in ms.
PACES = {50: "", 100: "", 200: "< 100"}
#: Seconds at each rate.
PACED = 10.0
#: Rounds that alternate polls and questions; seconds of polls and number of questions in a round.
ROUNDS, POLLING, BURST = 12, 0.7, 200
#: Seconds of polls at each rate.
POLLING_PACED = 4.0
#: Pieces of an answer, and seconds between them.
PIECES, EVERY = 5, 0.04
#: Seconds after the last first frame until the last answers have ended.
ENDING = PIECES * EVERY + 0.8
#: Seconds of idle time measured, without any question.
REST = 3.0
PEOPLE = 1000
CONNECTIONS = 64


def measure(scale: float = 1.0) -> Iterator[Figure]:
    """Yield the figures; `scale` multiplies all durations.

    Raises:
        LoadFailed: a question got no first frame, or its answer was not whole in the end.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        server, others = two_cores()
        store = stack.enter_context(redis_server(folder, others))
        dify = stack.enter_context(cheap_dify(PIECES, EVERY, others))
        replica = stack.enter_context(worker(production(store.url, DIFY_BASE_URL=dify.base_url), folder, server))
        bench = Bench(stack.enter_context(generator(others)), store)
        polled = LiveStreams("1k", prose(1024))
        polled.write(store.url)
        yield from Asking(bench, replica, dify, polled, scale).figures()


class Asking:
    """Asks questions at each rate, and then in turns with polls."""

    def __init__(self, bench: Bench, replica: Replica, dify: CheapDify, polled: LiveStreams, scale: float) -> None:
        self._bench = bench
        self._replica = replica
        self._dify = dify
        self._polled = polled
        self._scale = scale
        self._callbacks = Callbacks()
        self._asked = 0

    def figures(self) -> Iterator[Figure]:
        self._ask(50)
        for pace, goal in PACES.items():
            turn = self._ask(max(20, round(pace * PACED * self._scale)), pace)
            for percent, wanted in ((50, ""), (99, goal)):
                delay, about = 1000 * percentile(turn.outcome.delays, percent), f"first frame at {pace} questions/s"
                yield Figure(f"questions.{pace}.p{percent}", (delay,), "ms", f"p{percent}, {about}", goal=wanted)
            # CPU time is counted in hundredths of a second, so a shorter measurement is too coarse.
            polled = self._poll(max(2.0, POLLING_PACED * min(1.0, self._scale)), pace)
            times = turn.micros / polled.micros
            about = "CPU of a question / of a poll, both at that pace"
            yield Figure(f"questions.{pace}.polls", (times,), "ratio", about)
        yield from self._beside_polls()

    def _beside_polls(self) -> Iterator[Figure]:
        burst = max(50, round(BURST * min(1.0, 3 * self._scale)))
        rest = self._bench.rest(self._replica, REST * min(1.0, 3 * self._scale))
        polls, asked = [], []
        for _ in range(max(2, round(ROUNDS * self._scale))):
            polls.append(self._poll(POLLING * min(1.0, 3 * self._scale)).micros)
            asked.append(self._ask(burst).without(rest))
        cpu = [turn.micros for turn in asked]
        at_once = f"{CONNECTIONS} at a time"
        yield Figure("questions.poll_cpu", tuple(polls), "µs", f"CPU of the worker a poll of 1 KiB, {at_once}")
        about = f"CPU of the worker a question, {at_once}; its answer of {PIECES} pieces included"
        yield Figure("questions.cpu", tuple(cpu), "µs", about, yardstick="questions.poll_cpu")
        yield ratios("questions.polls", cpu, polls, "CPU of a question / of a poll, round by round", goal="<= 4")
        about = "CPU of Redis a question, its answer included"
        yield Figure("questions.redis_cpu", tuple(1e6 * turn.redis / turn.count for turn in asked), "µs", about)
        about = "to and from Redis a question, its answer included"
        yield Figure("questions.redis_net", tuple(turn.redis_bytes / turn.count for turn in asked), "B", about)

    def _ask(self, count: int, pace: float | None = None) -> Turn:
        """Ask this many questions, at a rate or without a pause; wait for the answers and check them."""
        numbers = range(self._asked, self._asked + count)
        self._asked = numbers.stop
        requests = [self._callbacks.question(_words(number), _person(number)) for number in numbers]
        job = Job(self._replica.port, requests, None, CONNECTIONS, pace, samples=len(requests))
        turn = self._bench.turn(self._replica, job, after=ENDING)
        self._check(numbers, turn)
        return turn

    def _check(self, numbers: range, turn: Turn) -> None:
        """Raises: LoadFailed: a question has no running stream, or its answer differs from Dify's."""
        frames = [self._callbacks.opened(turn.outcome.bodies[place]) for place in range(len(numbers))]
        if refused := [frame for frame in frames if frame["finish"]]:
            raise LoadFailed(f"{len(refused)} of {len(frames)} questions were not taken: {refused[0]}")
        looks = [
            self._callbacks.refresh(frame["id"], _person(number)) for number, frame in zip(numbers, frames, strict=True)
        ]
        job = Job(self._replica.port, looks, None, CONNECTIONS, samples=len(looks))
        shown = self._bench.turn(self._replica, job).outcome.bodies
        answers, _ = self._dify.told()
        for place, number in enumerate(numbers):
            stream = self._callbacks.opened(shown[place])
            if not stream["finish"] or stream["content"] != answers[_words(number)]:
                raise LoadFailed(f"not the whole answer: {stream}")

    def _poll(self, seconds: float, pace: float | None = None) -> Turn:
        job = Job(self._replica.port, self._polled.polls(), seconds, CONNECTIONS, pace, samples=8)
        turn = self._bench.turn(self._replica, job)
        if wrong := self._polled.wrong(turn.outcome.bodies):
            raise LoadFailed(f"not what the stream shows: {wrong[0][:300]}")
        return turn


def _words(number: int) -> str:
    return f"第{number}个问题：年假怎么申请？"


def _person(number: int) -> str:
    return f"p{number % PEOPLE}"


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print the table; return 0 if every goal is reached."""
    parser = argparse.ArgumentParser(prog="python -m bench.asking", description="What a new question costs.")
    parser.add_argument("--scale", type=float, default=1.0, help="how long it takes, beside its usual time")
    figures = show(measure(parser.parse_args(argv).scale))
    return 0 if all(figure.met is not False for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
