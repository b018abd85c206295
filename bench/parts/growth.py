"""What the parts of `growth` share: costs in rounds of short slices, and how much a cost grows.

On a shared machine the same work sometimes takes up to twice the CPU time for a second. So costs are measured in many
short slices, compared items in turns; the value of a round is the 25th percentile of its slices.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping

from bench.figures import Figure, percentile

#: The goal for the ratio between the largest and the smallest step of a cost that should not grow.
FLAT = "<= 1.15"


class Costs(defaultdict[str, list[float]]):
    """The values of each cost by its name, one per slice or one per round."""

    def __init__(self) -> None:
        super().__init__(list)

    def add(self, **costs: float) -> None:
        for name, value in costs.items():
            self[name].append(value)

    def end_round(self, slices: Costs) -> None:
        """Add a round with the 25th percentile of its slices: other load on the machine only increases a cost."""
        self.add(**{name: percentile(values, 25) for name, values in slices.items()})


def table(part: str, costs: Mapping[str, tuple[str, str]], steps: Mapping[str, Costs]) -> Iterator[Figure]:
    """Yield each cost at each step, and its growth. `costs` has the unit and the description of each."""
    for cost, (unit, about) in costs.items():
        row = [Figure(f"{part}.{step}.{cost}", tuple(rounds[cost]), unit, about) for step, rounds in steps.items()]
        yield from row
        values = [figure.value for figure in row]
        spread, about = max(values) / min(values), "largest / smallest of these"
        yield Figure(f"{part}.{cost}.spread", (spread,), "ratio", about, goal=FLAT)
