"""`python -m bench.search_intent`: the accuracy of the rules for web searches, compared with the originals' rules.

Measured on the labelled texts of tests/unit/questions, by default on the part that no rule was written for. False
positives and missed searches are listed below the table.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import accuracy
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


def by_words(words: Sequence[str]) -> Wants:
    """Return a router that looks for words, as the originals did."""
    return lambda text: text if any(word in text.lower() for word in words) else None


ROUTERS: dict[str, Wants] = {"ours": by_rules, "v2": by_words(V2_WORDS), "v3": by_words(V3_WORDS)}


def labelled(part: str) -> list[Labelled]:
    """Read one part of the labelled set: "develop" or "test"."""
    lines = (FOLDER / f"{part}.jsonl").read_text("utf-8").splitlines()
    return [Labelled(**json.loads(line)) for line in lines]


def measure(wants: Wants, texts: Sequence[Labelled]) -> accuracy.Score:
    """Return a router's score on labelled texts."""
    return accuracy.score(texts, "search", lambda text: wants(text) is not None)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure all three and print the table, then the errors of the product's router."""

    def scores(part: str) -> tuple[str, dict[str, accuracy.Score]]:
        texts = labelled(part)
        heading = f"{len(texts)} texts, {sum(each.search for each in texts)} of them want a search"
        return heading, {name: measure(wants, texts) for name, wants in ROUTERS.items()}

    return accuracy.main(argv, "search_intent", scores)


if __name__ == "__main__":
    raise SystemExit(main())
