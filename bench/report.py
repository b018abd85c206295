"""Prints and stores figures: as rows on a terminal, as results.json, and as the tables of docs/performance.md."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
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
_ROW = "{:<45} {:>10}  {:<19} {:<10} {:<10} {:<4} {}"
_HEAD = ("figure", "median", "low–high", "unit", "goal", "met", "beside its yardstick")
#: The name of a figure in a series: subject, step, and cost.
_AT_A_STEP = re.compile(r"(.+?)\.(\d+k?)\.(.+)")
_MET = {None: "", True: "yes", False: "NO"}


def show(figures: Iterable[Figure]) -> list[Figure]:
    """Print each figure as it arrives and return all; a yardstick measured after its figure is only named."""
    shown: list[Figure] = []
    for row in rows(collected(figures, shown), shown):
        print(row, flush=True)
    return shown


def rows(figures: Iterable[Figure], known: Sequence[Figure]) -> Iterator[str]:
    """Yield the head of the table and a line for each figure; yardsticks are looked up in `known`."""
    yield _ROW.format(*_HEAD).rstrip()
    for figure in figures:
        yield _ROW.format(*_cells(figure, known)).rstrip()


def collected(figures: Iterable[Figure], into: list[Figure]) -> Iterator[Figure]:
    """Yield the figures and append each to the list, so that those before a failure are kept."""
    for figure in figures:
        into.append(figure)
        yield figure


def first_line(figures: Iterable[Figure]) -> str:
    """Return a callback's time compared with the original's claim; "" if polls were not measured."""
    beside = (f"{what} {number(ours.value)} {ours.unit} ({claim})" for what, ours, claim in _claims(figures))
    line = ", ".join(beside)
    return f"A replica of one worker, and in brackets what the original claims: {line}" if line else ""


def claims(figures: Iterable[Figure]) -> str:
    """Return the comparison with the claims as a Markdown table."""
    columns = [(what, f"{number(ours.value)} {ours.unit}", claim) for what, ours, claim in _claims(figures)]
    names = ("", "a replica of one worker, measured", "the original's claim, never measured")
    lines = [[name, *cells] for name, cells in zip(names, zip(*columns, strict=True), strict=True)]
    return "\n".join(_markdown_rows(lines))


def markdown(figures: Sequence[Figure]) -> str:
    """Return the tables of docs/performance.md: one of single figures per part, and one per series."""
    blocks: list[str] = []
    for part, group in groupby(figures, lambda figure: figure.name.partition(".")[0]):
        rows = list(group)
        series = _series(rows)
        inside = {figure.name for costs in series.values() for steps in costs.values() for figure in steps.values()}
        single = [figure for figure in rows if figure.name not in inside]
        blocks.append(f"### {part.replace('_', ' ').capitalize()}")
        blocks += ["\n".join(_table(single, figures))] if single else []
        blocks += ["\n".join(_series_table(name, costs, figures)) for name, costs in series.items()]
    return "\n\n".join(blocks)


def write(path: Path, figures: Iterable[Figure], machine: Mapping[str, Any]) -> None:
    """Store the figures with a description of the machine."""
    written = {"machine": dict(machine), "figures": {figure.name: figure.to_json() for figure in figures}}
    path.write_text(json.dumps(written, indent=1, ensure_ascii=False) + "\n", "utf-8")


def read(path: Path) -> tuple[list[Figure], dict[str, Any]]:
    """Return the stored figures in their order, and the machine."""
    written = json.loads(path.read_text("utf-8"))
    return [Figure.from_json(name, figure) for name, figure in written["figures"].items()], written["machine"]


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
        raise LookupError(f"the document has no place for its {name}")
    return f"{before}{begin}\n{content}\n{end}{after}"


def _claims(figures: Iterable[Figure]) -> Iterator[tuple[str, Figure, str]]:
    known = {figure.name: figure for figure in figures}
    yield from ((what, known[name], claim) for what, name, claim in CLAIMS if name in known)


def _table(rows: Sequence[Figure], known: Sequence[Figure]) -> Iterator[str]:
    cells = [[f"`{figure.name}`", figure.about, *_cells(figure, known)[1:]] for figure in rows]
    return _markdown_rows([[_HEAD[0], "what it is", *_HEAD[1:]], *cells])


def _series(figures: Iterable[Figure]) -> dict[str, dict[str, dict[str, Figure]]]:
    """Group the figures `name.step.cost` by name, cost and step."""
    series: dict[str, dict[str, dict[str, Figure]]] = {}
    for figure in figures:
        if found := _AT_A_STEP.fullmatch(figure.name):
            name, step, cost = found.groups()
            series.setdefault(name, {}).setdefault(cost, {})[step] = figure
    return series


def _series_table(name: str, costs: Mapping[str, Mapping[str, Figure]], known: Sequence[Figure]) -> Iterator[str]:
    """Yield a table with a row for each cost and a column for each step."""
    columns = list(dict.fromkeys(step for steps in costs.values() for step in steps))
    head = [_HEAD[0], "what it is", *columns, *_HEAD[3:]]
    lines = []
    for cost, steps in costs.items():
        values = [_with_spread(steps[step]) if step in steps else "" for step in columns]
        *_, last = steps.values()
        goals = [figure for figure in steps.values() if figure.goal]
        goal = last.goal if len(goals) in (0, len(steps)) else f"{last.goal} at {columns[-1]}"
        met = _MET[all(figure.met for figure in goals) if goals else None]
        beside = _beside(last, known)
        lines.append([f"`{name}.*.{cost}`", last.about, *values, last.unit, goal, met, beside])
    return _markdown_rows([head, *lines])


def _with_spread(figure: Figure) -> str:
    value, spread = _cells(figure, ())[1:3]
    return f"{value} ({spread})" if spread else value


def _markdown_rows(lines: Sequence[Sequence[str]]) -> Iterator[str]:
    rule = ["---"] * len(lines[0])
    yield from (f"| {' | '.join(cells)} |" for cells in (lines[0], rule, *lines[1:]))


def _cells(figure: Figure, others: Iterable[Figure]) -> tuple[str, ...]:
    low, high = number(min(figure.rounds)), number(max(figure.rounds))
    spread = f"{low}–{high}" if len(figure.rounds) > 1 else ""
    value, unit, met = number(figure.value), figure.unit, _MET[figure.met]
    return figure.name, value, spread, unit, figure.goal, met, _beside(figure, others)


def _beside(figure: Figure, others: Iterable[Figure]) -> str:
    """Return the figure's ratio to its yardstick; only the yardstick's name if it is missing or has another unit."""
    if not figure.yardstick:
        return ""
    yardstick = next((other for other in others if other.name == figure.yardstick), None)
    if yardstick is None or yardstick.unit != figure.unit or not yardstick.value:
        return figure.yardstick
    return f"{figure.value / yardstick.value:.2f} × {figure.yardstick}"
