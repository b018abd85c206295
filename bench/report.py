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

#: The figures of a series by cost and step.
Series = dict[str, dict[str, Figure]]


def head() -> str:
    """Return the head of the table."""
    return _ROW.format(*_HEAD)


def row(figure: Figure, known: Iterable[Figure]) -> str:
    """Return a figure as a line of the table; its yardstick is looked up in `known`."""
    return _ROW.format(*_cells(figure, known)).rstrip()


def comparison(figures: Iterable[Figure]) -> Iterator[str]:
    """Yield one line with a callback's time beside the original's claim; nothing if polls were not measured."""
    beside = [f"{what} {_with_unit(ours)} ({claim})" for what, ours, claim in _claims(figures)]
    if beside:
        yield f"A replica of one worker, and in brackets what the original claims: {', '.join(beside)}"


def claims(figures: Iterable[Figure]) -> str:
    """Return the comparison with the claims as a Markdown table."""
    columns = [(what, _with_unit(ours), claim) for what, ours, claim in _claims(figures)]
    names = ("", "a replica of one worker, measured", "the original's claim, never measured")
    return _markdown_table([name, *cells] for name, cells in zip(names, zip(*columns, strict=True), strict=True))


def markdown(figures: Sequence[Figure]) -> str:
    """Return the tables of docs/performance.md: one of single figures per part, and one per series."""
    blocks: list[str] = []
    for part, group in groupby(figures, lambda figure: figure.name.partition(".")[0]):
        single, all_series = _split(group)
        blocks.append(f"### {part.replace('_', ' ').capitalize()}")
        if single:
            rows = [[f"`{figure.name}`", figure.about, *_cells(figure, figures)[1:]] for figure in single]
            blocks.append(_markdown_table([[_HEAD[0], "what it is", *_HEAD[1:]], *rows]))
        blocks += [_markdown_table(_series_rows(name, series, figures)) for name, series in all_series.items()]
    return "\n\n".join(blocks)


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


def _claims(figures: Iterable[Figure]) -> Iterator[tuple[str, Figure, str]]:
    known = {figure.name: figure for figure in figures}
    yield from ((what, known[name], claim) for what, name, claim in CLAIMS if name in known)


def _split(figures: Iterable[Figure]) -> tuple[list[Figure], dict[str, Series]]:
    """Separate single figures from series of figures `name.step.cost`."""
    single: list[Figure] = []
    series: dict[str, Series] = {}
    for figure in figures:
        if found := _AT_A_STEP.fullmatch(figure.name):
            name, step, cost = found.groups()
            series.setdefault(name, {}).setdefault(cost, {})[step] = figure
        else:
            single.append(figure)
    return single, series


def _series_rows(name: str, series: Series, known: Sequence[Figure]) -> Iterator[list[str]]:
    """Yield the head, and a row for each cost with a column for each step."""
    columns = list(dict.fromkeys(step for steps in series.values() for step in steps))
    yield [_HEAD[0], "what it is", *columns, *_HEAD[3:]]
    for cost, steps in series.items():
        values = [_with_spread(steps[step]) if step in steps else "" for step in columns]
        *_, last = steps.values()
        goals = [figure for figure in steps.values() if figure.goal]
        goal = last.goal if len(goals) in (0, len(steps)) else f"{last.goal} at {columns[-1]}"
        met = _MET[all(figure.met for figure in goals) if goals else None]
        yield [f"`{name}.*.{cost}`", last.about, *values, last.unit, goal, met, _beside(last, known)]


def _markdown_table(rows: Iterable[Sequence[str]]) -> str:
    first, *others = rows
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (first, ["---"] * len(first), *others))


def _cells(figure: Figure, known: Iterable[Figure]) -> tuple[str, ...]:
    met = _MET[figure.met]
    return figure.name, number(figure.value), _spread(figure), figure.unit, figure.goal, met, _beside(figure, known)


def _with_unit(figure: Figure) -> str:
    return f"{number(figure.value)} {figure.unit}"


def _with_spread(figure: Figure) -> str:
    spread = _spread(figure)
    return f"{number(figure.value)} ({spread})" if spread else number(figure.value)


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
