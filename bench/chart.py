"""Draws what docs/performance.md shows of bench/results.json.

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


class Chart(NamedTuple):
    """One picture: its file name, its title, its axis labels, the points on its horizontal axis, and its lines."""

    name: str
    title: str
    across: str
    up: str
    x: tuple[float, ...]
    #: The values by label; the last line is a limit to compare with, the others are measured.
    lines: Mapping[str, tuple[float, ...]]
    is_logarithmic: bool = False

    @property
    def description(self) -> str:
        """The points as text, as stored in the file."""
        return json.dumps([[label, self.x, [float(f"{y:.4g}") for y in line]] for label, line in self.lines.items()])


def charts(figures: Iterable[Figure]) -> tuple[Chart, Chart]:
    """Return the charts. Raises: LookupError: the results lack a row."""
    values = {figure.name: figure.value for figure in figures}
    steps = _steps(values, "growth.live.", ".poll_cpu")
    # From CPU time, not elapsed time, so other load on the machine does not change it. One worker has one core.
    polls = {
        "this gateway": tuple(1e6 / values[f"growth.live.{step}.poll_cpu"] for step in steps),
        "floor: the same work and nothing else": (1e6 / values["polls.floor_cpu.1k"],) * len(steps),
    }
    answers = _steps(values, "streams.", ".delay_p99")
    delays = {
        "median": tuple(values[f"streams.{step}.delay_p50"] for step in answers),
        "p99": tuple(values[f"streams.{step}.delay_p99"] for step in answers),
        "goal for p99 at 1,000": (GOAL,) * len(answers),
    }
    titles = "Polls a second of one worker", "From a delta of Dify to its place in Redis"
    across = "live streams in Redis", "answers being written at once, 10 deltas a second each"
    return (
        Chart("performance-polls", titles[0], across[0], "polls per second of CPU", _numbers(steps), polls, True),
        Chart("performance-delay", titles[1], across[1], "ms", _numbers(answers), delays),
    )


def _steps(values: Iterable[str], start: str, end: str) -> list[str]:
    """Return the steps between `start` and `end` in figures' names, such as `10k`."""
    steps = [name[len(start) : -len(end)] for name in values if name.startswith(start) and name.endswith(end)]
    if not steps:
        raise LookupError(f"the results have no {start}<count>{end}")
    return steps


def _numbers(steps: Iterable[str]) -> tuple[float, ...]:
    return tuple(float(step.replace("k", "000")) for step in steps)


def draw(figures: Iterable[Figure], folder: Path) -> None:
    """Draw the charts as SVG files."""
    for chart in charts(figures):
        with rc_context(STYLE):
            picture = Picture(figsize=SIZE, dpi=PIXELS_AN_INCH, facecolor="white", layout="constrained")
            axes = picture.add_subplot(title=chart.title, xlabel=chart.across, ylabel=chart.up)
            for label, line in chart.lines.items():
                axes.plot(chart.x, line, "--" if label == [*chart.lines][-1] else "o-", label=label)
            if chart.is_logarithmic:
                axes.set_xscale("log")
            axes.set_xticks(chart.x, [f"{x:,.0f}" for x in chart.x], minor=False)
            axes.yaxis.set_major_formatter("{x:,.0f}")
            # Space above the lines for the legend.
            axes.set_ylim(0, 1.2 * max(y for line in chart.lines.values() for y in line))
            axes.legend(loc="upper left", ncols=len(chart.lines), frameon=False)
            metadata = {"Date": None, "Description": chart.description}
            picture.savefig(folder / f"{chart.name}.svg", metadata=metadata)
