"""`python -m bench.sockets`: what very many WebSockets cost one replica, and what its death costs the answers.

So many sockets stay idle, so many others ask; every piece of an answer holds the time the provider sent it. Then they
ask again, the replica is killed (-9) in mid-answer, and all go on at another one. Memory and CPU are the worker's;
clients, Redis and the provider share this machine's cores with it, so delays are above what they are by themselves.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import quantiles

from bench.socket_clients import Client, Crowd
from bench.stage import Dify, Replica, allow_files, redis_server, replicas, stamping_dify

#: Seconds the replica rests before its memory is read, and during which its idle CPU is counted.
REST, IDLE = 3.0, 20.0
#: Seconds beyond an answer's own time until it is given up: a takeover, and a busy machine.
PATIENCE = 90.0

Row = tuple[str, str]


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the table; return 0 when every answer was whole and asked for once."""
    options = _options(argv)
    allow_files(4 * (options.idle + options.answering) + 2000)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        dify = stack.enter_context(stamping_dify(options.pieces, options.every))
        settings = _settings(stack.enter_context(redis_server(folder)).url, dify, options.idle + options.answering)
        first, second = stack.enter_context(replicas(2, settings, folder))
        crowd = stack.enter_context(Crowd(first.port))
        bench = Bench(options, dify, crowd, first, second)
        rows = list(bench.rows())
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
    return parser.parse_args(argv)


def _settings(redis_url: str, dify: Dify, sockets: int) -> dict[str, str]:
    return {
        "REDIS_URL": redis_url,
        "WECHAT_TOKEN": "bench-token-not-secret",
        "WECHAT_ENCODING_AES_KEY": "benchKEYnotSECRETbenchKEYnotSECRETbenchKEYA",
        "AUTH_MODE": "none",
        "RAG_PROVIDER": "dify",
        "DIFY_BASE_URL": dify.base_url,
        "DIFY_API_KEY": "app-bench-not-secret",
        "WEBSOCKET_AUTH": "none",
        "SOCKETS_MAX": str(sockets + 100),
        "RATE_LIMIT_USER": "off",
        "RATE_LIMIT_IP": "off",
        "LOG_LEVEL": "WARNING",
    }


class Bench:
    """The phases, in their order; each yields its rows."""

    def __init__(self, options: argparse.Namespace, dify: Dify, crowd: Crowd, first: Replica, second: Replica) -> None:
        self._options = options
        self._dify = dify
        self._first = first
        self._second = second
        self._crowd = crowd
        self._asking = [Client(f"asking-{n}") for n in range(options.answering)]
        self._whole = 0
        #: What was not as it must be.
        self.wrong: list[str] = []

    def rows(self) -> Iterator[Row]:
        yield "machine", f"{os.cpu_count()} cores for everything, {os.getloadavg()[0]:.1f} busy before"
        yield from self._idle()
        yield from self._answering()
        yield from self._killed()
        yield from (("wrong", line) for line in self.wrong)

    def _idle(self) -> Iterator[Row]:
        warm = Client("warm")
        self._enter([warm])
        self._ask([warm], "warm")
        self._see_answered([warm])
        before = self._rested()
        count = self._options.idle
        self._enter([Client(f"idle-{n}") for n in range(count)])
        after, cpu = self._rested(), self._first.cpu
        self._crowd.listen_for(IDLE)
        yield "worker before", f"{before / 1024:.0f} MiB"
        yield f"with {count} idle sockets", f"{after / 1024:.0f} MiB"
        yield "memory of an idle socket", f"{(after - before) / count:.1f} KiB"
        yield f"CPU of {count} idle sockets", f"{100 * (self._first.cpu - cpu) / IDLE:.1f} % of a core"

    def _answering(self) -> Iterator[Row]:
        self._enter(self._asking)
        before, cpu, began = self._rested(), self._first.cpu, time.monotonic()
        self._ask(self._asking, "first")
        self._crowd.listen_for(self._options.pieces * self._options.every / 2)
        peak = self._first.rss
        self._see_answered(self._asking)
        took, spent = time.monotonic() - began, self._first.cpu - cpu
        pieces, count = self._options.pieces, self._options.answering
        yield "answering at once", f"{count}, each {pieces} pieces, one every {self._options.every:g} s"
        yield "memory of an answering socket", f"{(peak - before) / count:.1f} KiB more"
        yield "CPU", f"{spent:.1f} s in {took:.1f} s ({100 * spent / took:.0f} % of a core)"
        yield "CPU of a piece", f"{1000 * spent / (count * pieces):.2f} ms"
        yield "delay of a piece", _spread([delay for client in self._asking for delay in client.delays])

    def _killed(self) -> Iterator[Row]:
        self._ask(self._asking, "second")
        half = self._options.pieces * self._options.every / 2
        self._crowd.listen_for(half)
        for client in self._asking:
            client.silence = 0.0
        running = sum(not client.status for client in self._asking)
        self._crowd.port = self._second.port
        self._first.kill()
        self._see_answered(self._asking)
        silences = sorted(client.silence for client in self._asking)
        yield "killed (-9)", f"{running} answers under way, {half:g} s after the last was asked for"
        yield "went on elsewhere", f"{self._whole} of {len(self._asking)}, byte for byte, each asked for once"
        yield "longest pause in an answer", f"median {silences[len(silences) // 2]:.1f} s, worst {silences[-1]:.1f} s"

    def _enter(self, clients: Sequence[Client]) -> None:
        for client in clients:
            self._crowd.join(client)

    def _rested(self) -> int:
        """Return the memory of the worker at rest, in KiB."""
        self._crowd.listen_for(REST)
        return self._first.rss

    def _ask(self, clients: Sequence[Client], round_: str) -> None:
        for client in clients:
            client.ask(f"{round_} {client.name}")
            self._crowd.listen_for(self._options.within / len(clients))

    def _see_answered(self, clients: Sequence[Client]) -> None:
        """Listen until all have their answers, and look whether each is what the provider said, and said once."""
        whole = self._options.pieces * self._options.every + PATIENCE
        self._crowd.listen(lambda: all(client.status for client in clients), whole)
        answers, asks = self._dify.told()
        wrong = list(filter(None, (_fault(client, answers, asks) for client in clients)))
        self._whole = len(clients) - len(wrong)
        self.wrong += wrong


def _fault(client: Client, answers: Mapping[str, str], asks: Mapping[str, int]) -> str:
    """Return what is wrong with an answer, nothing when it is as it must be."""
    if client.status != "completed":
        return f"{client.question}: {client.status or 'not whole in time'}"
    if client.text != answers.get(client.question):
        return f"{client.question}: not what was said"
    return "" if asks[client.question] == 1 else f"{client.question}: asked for {asks[client.question]} times"


def _spread(delays: Sequence[float]) -> str:
    cut = quantiles(delays, n=1000)
    return f"p50 {1000 * cut[499]:.0f} ms, p99 {1000 * cut[989]:.0f} ms, worst {1000 * max(delays):.0f} ms"


if __name__ == "__main__":
    sys.exit(main())
