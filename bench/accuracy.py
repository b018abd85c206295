"""Compares rules that classify texts with labels given by people: precision, recall, time, and every error."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Score:
    """The score of one set of rules: shares from 0 to 1, microseconds per text, and the texts it got wrong."""

    precision: float
    recall: float
    microseconds: float
    wrongly_found: tuple[Any, ...]
    missed: tuple[Any, ...]


def score(texts: Sequence[Any], label: str, rule: Callable[[str], object], *, rounds: int = 1) -> Score:
    """Return a rule's score on texts whose attribute `label` is the right result; the time is the best of `rounds`."""
    judged = [(each, getattr(each, label), bool(rule(each.text))) for each in texts]
    found = sum(result for _, _, result in judged)
    wanted = sum(right for _, right, _ in judged)
    both = sum(right and result for _, right, result in judged)
    return Score(
        precision=both / found if found else 1.0,
        recall=both / wanted if wanted else 1.0,
        microseconds=min(_seconds(rule, texts) for _ in range(rounds)) / len(texts) * 1e6,
        wrongly_found=tuple(each for each, right, result in judged if result and not right),
        missed=tuple(each for each, right, result in judged if right and not result),
    )


def _seconds(rule: Callable[[str], object], texts: Sequence[Any]) -> float:
    began = time.perf_counter()
    for each in texts:
        rule(each.text)
    return time.perf_counter() - began


def main(argv: Sequence[str] | None, name: str, measure: Callable[[str], tuple[str, Mapping[str, Score]]]) -> int:
    """Print a table of all rules, then the errors of the first.

    `measure` returns a heading and the scores for one part of the labelled set.
    """
    parser = argparse.ArgumentParser(prog=f"python -m bench.{name}", description="Compare the rules on labelled texts.")
    parser.add_argument("--part", choices=("test", "develop"), default="test", help="which labelled texts")
    parser.add_argument("--figures-only", action="store_true", help="without the list of errors")
    options = parser.parse_args(argv)
    heading, scores = measure(options.part)
    print(f"{heading}\n\n| rules | precision | recall | µs per text |\n|---|---|---|---|")
    for rules, one in scores.items():
        print(f"| {rules} | {one.precision:.3f} | {one.recall:.3f} | {one.microseconds:.0f} |")
    first = next(iter(scores.values()))
    errors = () if options.figures_only else (("Found wrongly", first.wrongly_found), ("Missed", first.missed))
    for title, texts in errors:
        print(f"\n{title}:", *(f"- {each.text} ({each.kind})" for each in texts), sep="\n")
    return 0
