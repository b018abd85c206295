"""Draws what docs/performance.md shows of bench/results.json.

One picture: polls a second of one worker over the number of live answers, with the floor as a line. It contains its
points as its description, so that a test can check that it belongs to the results without drawing it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure as Picture
from matplotlib.typing import RcKeyType

from bench.figures import Figure

NAME = "performance-polls.svg"
#: Size in inches: 800 pixels wide if a page shows the picture unscaled.
SIZE, PIXELS_AN_INCH = (8.0, 4.2), 100
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


def lines(figures: Iterable[Figure]) -> tuple[tuple[float, ...], dict[str, tuple[float, ...]]]:
    """Return the numbers of live answers, and the polls at each by label. Raises: LookupError: the results lack them.

    They are from CPU time, not elapsed time, so other load on the machine does not change them. A worker has one core.
    """
    values = {figure.name: figure.value for figure in figures}
    start, end = "growth.live.", ".poll_cpu"
    steps = [name[len(start) : -len(end)] for name in values if name.startswith(start) and name.endswith(end)]
    if not steps:
        raise LookupError(f"the results have no {start}<count>{end}")
    return tuple(float(step.replace("k", "000")) for step in steps), {
        "this gateway": tuple(1e6 / values[f"{start}{step}{end}"] for step in steps),
        "floor: the same work and nothing else": (1e6 / values["polls.floor_cpu.1k"],) * len(steps),
    }


def description(figures: Iterable[Figure]) -> str:
    """Return the points as text, as stored in the file."""
    x, polls = lines(figures)
    return json.dumps([[label, x, [float(f"{y:.4g}") for y in line]] for label, line in polls.items()])


def draw(figures: Sequence[Figure], folder: Path) -> None:
    """Draw the chart as the SVG file `NAME` in `folder`."""
    x, polls = lines(figures)
    with rc_context(STYLE):
        picture = Picture(figsize=SIZE, dpi=PIXELS_AN_INCH, facecolor="white", layout="constrained")
        axes = picture.add_subplot(
            title="Polls a second of one worker", xlabel="live answers in Redis", ylabel="polls per second of CPU"
        )
        for (label, line), mark in zip(polls.items(), ("o-", "--"), strict=True):
            axes.plot(x, line, mark, label=label)
        axes.set_xscale("log")
        axes.set_xticks(x, [f"{one:,.0f}" for one in x], minor=False)
        axes.yaxis.set_major_formatter("{x:,.0f}")
        # Space above the lines for the legend.
        axes.set_ylim(0, 1.2 * max(y for line in polls.values() for y in line))
        axes.legend(loc="upper left", ncols=len(polls), frameon=False)
        picture.savefig(folder / NAME, metadata={"Date": None, "Description": description(figures)})
