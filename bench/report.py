"""Prints and stores figures: as rows on a terminal, as results.json, and as the table of docs/performance.md."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from bench.figures import Figure

RESULTS = Path(__file__).with_name("results.json")
#: Claims of the original system: the figure to compare with each, and the claim.
CLAIMS = (
    ("mean callback", "polls.mean", "200 ms"),
    ("callbacks a second", "polls.product.1k", "1,000"),
    ("memory of a replica", "polls.rss", "512 MB"),
)
#: What a reader of docs/performance.md asks, and the figures that answer it.
ANSWERS = (
    ("CPU of a poll by WeCom, with 1 KiB and with 16 KiB of text", ("polls.cpu.1k", "polls.cpu.16k")),
    ("CPU of a question with a short answer", ("questions.cpu",)),
    ("CPU of a piece of an answer, while 1,000 answers grow", ("streams.1000.cpu_per_delta",)),
    (
        "CPU of Redis for each of them: poll, question, piece",
        ("polls.redis_cpu.1k", "questions.redis_cpu", "streams.1000.redis_cpu_per_delta"),
    ),
    ("Polls a second of one worker, 1 KiB and 16 KiB", ("polls.product.1k", "polls.product.16k")),
    ("Time of a poll at 1,000 a second: median, p99", ("polls.p50", "polls.p99")),
    ("Time to the first frame at 200 questions a second: median, p99", ("questions.200.p50", "questions.200.p99")),
    ("From Dify's first piece to who polls without pause: median, p99", ("first_word.poll.p50", "first_word.poll.p99")),
    ("From Dify's first piece to a socket: median, p99", ("first_word.socket.p50", "first_word.socket.p99")),
    (
        "From a piece to Redis while 1,000 answers grow: median, p99",
        ("streams.1000.delay_p50", "streams.1000.delay_p99"),
    ),
    ("Answers lost or asked twice among 1,000", ("streams.1000.lost",)),
    (
        "Memory of an idle worker, what it shares with the master in part; of two workers with 1,000 answers",
        ("start.worker_pss", "streams.1000.rss"),
    ),
    ("Memory of an idle socket, and the part of a core of 1,000", ("sockets.idle_kib", "sockets.idle_cpu")),
    (
        "Slowest poll of 2,500 bubbles every second, of 10,000 every four, while 300 answers grow, all on two cores",
        ("scale.2500.most", "scale.10000.most"),
    ),
    ("Memory of two workers with 5,000 idle sockets", ("scale.sockets_mib",)),
    ("Redis' memory for an answer, kept for `STREAM_TTL`", ("growth.live.100k.redis_bytes_per_stream",)),
    (
        "Growth of a poll's CPU from 1,000 to 100,000 live answers: worker, Redis",
        ("growth.live.poll_cpu.spread", "growth.live.redis_cpu_per_poll.spread"),
    ),
    (
        "Growth of a piece's CPU from 1,000 to 16,000 pieces: worker, Redis",
        ("growth.length.cpu_per_delta.spread", "growth.length.redis_cpu_per_delta.spread"),
    ),
    ("CPU of a poll with one replica / with four", ("growth.replicas.efficiency",)),
    ("Start until ready", ("start.ready",)),
)
#: The unit of the costs: what a poll costs a program that does nothing else.
FLOOR = "polls.floor_cpu.1k"
_ROW = "{:<45} {:>10}  {:<19} {:<10} {:<10} {:<4} {:<36} {}"
_HEAD = ("figure", "median", "low–high", "unit", "goal", "met", "beside its yardstick", "what it is")
_MET = {None: "", True: "yes", False: "NO"}


def head() -> str:
    """Return the head of the table."""
    return _ROW.format(*_HEAD)


def row(figure: Figure, known: Iterable[Figure]) -> str:
    """Return a figure as a line of the table; its yardstick is looked up in `known`."""
    return _ROW.format(*_cells(figure, known)).rstrip()


def comparison(figures: Iterable[Figure]) -> Iterator[str]:
    """Yield one line with a callback's time beside the original's claim; nothing if polls were not measured."""
    known = {figure.name: figure for figure in figures}
    beside = [f"{what} {_with_unit(known[name])} ({claim})" for what, name, claim in CLAIMS if name in known]
    if beside:
        yield f"A replica of one worker, and in brackets what the original claims: {', '.join(beside)}"


def answers(figures: Iterable[Figure]) -> str:
    """Return the table of docs/performance.md. Raises: LookupError: the results lack a figure."""
    known = {figure.name: figure for figure in figures}
    rows = [["", "measured", "polls of the floor", "goal"], ["---"] * 4]
    for question, names in ANSWERS:
        if missing := [name for name in (*names, FLOOR) if name not in known]:
            raise LookupError(f"the results have no {missing[0]}")
        found = [known[name] for name in names]
        costs = [one for one in found if one.unit == "µs" and "redis" not in one.name]
        floors = [f"{one.value / known[FLOOR].value:.2f}" for one in costs]
        goals = [f"{one.goal}{' (missed)' if one.met is False else ''}" for one in found if one.goal]
        rows.append([question, ", ".join(map(_with_unit, found)), ", ".join(floors), ", ".join(goals)])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)


def write(path: Path, figures: Iterable[Figure], machine: Mapping[str, Any]) -> None:
    """Store the figures with a description of the machine."""
    results = {"machine": dict(machine), "figures": {figure.name: figure.to_json() for figure in figures}}
    path.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", "utf-8")


def read(path: Path) -> tuple[list[Figure], dict[str, Any]]:
    """Return the stored figures in their order, and the machine."""
    results = json.loads(path.read_text("utf-8"))
    return [Figure.from_json(name, figure) for name, figure in results["figures"].items()], results["machine"]


def number(value: float) -> str:
    """Format a value with four significant digits and thousands separators."""
    rounded = float(f"{value:.4g}")
    return f"{rounded:,.0f}" if abs(rounded) >= 1000 else f"{rounded:.4g}"


def replaced(document: str, name: str, content: str) -> str:
    """Replace the text between a document's marks `<!-- begin: name -->` and `<!-- end: name -->`.

    Raises:
        LookupError: the document has no such marks.
    """
    begin, end = f"<!-- begin: {name} -->", f"<!-- end: {name} -->"
    before, found, rest = document.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise LookupError(f"the document has no marks for its {name}")
    return f"{before}{begin}\n{content}\n{end}{after}"


def _cells(figure: Figure, known: Iterable[Figure]) -> tuple[str, ...]:
    met = _MET[figure.met]
    beside = _beside(figure, known)
    return figure.name, number(figure.value), _spread(figure), figure.unit, figure.goal, met, beside, figure.about


def _with_unit(figure: Figure) -> str:
    return f"{number(figure.value)} {figure.unit}"


def _spread(figure: Figure) -> str:
    return f"{number(min(figure.rounds))}–{number(max(figure.rounds))}" if len(figure.rounds) > 1 else ""


def _beside(figure: Figure, known: Iterable[Figure]) -> str:
    """Return the figure's ratio to its yardstick; only the yardstick's name if it is missing or has another unit."""
    if not figure.yardstick:
        return ""
    yardstick = next((other for other in known if other.name == figure.yardstick), None)
    if yardstick is None or yardstick.unit != figure.unit or not yardstick.value:
        return figure.yardstick
    return f"{figure.value / yardstick.value:.2f} × {figure.yardstick}"
