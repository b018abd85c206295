"""The figures of a benchmark, each with its value in every round, its yardstick and its goal."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median, quantiles
from typing import Any, TypeVar

_COMPARE = {">=": operator.ge, "<=": operator.le, "<": operator.lt, ">": operator.gt}

Round = TypeVar("Round")


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured figure. `name` is its row in the table and in results.json: `part.what[.which]`."""

    name: str
    #: The value in each round, in order; one value if it is measured once.
    rounds: tuple[float, ...]
    unit: str
    #: A short description.
    about: str
    #: The name of the figure to compare it with; "" for none.
    yardstick: str = ""
    #: The goal in the figure's unit, such as ">= 1.0" or "< 50"; "" for none.
    goal: str = ""

    @property
    def value(self) -> float:
        """The median of the rounds."""
        return median(self.rounds)

    @property
    def met(self) -> bool | None:
        """Whether the goal is reached; None if there is none."""
        if not self.goal:
            return None
        compare, bound = self.goal.split()
        return bool(_COMPARE[compare](self.value, float(bound)))

    def to_json(self) -> dict[str, Any]:
        return {
            "value": _rounded(self.value),
            "unit": self.unit,
            "low": _rounded(min(self.rounds)),
            "high": _rounded(max(self.rounds)),
            "rounds": [_rounded(value) for value in self.rounds],
            "about": self.about,
            "yardstick": self.yardstick or None,
            "goal": self.goal or None,
            "met": self.met,
        }

    @classmethod
    def from_json(cls, name: str, stored: Mapping[str, Any]) -> Figure:
        rounds = tuple(float(value) for value in stored["rounds"])
        return cls(name, rounds, stored["unit"], stored["about"], stored["yardstick"] or "", stored["goal"] or "")


def figure(
    name: str, rounds: Iterable[Round], value: Callable[[Round], float], unit: str, about: str, **more: str
) -> Figure:
    """Return a figure with one value of each round; `more` are its yardstick and its goal."""
    return Figure(name, tuple(map(value, rounds)), unit, about, **more)


def ratios(name: str, over: Sequence[float], under: Sequence[float], about: str, **more: str) -> Figure:
    """Return the figure `over` / `under`, round by round, for two figures measured in turns."""
    return Figure(name, tuple(a / b for a, b in zip(over, under, strict=True)), "ratio", about, **more)


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the value that this percentage of `values` does not exceed."""
    if len(values) == 1:
        return values[0]
    return quantiles(values, n=1000, method="inclusive")[max(0, round(percent * 10) - 1)]


def _rounded(value: float) -> float:
    """Round to four significant digits: no figure is more precise."""
    return float(f"{value:.4g}")
