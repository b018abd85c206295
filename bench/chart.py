"""`python -m bench.chart`: draw what docs/performance.md shows of bench/results.json.

Two pictures over the number of live streams: polls a second of one worker with the floor as a line, and the delay from
a provider's delta to its write in Redis. Each picture contains its points as its description, so that a test can check
that it belongs to the results without drawing it.
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
#: Size in inches: 800 pixels wide if a page shows the picture unscaled.
SIZE, PIXELS_AN_INCH = (8.0, 4.2), 100
#: The goal for the 99th percentile of the delay at 1,000 answers at once, in ms.
GOAL = 250.0
#: Fonts are matplotlib's own, drawn as shapes, and the file contains no date: the same points give the same file.
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
    """One line of a picture. If `measured`, its points are marked; otherwise it is a limit to compare with."""

    label: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    measured: bool = True


class Chart(NamedTuple):
    """One picture: its file name, its axis labels, and its lines."""

    name: str
    title: str
    across: str
    up: str
    lines: tuple[Line, ...]
    #: Whether the horizontal axis is logarithmic.
    wide: bool = False

    @property
    def description(self) -> str:
        """The points as text, as stored in the file."""
        return json.dumps([[line.label, line.x, [float(f"{y:.4g}") for y in line.y]] for line in self.lines])


def charts(figures: Iterable[Figure]) -> tuple[Chart, Chart]:
    """Return the charts.

    Raises:
        LookupError: the results lack a row.
    """
    values = {figure.name: figure.value for figure in figures}
    return _polls(values), _delays(values)


def _polls(values: Mapping[str, float]) -> Chart:
    names, live = _counts(values, "growth.live.", ".poll_cpu")
    # From CPU time, not elapsed time, so other load on the machine does not change it. One worker has one core.
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
    """Return the steps between `start` and `end` in figures' names, as written (`10k`) and as numbers."""
    names = [name.removeprefix(start).removesuffix(end) for name in values if name.startswith(start)]
    found = [name for name in names if f"{start}{name}{end}" in values]
    if not found:
        raise LookupError(f"the results have no {start}<count>{end}")
    return found, tuple(float(name.replace("k", "000")) for name in found)


def draw(figures: Iterable[Figure], folder: Path) -> list[Path]:
    """Draw the charts as SVG; return the files by name."""
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
        # Space above the lines for the legend.
        axes.set_ylim(0, 1.2 * max(y for line in chart.lines for y in line.y))
        axes.legend(loc="upper left", ncols=len(chart.lines), frameon=False)
        picture.savefig(path, metadata={"Date": None, "Description": chart.description})
    return path


if __name__ == "__main__":
    print(*draw(read(RESULTS)[0], IMAGES), sep="\n")
