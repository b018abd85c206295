"""`python -m bench.sockets`: the cost of many WebSockets for a replica, and the effect of its death on answers.

Some sockets stay idle, the others ask; every piece of an answer contains its send time. Then they ask again, the
replica is killed (-9) during the answers, and the clients resume at another one. Memory and CPU are the worker's;
clients, Redis and the provider share this machine's cores with it, so delays are longer than in production. The figures
of `measure` are of a worker with its own core.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from bench.figures import Figure, percentile
from bench.load.socket_clients import Client, Crowd
from bench.load.turns import production, two_cores, worker
from bench.stage.cheap_dify import CheapDify, cheap_dify
from bench.stage.replicas import Dify, Replica, allow_files, redis_server, replicas, stamping_dify

#: Seconds of rest before memory is read, seconds in which idle CPU is measured, and rounds of `measure`.
REST, IDLE, ROUNDS = 3.0, 20.0, 3
#: Timeout in seconds beyond an answer's own duration, for a takeover on a busy machine.
TIMEOUT = 90.0

Row = tuple[str, str]


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print the table; return 0 if every answer was complete and asked for once."""
    options = _options(argv)
    allow_files(4 * (options.idle + options.answering) + 2000)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        dify = stack.enter_context(stamping_dify(options.pieces, options.every))
        settings = _settings(stack.enter_context(redis_server(folder)).url, dify, options.idle + options.answering)
        first, second = stack.enter_context(replicas(2, settings, folder))
        crowd = stack.enter_context(Crowd(first.port))
        bench = Bench(options, dify, crowd, first)
        rows = list(bench.rows(second))
    width = max(len(name) for name, _ in rows)
    print(f"| {'measured':<{width}} | value |\n|{'-' * (width + 2)}|---|")
    for name, value in rows:
        print(f"| {name:<{width}} | {value} |")
    return 1 if bench.wrong else 0


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.sockets", description="What very many WebSockets cost.")
    parser.add_argument("--idle", type=int, default=1000, help="sockets that only listen")
    parser.add_argument("--answering", type=int, default=200, help="sockets that ask")
    parser.add_argument("--pieces", type=int, default=120, help="pieces of an answer")
    parser.add_argument("--every", type=float, default=0.25, help="seconds between two of them")
    parser.add_argument("--within", type=float, default=8.0, help="seconds within which all of them ask")
    return parser.parse_args(argv, argparse.Namespace(scale=1.0))


def measure(scale: float = 1.0) -> Iterator[Figure]:
    """Yield the figures of one worker on its own core; `scale` multiplies numbers of sockets and pieces, and times."""
    options = _options(["--pieces", str(max(8, round(80 * scale))), "--within", str(4 * scale)])
    options.scale, options.idle, options.answering = scale, round(1000 * scale), max(2, round(200 * scale))
    allow_files(4 * (options.idle + options.answering) + 2000)
    server, others = two_cores()
    with ExitStack() as stack:
        if others:
            # The clients run in this process.
            stack.callback(os.sched_setaffinity, 0, os.sched_getaffinity(0))
            os.sched_setaffinity(0, others)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        dify = stack.enter_context(cheap_dify(options.pieces, options.every, others))
        store = stack.enter_context(redis_server(folder, others))
        replica = stack.enter_context(
            worker(_settings(store.url, dify, options.idle + options.answering), folder, server)
        )
        bench = Bench(options, dify, stack.enter_context(Crowd(replica.port)), replica)
        yield from bench.figures()


def _settings(redis_url: str, dify: Dify | CheapDify, sockets: int) -> Mapping[str, str]:
    limits = {"SOCKETS_MAX": str(sockets + 100), "RATE_LIMIT_USER": "off", "RATE_LIMIT_IP": "off"}
    limits["CONNECTIONS_PER_IP"] = "0"
    return production(redis_url, DIFY_BASE_URL=dify.base_url, WEBSOCKET_AUTH="none", **limits)


@dataclass(frozen=True, slots=True)
class Idle:
    """The cost of idle sockets: KiB of memory without and with them, and percent of a core in each round."""

    before: int
    after: int
    cpu: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Answering:
    """The cost of answering sockets: additional KiB per socket, duration and CPU in seconds, delays in seconds."""

    kib: float
    seconds: float
    cpu: float
    delays: Sequence[float]


class Bench:
    """Runs the phases in their order."""

    def __init__(self, options: argparse.Namespace, dify: Dify | CheapDify, crowd: Crowd, replica: Replica) -> None:
        self._options = options
        self._dify = dify
        self._replica = replica
        self._crowd = crowd
        self._asking = [Client(f"asking-{n}") for n in range(options.answering)]
        #: Number of pieces sent while all sockets are answered once.
        self.pieces: int = options.pieces * options.answering
        self._whole = 0
        #: Descriptions of the errors found.
        self.wrong: list[str] = []

    def rows(self, second: Replica) -> Iterator[Row]:
        """Yield the rows of the table; in the last phase answers resume at the `second` replica."""
        options = self._options
        yield "machine", f"{os.cpu_count()} cores for everything, {os.getloadavg()[0]:.1f} busy before"
        idle = self.idle(rounds=1)
        yield "worker before", f"{idle.before / 1024:.0f} MiB"
        yield f"with {options.idle} idle sockets", f"{idle.after / 1024:.0f} MiB"
        yield "memory of an idle socket", f"{(idle.after - idle.before) / options.idle:.1f} KiB"
        yield f"CPU of {options.idle} idle sockets", f"{idle.cpu[0]:.1f} % of a core"
        self._enter(self._asking)
        told = self.answering("first")
        yield "answering at once", f"{options.answering}, each {options.pieces} pieces, one every {options.every:g} s"
        yield "memory of an answering socket", f"{told.kib:.1f} KiB more"
        yield "CPU", f"{told.cpu:.1f} s in {told.seconds:.1f} s ({100 * told.cpu / told.seconds:.0f} % of a core)"
        yield "CPU of a piece", f"{1000 * told.cpu / self.pieces:.2f} ms"
        yield "delay of a piece", _spread(told.delays)
        yield from self._killed(second)
        yield from (("wrong", line) for line in self.wrong)

    def figures(self) -> Iterator[Figure]:
        idle = self.idle(rounds=ROUNDS)
        count, asking = self._options.idle, self._options.answering
        kib = ((idle.after - idle.before) / count,)
        yield Figure("sockets.idle_kib", kib, "KiB", f"memory of each of {count} idle sockets")
        yield Figure("sockets.idle_cpu", idle.cpu, "%", "of a core that all of these take")
        self._enter(self._asking)
        told = [self.answering(f"round {number}") for number in range(ROUNDS)]
        # Only of the first round: later rounds reuse its memory.
        yield Figure("sockets.answering_kib", (told[0].kib,), "KiB", f"more for each of {asking} that are answered")
        cpu = tuple(1e6 * each.cpu / self.pieces for each in told)
        yield Figure(
            "sockets.cpu_per_piece",
            cpu,
            "µs",
            f"CPU of the worker per delta, questions included, {1 / self._options.every:g} a second",
        )
        for percent in (50, 99):
            delays = tuple(1000 * percentile(each.delays, percent) for each in told)
            yield Figure(f"sockets.delay_p{percent}", delays, "ms", "delta sent to its frame at the client")
        yield Figure(
            "sockets.wrong", (len(self.wrong),), "answers", "not whole byte for byte, or asked twice", goal="<= 0"
        )

    def idle(self, *, rounds: int) -> Idle:
        """Connect the idle sockets, and measure their cost."""
        warm = Client("warm")
        self._enter([warm])
        self._ask([warm], "warm")
        self._see_answered([warm])
        before = self._rested()
        self._enter([Client(f"idle-{n}") for n in range(self._options.idle)])
        after = self._rested()
        return Idle(before, after, tuple(self._share(IDLE * self._options.scale / rounds) for _ in range(rounds)))

    def _share(self, seconds: float) -> float:
        cpu = self._replica.cpu
        self._crowd.listen_for(seconds)
        return 100 * (self._replica.cpu - cpu) / seconds

    def answering(self, name: str) -> Answering:
        """Have all asking sockets answered, and measure the cost; `name` must be unique."""
        before, cpu, began = self._rested(), self._replica.cpu, time.monotonic()
        for client in self._asking:
            client.delays.clear()
        self._ask(self._asking, name)
        self._crowd.listen_for(self._options.pieces * self._options.every / 2)
        kib = (self._replica.rss - before) / len(self._asking)
        self._see_answered(self._asking)
        delays = [delay for client in self._asking for delay in client.delays]
        return Answering(kib, time.monotonic() - began, self._replica.cpu - cpu, delays)

    def _killed(self, second: Replica) -> Iterator[Row]:
        self._ask(self._asking, "second")
        half = self._options.pieces * self._options.every / 2
        self._crowd.listen_for(half)
        for client in self._asking:
            client.silence = 0.0
        running = sum(not client.status for client in self._asking)
        self._crowd.port = second.port
        self._replica.kill()
        self._see_answered(self._asking)
        silences = sorted(client.silence for client in self._asking)
        yield "killed (-9)", f"{running} answers under way, {half:g} s after the last was asked for"
        yield "went on elsewhere", f"{self._whole} of {len(self._asking)}, byte for byte, each asked for once"
        yield "longest pause in an answer", f"median {silences[len(silences) // 2]:.1f} s, worst {silences[-1]:.1f} s"

    def _enter(self, clients: Sequence[Client]) -> None:
        for client in clients:
            self._crowd.join(client)

    def _rested(self) -> int:
        """Return the worker's memory after a rest, in KiB."""
        self._crowd.listen_for(REST * self._options.scale)
        return self._replica.rss

    def _ask(self, clients: Sequence[Client], round_: str) -> None:
        for client in clients:
            client.ask(f"{round_} {client.name}")
            self._crowd.listen_for(self._options.within / len(clients))

    def _see_answered(self, clients: Sequence[Client]) -> None:
        """Listen until all answers are complete; check that each is the provider's text and was asked for once."""
        whole = self._options.pieces * self._options.every + TIMEOUT
        self._crowd.listen(lambda: all(client.status for client in clients), whole)
        answers, asks = self._dify.told()
        wrong = list(filter(None, (_fault(client, answers, asks) for client in clients)))
        self._whole = len(clients) - len(wrong)
        self.wrong += wrong


def _fault(client: Client, answers: Mapping[str, str], asks: Mapping[str, int]) -> str:
    """Return a description of what is wrong with an answer; "" if nothing is."""
    if client.status != "completed":
        return f"{client.question}: {client.status or 'not whole in time'}"
    if client.text != answers.get(client.question):
        return f"{client.question}: not what was said"
    return "" if asks[client.question] == 1 else f"{client.question}: asked for {asks[client.question]} times"


def _spread(delays: Sequence[float]) -> str:
    p50, p99, worst = percentile(delays, 50), percentile(delays, 99), max(delays)
    return f"p50 {1000 * p50:.0f} ms, p99 {1000 * p99:.0f} ms, worst {1000 * worst:.0f} ms"


if __name__ == "__main__":
    sys.exit(main())
