"""`python -m bench`: measure everything on this machine, print one table, and make docs/performance.md of it.

Rows are printed to standard error as they are measured, the whole table to standard output at the end. If a part
fails, the others still run. `--docs` measures nothing: it prints the table of bench/results.json, and rewrites the
document from it.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import time
import traceback
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from bench import chart, report, sizing
from bench.figures import Figure
from bench.parts import PARTS, part_of
from bench.stage import machine
from bench.stage.servers import ROOT

PAGE, IMAGES = ROOT / "docs" / "performance.md", ROOT / "docs" / "images"

Measure = Callable[[], Iterable[Figure]]


def main(argv: Sequence[str] | None = None, measures: Mapping[str, Measure] | None = None) -> int:
    """Measure, print and store the figures; return 1 if a part failed. `measures` replaces the parts in tests."""
    options = parse(argv)
    if options.docs:
        print(*table(*report.read(report.RESULTS)), sep="\n")
        rewrite()
        return 0
    facts = machine.describe(options.scale)
    figures, failed = measured(measures or {part: partial(_measure, part, options.scale) for part in options.only})
    print(*table(figures, facts), *failed, sep="\n")
    if options.out:
        report.write(options.out, merged(options.out, options.only, figures), facts)
    if options.out == report.RESULTS and not failed:
        rewrite()
    return 1 if failed else 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the options. By default only a complete run at full length replaces bench/results.json."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure the gateway on this machine.")
    parser.add_argument("--only", type=_parts, default=list(PARTS), help=f"some of {','.join(PARTS)}, or growth")
    parser.add_argument("--scale", type=float, default=1.0, help="length of each round, relative to the usual one")
    parser.add_argument("--out", type=Path, help="where the figures are stored, in the place of those they replace")
    parser.add_argument("--docs", action="store_true", help="print results.json, and rewrite the document")
    options = parser.parse_args(argv)
    if options.out is None and options.only == list(PARTS) and options.scale == 1.0:
        options.out = report.RESULTS
    return options


def measured(parts: Mapping[str, Measure]) -> tuple[list[Figure], list[str]]:
    """Run the parts one after another; return their figures, and one line for each part that failed."""
    figures: list[Figure] = []
    failed: list[str] = []
    for part, measure in parts.items():
        began = time.monotonic()
        print(report.head(), file=sys.stderr)
        try:
            for figure in measure():
                figures.append(figure)
                print(report.row(figure, figures), file=sys.stderr, flush=True)
        except Exception as exc:
            traceback.print_exc()
            failed.append(f"{part} failed: {type(exc).__name__}: {exc}")
        print(f"{part}: {time.monotonic() - began:.0f} s\n", file=sys.stderr, flush=True)
    return figures, failed


def merged(path: Path, parts: Collection[str], figures: Iterable[Figure]) -> list[Figure]:
    """Return the new figures of these parts and the file's figures of the others, in the parts' order."""
    stored = report.read(path)[0] if path.exists() else []
    kept = [figure for figure in stored if part_of(figure.name) not in parts]
    return sorted([*kept, *figures], key=lambda figure: PARTS.index(part_of(figure.name)))


def table(figures: Sequence[Figure], facts: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of the table: the cost of a callback, the machine, every figure."""
    yield from report.comparison(figures)
    yield from machine.head(facts)
    yield from ("", report.head())
    yield from (report.row(figure, figures) for figure in figures)


def rewrite(page: Path = PAGE, images: Path = IMAGES) -> None:
    """Write the table, the sizes and the chart of bench/results.json into the document.

    Raises:
        LookupError: the results lack a figure that one of them needs.
    """
    figures, facts = report.read(report.RESULTS)
    text = page.read_text("utf-8")
    for name, content in sections(figures, facts).items():
        text = report.replaced(text, name, content)
    page.write_text(text, "utf-8")
    chart.draw(figures, images)


def sections(figures: Sequence[Figure], facts: Mapping[str, Any]) -> dict[str, str]:
    """Return the generated sections of the document, by the name of their marks."""
    return {
        "claims": "\n".join(report.comparison(figures)) + ".",
        "machine": "\n".join(f"- {line}" for line in machine.head(facts)),
        "answers": report.answers(figures),
        "sizing": sizing.markdown(figures, sizing.parse([])),
    }


def _measure(part: str, scale: float) -> Iterable[Figure]:
    figures: Iterable[Figure] = importlib.import_module(f"bench.parts.{part.replace('.', '_')}").measure(scale)
    return figures


def _parts(text: str) -> list[str]:
    """Parse the parts' names. Raises: argparse.ArgumentTypeError: a part is unknown."""
    names = text.split(",")
    if unknown := [name for name in names if not any(_is_named(part, name) for part in PARTS)]:
        raise argparse.ArgumentTypeError(f"no part is called {', '.join(unknown)}")
    return [part for part in PARTS if any(_is_named(part, name) for name in names)]


def _is_named(part: str, name: str) -> bool:
    return part == name or part.startswith(f"{name}.")


if __name__ == "__main__":
    sys.exit(main())
