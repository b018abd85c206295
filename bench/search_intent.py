"""`python -m bench.search_intent`: the accuracy of the rules for web searches, compared with the originals' rules.

Measured on the labelled texts of tests/search, by default on the part that no rule was written for. False positives
and missed searches are listed below the table.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from utils.questions.search_intent import Wants, by_rules

FOLDER = Path(__file__).parent.parent / "tests" / "unit" / "questions" / "searches"

#: The originals' words: a match anywhere, even inside a word, triggers a search.
V2_WORDS = ("搜索", "查找", "找", "search", "find", "lookup")
V3_WORDS = ("搜索", "查找", "找", "搜", "search", "find", "look up", "最新", "新闻", "latest", "news", "recent", "天气",
            "weather", "股票", "stock")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Labelled:
    """A question, and whether a person would look it up on the web."""

    text: str
    search: bool
    kind: str
    lang: str


@dataclass(frozen=True, slots=True)
class Score:
    """The score of one router: shares from 0 to 1, microseconds per text, and its errors."""

    precision: float
    recall: float
    microseconds: float
    wrongly_searched: tuple[Labelled, ...]
    missed: tuple[Labelled, ...]


def by_words(words: Sequence[str]) -> Wants:
    """Return a router that looks for words, as the originals did."""
    return lambda text: text if any(word in text.lower() for word in words) else None


ROUTERS: dict[str, Wants] = {"ours": by_rules, "v2": by_words(V2_WORDS), "v3": by_words(V3_WORDS)}


def labelled(part: str) -> list[Labelled]:
    """Read one part of the labelled set: "develop" or "test"."""
    lines = (FOLDER / f"{part}.jsonl").read_text("utf-8").splitlines()
    return [Labelled(**json.loads(line)) for line in lines]


def measure(wants: Wants, texts: Sequence[Labelled]) -> Score:
    """Return a router's score on labelled texts."""
    begun = time.perf_counter()
    judged = [(each, wants(each.text) is not None) for each in texts]
    seconds = time.perf_counter() - begun
    searched = [each for each, search in judged if search]
    right = sum(each.search for each in searched)
    wanting = sum(each.search for each in texts)
    return Score(
        precision=right / len(searched) if searched else 1.0,
        recall=right / wanting if wanting else 1.0,
        microseconds=seconds / len(texts) * 1e6,
        wrongly_searched=tuple(each for each in searched if not each.search),
        missed=tuple(each for each, search in judged if each.search and not search),
    )


def main(argv: Sequence[str] | None = None, *, write: Callable[[str], None] = print) -> int:
    """Measure all three and print the table, then the errors of the product's router."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.search_intent", description="Which router finds what wants a web search."
    )
    parser.add_argument("--part", choices=("test", "develop"), default="test", help="which labelled texts")
    parser.add_argument("--figures-only", action="store_true", help="without the list of what was wrong")
    options = parser.parse_args(argv)
    texts = labelled(options.part)
    scores = {name: measure(wants, texts) for name, wants in ROUTERS.items()}
    write(f"{len(texts)} texts, {sum(each.search for each in texts)} of them want a search\n")
    write("\n".join(_table(scores)))
    if not options.figures_only:
        write("\n".join(_mistakes(scores["ours"])))
    return 0


def _table(scores: dict[str, Score]) -> Iterator[str]:
    yield "| rules | precision | recall | µs per text |\n|---|---|---|---|"
    for name, score in scores.items():
        yield f"| {name} | {score.precision:.3f} | {score.recall:.3f} | {score.microseconds:.0f} |"


def _mistakes(score: Score) -> Iterator[str]:
    yield "\nSearched for:"
    yield from (f"- {each.text} ({each.kind})" for each in score.wrongly_searched)
    yield "\nMissed:"
    yield from (f"- {each.text} ({each.kind})" for each in score.missed)


if __name__ == "__main__":
    raise SystemExit(main())
