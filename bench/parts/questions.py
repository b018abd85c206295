"""What a new question costs, and how long its first frame takes.

Questions come at a fixed pace, each with its own id and from many people, and get short answers, so the limit of
running answers is never reached. The cost of a question is measured while the worker is never idle, as for polls: idle
times double the cost of both.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from operator import attrgetter

import redis

from bench.figures import Figure, figure, percentile, ratios
from bench.load.callbacks import Callbacks
from bench.load.generator import CONNECTIONS, LoadFailed
from bench.load.live_streams import LiveStreams
from bench.stage.servers import wait_for
from bench.stage.stage import Meter, Stage, Turn
from services.streams.store import RUNNING_SHARDS

#: Rates in questions a second, with the goal for the 99th percentile of the delay in ms.
PACES = {50: "", 100: "", 200: "< 100"}
#: Seconds of questions, and of polls, at each rate.
PACED, POLLING_PACED = 10.0, 4.0
#: Rounds that alternate polls and questions; seconds of polls and number of questions in a round.
ROUNDS, POLLING, BURST = 12, 0.7, 200
#: Pieces of an answer, and seconds between them.
PIECES, EVERY = 5, 0.04
#: Seconds after the last first frame until the last answers have ended.
ENDING = PIECES * EVERY + 0.8
#: Seconds of idle time measured, without any question.
IDLE = 3.0
PEOPLE = 1000


def measure(scale: float = 1.0) -> Iterator[Figure]:
    """Yield the figures; `scale` multiplies all durations.

    Raises:
        LoadFailed: a question got no first frame, or its answer was not whole in the end.
    """
    with Stage() as stage:
        asker = Asker(stage)
        yield from _paced(asker, scale)
        yield from _alternating(asker, scale)


def _paced(asker: Asker, scale: float) -> Iterator[Figure]:
    """Ask at each rate, and poll at the same rate."""
    asker.ask(50)
    for pace, goal in PACES.items():
        asked = asker.ask(max(20, round(pace * PACED * scale)), pace)
        for percent, wanted in ((50, ""), (99, goal)):
            delay, about = 1000 * percentile(asked.outcome.delays, percent), f"first frame at {pace} questions/s"
            yield Figure(f"questions.{pace}.p{percent}", (delay,), "ms", f"p{percent}, {about}", goal=wanted)
        # A shorter measurement of an idle worker is too coarse.
        polled = asker.poll(max(2.0, POLLING_PACED * min(1.0, scale)), pace)
        about = "CPU of a question / of a poll, both at that pace"
        yield Figure(f"questions.{pace}.polls", (asked.cpu / polled.cpu,), "ratio", about)


def _alternating(asker: Asker, scale: float) -> Iterator[Figure]:
    """Ask without pauses, in turns with polls."""
    shorter = min(1.0, 3 * scale)
    idle = asker.meter.idle(IDLE * shorter)
    polls, questions = [], []
    for _ in range(max(2, round(ROUNDS * scale))):
        polls.append(asker.poll(POLLING * shorter))
        asked = asker.ask(max(50, round(BURST * shorter)))
        questions.append(Turn(asked.outcome, asked.used.without(idle)))
    at_once, cpu = f"{CONNECTIONS} at a time", attrgetter("cpu")
    poll = figure("questions.poll_cpu", polls, cpu, "µs", f"CPU of the worker a poll of 1 KiB, {at_once}")
    about = f"CPU of the worker a question, {at_once}; its answer of {PIECES} pieces included"
    question = figure("questions.cpu", questions, cpu, "µs", about, yardstick=poll.name)
    yield from (poll, question)
    about = "CPU of a question / of a poll, round by round"
    yield ratios("questions.polls", question.rounds, poll.rounds, about, goal="<= 4")
    about = "CPU of Redis a question, its answer included"
    yield figure("questions.redis_cpu", questions, attrgetter("redis_cpu"), "µs", about)
    about = "to and from Redis a question, its answer included"
    yield figure("questions.redis_net", questions, attrgetter("redis_net"), "B", about)


class Asker:
    """Asks one worker questions, and polls streams that were prepared for the comparison."""

    def __init__(self, stage: Stage) -> None:
        store = stage.redis()
        self._stage = stage
        self._dify = stage.dify(PIECES, EVERY)
        self.meter = Meter(store, stage.replica(store, self._dify))
        self._store = redis.Redis.from_url(store.url)
        self._callbacks = Callbacks()
        self._streams = LiveStreams("1k", 1024)
        self._streams.write(store.url)
        self._asked = 0

    def ask(self, count: int, pace: float | None = None) -> Turn:
        """Ask this many questions, at a rate or without a pause; wait for the answers and check them."""
        numbers = range(self._asked, self._asked + count)
        self._asked = numbers.stop
        requests = [self._callbacks.question(_text(number), _person(number)) for number in numbers]
        before = self.meter.read()
        outcome = self._stage.turn(self.meter, requests, rate=pace, samples=count).outcome
        time.sleep(ENDING)
        wait_for(self._none_running, "the end of all answers")
        turn = Turn(outcome, self.meter.read() - before)
        self._check(numbers, [outcome.bodies[index] for index in range(count)])
        return turn

    def poll(self, seconds: float, pace: float | None = None) -> Turn:
        return self._stage.poll(self.meter, self._streams, seconds, rate=pace)

    def _none_running(self) -> bool:
        # The product's index of running streams; prepared streams are not in it.
        return not self._store.exists(*(f"dify_streams:running:{shard}" for shard in range(RUNNING_SHARDS)))

    def _check(self, numbers: range, replies: list[bytes]) -> None:
        """Raises: LoadFailed: a question has no running stream, or its answer differs from Dify's."""
        frames = [self._callbacks.opened(reply) for reply in replies]
        if ended := [frame for frame in frames if frame["finish"]]:
            raise LoadFailed(f"{len(ended)} of {len(frames)} questions were not taken: {ended[0]}")
        polls = [
            self._callbacks.refresh(frame["id"], _person(number)) for number, frame in zip(numbers, frames, strict=True)
        ]
        bodies = self._stage.turn(self.meter, polls, samples=len(polls)).outcome.bodies
        answers, _ = self._dify.transcript()
        for index, number in enumerate(numbers):
            stream = self._callbacks.opened(bodies[index])
            if not stream["finish"] or stream["content"] != answers[_text(number)]:
                raise LoadFailed(f"not the whole answer: {stream}")


def _text(number: int) -> str:
    return f"第{number}个问题：年假怎么申请？"


def _person(number: int) -> str:
    return f"p{number % PEOPLE}"
