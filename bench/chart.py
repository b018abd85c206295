"""`python -m bench.chart`: draw what docs/performance.md shows of bench/results.json.

Two pictures over the number of live streams: polls a second of one worker with the floor as a line, and the delay from
a provider's delta to its place in Redis. Each picture carries its points as its description, so that a test can tell
whether it belongs to the results without drawing it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib import rc_context
from matplotlib.figure import Figure as Picture
from matplotlib.typing import RcKeyType

from bench.figures import Figure
from bench.report import RESULTS, read
from bench.stage.replicas import ROOT

IMAGES = ROOT / "docs" / "images"
#: Inches: 800 pixels wide where a page shows a picture in its own size.
SIZE, PIXELS_AN_INCH = (8.0, 4.2), 100
#: The goal for the 99th percentile of the delay at 1,000 answers at once, in ms.
GOAL = 250.0
#: Fonts come with matplotlib and are drawn as shapes, and nothing depends on the day: the same points, the same file.
STYLE: dict[RcKeyType, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 12,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "lines.linewidth": 2.2,
    "svg.fonttype": "path",
    "svg.hashsalt": "bench",
}


class Line(NamedTuple):
    """One line of a picture; a `measured` one shows its points, another is a bound to compare with."""

    label: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    measured: bool = True


class Chart(NamedTuple):
    """One picture: the name of its file, what its axes say, and its lines."""

    name: str
    title: str
    across: str
    up: str
    lines: tuple[Line, ...]
    #: Whether the numbers across span orders of magnitude.
    wide: bool = False

    @property
    def description(self) -> str:
        """Its points, as the file holds them."""
        return json.dumps([[line.label, line.x, [float(f"{y:.4g}") for y in line.y]] for line in self.lines])


def charts(figures: Iterable[Figure]) -> tuple[Chart, Chart]:
    """Return what is drawn.

    Raises:
        LookupError: the results lack a row.
    """
    values = {figure.name: figure.value for figure in figures}
    return _polls(values), _delays(values)


def _polls(values: Mapping[str, float]) -> Chart:
    names, live = _counts(values, "growth.live.", ".poll_cpu")
    # CPU, not the clock: a neighbour on the machine bends no line. One worker has one core.
    served = tuple(1e6 / values[f"growth.live.{name}.poll_cpu"] for name in names)
    floor = (1e6 / values["polls.floor_cpu.1k"],) * len(live)
    lines = Line("this gateway", live, served), Line("floor: the same work and nothing else", live, floor, False)
    title = "Polls a second of one worker"
    return Chart("performance-polls", title, "live streams in Redis", "polls per second of CPU", lines, wide=True)


def _delays(values: Mapping[str, float]) -> Chart:
    names, live = _counts(values, "streams.", ".delay_p99")
    p50, p99 = (tuple(values[f"streams.{name}.{what}"] for name in names) for what in ("delay_p50", "delay_p99"))
    lines = (
        Line("median", live, p50),
        Line("p99", live, p99),
        Line("goal for p99 at 1,000", live, (GOAL,) * len(live), False),
    )
    title = "From a delta of Dify to its place in Redis"
    return Chart("performance-delay", title, "answers being written at once, 10 deltas a second each", "ms", lines)


def _counts(values: Mapping[str, float], start: str, end: str) -> tuple[list[str], tuple[float, ...]]:
    """Return what stands between `start` and `end` in the names of figures, as it is written (`10k`) and as numbers."""
    names = [name.removeprefix(start).removesuffix(end) for name in values if name.startswith(start)]
    found = [name for name in names if f"{start}{name}{end}" in values]
    if not found:
        raise LookupError(f"the results have no {start}<count>{end}")
    return found, tuple(float(name.replace("k", "000")) for name in found)


def draw(figures: Iterable[Figure], folder: Path) -> list[Path]:
    """Draw the charts as SVG, and return their files."""
    return [_drawn(chart, folder / f"{chart.name}.svg") for chart in charts(figures)]


def _drawn(chart: Chart, path: Path) -> Path:
    with rc_context(STYLE):
        picture = Picture(figsize=SIZE, dpi=PIXELS_AN_INCH, facecolor="white", layout="constrained")
        axes = picture.add_subplot(title=chart.title, xlabel=chart.across, ylabel=chart.up)
        for line in chart.lines:
            axes.plot(line.x, line.y, "o-" if line.measured else "--", label=line.label)
        if chart.wide:
            axes.set_xscale("log")
        axes.set_xticks(chart.lines[0].x, [f"{x:,.0f}" for x in chart.lines[0].x], minor=False)
        axes.yaxis.set_major_formatter("{x:,.0f}")
        # Room above every line, for the legend.
        axes.set_ylim(0, 1.2 * max(y for line in chart.lines for y in line.y))
        axes.legend(loc="upper left", ncols=len(chart.lines), frameon=False)
        picture.savefig(path, metadata={"Date": None, "Description": chart.description})
    return path


if __name__ == "__main__":
    print(*draw(read(RESULTS)[0], IMAGES), sep="\n")
