"""Each part of the benchmark, once in short: it makes the figures of bench/results.json, and no answer is wrong."""

from __future__ import annotations

from importlib import import_module

import pytest

from bench import report
from bench.figures import Figure
from bench.parts import PARTS, part_of
from bench.stage.stage import Usage

pytestmark = pytest.mark.full

STORED, _ = report.read(report.RESULTS)
#: Figures that may be 0 in a short run.
MAY_BE_ZERO = ("lost", "wrong", "share", "cpu", "kib", "net", "polls", "net_per_delta", "cpu_per_delta")


def meaning(figures: list[Figure]) -> dict[str, tuple[str, str, str]]:
    return {figure.name: (figure.unit, figure.yardstick, figure.goal) for figure in figures}


@pytest.mark.scenario
@pytest.mark.timeout(240)
@pytest.mark.parametrize("part", PARTS)
def test_a_part_makes_the_figures_of_the_results(part: str) -> None:
    """Names, units, yardsticks and goals are those of the stored results; no answer is lost or wrong."""
    figures = list(import_module(f"bench.parts.{part.replace('.', '_')}").measure(0.03))

    assert meaning(figures) == meaning([figure for figure in STORED if part_of(figure.name) == part])
    for figure in figures:
        assert figure.value > 0 or figure.name.endswith(MAY_BE_ZERO), figure
        assert not figure.name.endswith(("lost", "wrong")) or figure.rounds == (0,), figure


def test_the_use_of_idle_servers_is_subtracted() -> None:
    """A turn of three seconds loses three halves of what two idle seconds use; the mock's use stays."""
    idle = Usage(seconds=2.0, workers=0.02, redis=0.01, net=200.0)
    turn = Usage(seconds=3.0, workers=1.0, redis=0.5, net=1000.0, dify=0.25, deltas=10)

    assert turn.without(idle) == pytest.approx((3.0, 0.97, 0.485, 700.0, 0.25, 10, 0.0))
    assert turn - idle == pytest.approx((1.0, 0.98, 0.49, 800.0, 0.25, 10, 0.0))
