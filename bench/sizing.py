"""`python -m bench.sizing --users 100000`: replicas, Redis nodes, network and Dify for this number of people.

Nothing is measured here. Every constant is a row of bench/results.json (`polls.cpu.1k`), a default of the product's
settings (`STREAM_TTL`) or an option of this command (`--deltas`), and its name is printed after its number. A person is
*concurrent* while their chat is open. Two cases are calculated: people who ask, wait, read and think
(`usual`), and people who all wait for an answer at the same time and ask again as soon as it has ended (`worst`).
"""

from __future__ import annotations

import argparse
import operator
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path

from bench.figures import Figure
from bench.report import RESULTS, number, read
from config.settings import Settings

CASES = ("usual", "worst")
#: The lines of both cases that are shown side by side above the calculation.
SUMMARY = (
    *("live", "questions", "polls", "deltas", "CPU of an answer", "people a core"),
    *("replicas", "pods", "memory of a pod", "Redis nodes", "Redis servers"),
    *("memory of Redis", "WeCom network", "Redis network", "network of a node", "Dify network", "Dify containers"),
)
#: The settings whose defaults are used.
SETTINGS = ("STREAM_MAX_PER_REPLICA", "STREAM_TTL")
_OPERATORS = {"×": operator.mul, "/": operator.truediv, "+": operator.add}
#: Unit conversions, and limits.
CONVERSIONS = {
    "seconds a minute": 60.0,
    "µs a second": 1e6,
    "B a GB": 1e9,
    "MiB a GiB": 1024.0,
    "B/s a Gbit/s": 1e9 / 8,
    "answers of that row": 1000.0,
    # Measurement noise may show more throughput per replica together than alone.
    "at the most": 1.0,
    # A Redis Cluster needs three primaries; a single server is no cluster.
    "primaries of the smallest cluster": 3.0,
    "servers for each, one of them its replica": 2.0,
}


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number, its unit, and its source: a row, a setting or an option; "" for the result of an earlier line."""

    value: float
    unit: str
    source: str = ""

    def __str__(self) -> str:
        return " ".join(filter(None, [number(self.value), self.unit, self.source and f"[{self.source}]"]))


class Sheet:
    """Calculates quantities from others and keeps every step as a line.

    A name with a dot is a row of the results, one in capitals a setting, one with `--` an option; all others are
    conversions and results of earlier lines.

    Raises:
        LookupError: a name is none of these: its part of the benchmarks failed or was left out.
    """

    def __init__(self, figures: Iterable[Figure], options: argparse.Namespace) -> None:
        self._known = {name: Quantity(value, name) for name, value in CONVERSIONS.items()}
        self._known |= {figure.name: Quantity(figure.value, figure.unit, figure.name) for figure in figures}
        for setting in SETTINGS:
            value = Settings.model_fields[setting.lower()].default
            self._known[setting] = Quantity(float(value), "", setting)
        for name, value in vars(options).items():
            if isinstance(value, (int, float)):
                option = f"--{name.replace('_', '-')}"
                self._known[option] = Quantity(float(value), "", option)
        self.lines: list[str] = []

    def __getitem__(self, name: str) -> Quantity:
        try:
            return self._known[name]
        except KeyError:
            raise LookupError(f"the results have no {name}") from None

    def line(self, name: str, unit: str, formula: str, *, up: bool = False) -> None:
        """Add a line: a product such as "a × b / c", a sum, or "max(a, b)"; rounded up to an integer if requested."""
        if formula.startswith(("max(", "min(")):
            choose, names = (max if formula.startswith("max") else min), formula[4:-1].split(", ")
            value = choose(self[each].value for each in names)
            terms = f"{formula[:4]}{', '.join(str(self[each]) for each in names)})"
        else:
            first, *others = re.split(r" ([×/+]) ", formula)
            value, terms = self[first].value, str(self[first])
            for sign, each in zip(others[::2], others[1::2], strict=True):
                value, terms = _OPERATORS[sign](value, self[each].value), f"{terms} {sign} {self[each]}"
        result = f"{terms} ="
        if up:
            value, result = ceil(round(value, 6)), f"{result} {number(value)} ≤"
        self._known[name] = Quantity(value, unit)
        self.lines.append(f"{name:<26} {result} {self._known[name]}")


def derive(figures: Iterable[Figure], options: argparse.Namespace, case: str) -> Sheet:
    """Calculate one of `CASES`. Raises: LookupError: the results lack a row."""
    sheet, text = Sheet(figures, options), options.text
    if case == "worst":
        sheet.line("live", "live answers", "--users")
        sheet.line("questions", "questions/s", "live / --answer-seconds")
    else:
        sheet.line("questions", "questions/s", "--users × --questions-per-minute / seconds a minute")
        sheet.line("live", "live answers", "questions × --answer-seconds")
    sheet.line("polls", "polls/s", "live × --polls")
    sheet.line("deltas", "deltas/s", "live × --deltas")
    _gateway(sheet, text)
    _redis(sheet, text)
    _network(sheet, text)
    sheet.line("Dify containers", "containers", "live / --dify-runs", up=True)
    return sheet


def _gateway(sheet: Sheet, text: str) -> None:
    sheet.line("CPU of polls", "cores", f"polls × polls.cpu.{text} / µs a second")
    sheet.line("CPU of deltas", "cores", "deltas × streams.1000.cpu_per_delta / µs a second")
    # The short answers of the benchmark are in this row and in that of deltas, so this is an upper bound.
    sheet.line("CPU of questions", "cores", "questions × questions.cpu / µs a second")
    sheet.line("CPU of the gateway", "cores", "CPU of polls + CPU of deltas + CPU of questions")
    sheet.line("people a core", "people", "--users / CPU of the gateway × --headroom")
    sheet.line("CPU of an answer", "s", "CPU of the gateway / questions")
    sheet.line("adding up", "ratio", "min(growth.replicas.efficiency, at the most)")
    sheet.line("replicas by CPU", "replicas", "CPU of the gateway / --headroom / adding up", up=True)
    sheet.line("replicas by answers", "replicas", "live / STREAM_MAX_PER_REPLICA", up=True)
    sheet.line("replicas", "replicas", "max(replicas by CPU, replicas by answers)")
    sheet.line("pods", "pods", "replicas / --workers", up=True)
    # The row includes idle workers, so this is an upper bound.
    sheet.line("memory of answers", "MiB", "live × streams.1000.rss / answers of that row")
    sheet.line("memory of workers", "MiB", "replicas × start.worker_rss")
    sheet.line("memory of the gateway", "MiB", "memory of answers + memory of workers")
    sheet.line("memory of a pod", "GiB", "memory of the gateway / pods / MiB a GiB")


def _redis(sheet: Sheet, text: str) -> None:
    sheet.line("Redis CPU of polls", "cores", f"polls × polls.redis_cpu.{text} / µs a second")
    sheet.line("Redis CPU of deltas", "cores", "deltas × streams.1000.redis_cpu_per_delta / µs a second")
    sheet.line("Redis CPU of questions", "cores", "questions × questions.redis_cpu / µs a second")
    sheet.line("CPU of Redis", "cores", "Redis CPU of polls + Redis CPU of deltas + Redis CPU of questions")
    # A record is kept for its TTL, even if its answer has ended long before.
    sheet.line("stored", "stored streams", "questions × STREAM_TTL")
    sheet.line("memory of Redis", "GB", "stored × growth.live.100k.redis_bytes_per_stream / B a GB")
    sheet.line("Redis nodes by CPU", "nodes", "CPU of Redis / --headroom", up=True)
    sheet.line("Redis nodes by memory", "nodes", "memory of Redis / --node-gb / --headroom", up=True)
    sheet.line("Redis nodes", "nodes", "max(Redis nodes by CPU, Redis nodes by memory)")
    if sheet["Redis nodes"].value > 1:
        sheet.line("Redis nodes", "primaries", "max(Redis nodes, primaries of the smallest cluster)")
    sheet.line("Redis servers", "servers", "Redis nodes × servers for each, one of them its replica")


def _network(sheet: Sheet, text: str) -> None:
    sheet.line("WeCom network", "Gbit/s", f"polls × polls.bytes.{text} / B/s a Gbit/s")
    parts = ("polls", f"polls.redis_net.{text}"), ("deltas", "streams.1000.redis_net_per_delta")
    for part, row in (*parts, ("questions", "questions.redis_net")):
        sheet.line(f"Redis network of {part}", "Gbit/s", f"{part} × {row} / B/s a Gbit/s")
    total = "Redis network of polls + Redis network of deltas + Redis network of questions"
    sheet.line("Redis network", "Gbit/s", total)
    sheet.line("network of a node", "Gbit/s", "Redis network / Redis nodes")
    sheet.line("Dify network", "Gbit/s", "deltas × streams.1000.dify_net_per_delta / B/s a Gbit/s")


def markdown(figures: Sequence[Figure], options: argparse.Namespace, *, steps: bool = False) -> str:
    """Return both cases side by side; with `steps`, followed by the calculation of each."""
    sheets = {case: derive(figures, options, case) for case in CASES}
    head = [f"| {number(options.users)} concurrent users | {' | '.join(CASES)} |", "|---|---|---|"]
    table = [f"| {row} | {' | '.join(str(sheet[row]) for sheet in sheets.values())} |" for row in SUMMARY]
    blocks = [f"```text\n{case}\n\n{chr(10).join(sheet.lines)}\n```" for case, sheet in sheets.items() if steps]
    return "\n\n".join(["\n".join(head + table), *blocks])


def main(argv: Sequence[str] | None = None) -> int:
    """Print the calculation; return 1 after one line of error if the results lack a row."""
    options = parse(argv)
    try:
        print(markdown(read(options.results)[0], options, steps=True))
    except (LookupError, OSError) as exc:
        print(f"bench.sizing: {exc}", file=sys.stderr)
        return 1
    return 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the options. Every default is an assumption and is printed as one."""
    parser = argparse.ArgumentParser(prog="python -m bench.sizing", description="What this number of people needs.")
    parser.add_argument("--users", type=float, default=100_000, help="people with the chat open")
    parser.add_argument("--questions-per-minute", type=float, default=1.0, help="what one of them asks (usual case)")
    parser.add_argument("--answer-seconds", type=float, default=20.0, help="from a question to its answer's end")
    parser.add_argument("--polls", type=float, default=1.0, help="refreshes a second by WeCom while an answer runs")
    parser.add_argument("--deltas", type=float, default=10.0, help="deltas a second of one answer")
    parser.add_argument("--text", choices=("1k", "16k"), default="1k", help="text of a poll's reply in bytes")
    parser.add_argument("--headroom", type=float, default=0.6, help="part of a core or of memory to be used")
    parser.add_argument("--workers", type=int, default=4, help="replicas (worker processes) of a pod")
    parser.add_argument("--node-gb", type=float, default=16.0, help="memory of a Redis node")
    parser.add_argument("--dify-runs", type=float, default=10, help="runs at once of one Dify API container")
    parser.add_argument("--results", type=Path, default=RESULTS, help="which results.json")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
