"""`python -m bench.growth`: whether costs stay constant with longer answers, more live streams and more replicas."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence

from bench.figures import Figure
from bench.growing import length as growth_length
from bench.growing import live as growth_live
from bench.growing import replicas as growth_replicas
from bench.report import show

PARTS: Mapping[str, Callable[[float], Iterator[Figure]]] = {
    "length": growth_length.measure,
    "live": growth_live.measure,
    "replicas": growth_replicas.measure,
}


def measure(scale: float = 1.0, parts: Sequence[str] = tuple(PARTS)) -> Iterator[Figure]:
    """Yield the figures of these parts; `scale` shortens all of them. Raises the parts' exceptions."""
    for part in parts:
        yield from PARTS[part](scale)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print the table; return 0 if every goal is reached."""
    parser = argparse.ArgumentParser(prog="python -m bench.growth", description="What grows with what.")
    parser.add_argument("--only", action="append", choices=PARTS, help="this part, instead of all")
    parser.add_argument("--scale", type=float, default=1.0, help="how much of it, beside the usual")
    options = parser.parse_args(argv)
    figures = show(measure(options.scale, options.only or tuple(PARTS)))
    return 0 if all(figure.met is not False for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
