"""`python -m bench.questions`: the accuracy of the question detector, compared with the originals' keyword rules.

Measured on the labelled utterances of tests/questions, by default on the part that no rule was written for. False
positives and missed questions are listed below the table.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from utils.questions.detection import Detection, Detector, detect

FOLDER = Path(__file__).parent.parent / "tests" / "unit" / "questions" / "utterances"

#: The originals' first rules: a match anywhere, even inside a word, makes the whole utterance a question.
V2_HINTS = ("what", "why", "how", "when", "where", "?", "吗", "呢", "怎么", "为何", "为什么", "请问", "多少", "哪")
#: The originals' last rules: Chinese matches anywhere, English matches whole words.
V3_HINTS = ("?", "？", "吗", "呢", "什么", "怎么", "为什么", "如何", "哪里", "哪个", "谁", "几", "多少", "是否",
            "能否", "可否", "干嘛", "咋", "啥")  # fmt: skip
V3_WORDS = re.compile(r"\b(?:what|how|why|when|where|who|which|whom|whose|can|could|would|should|is|are|do|does|did)\b")


@dataclass(frozen=True, slots=True)
class Utterance:
    """An utterance, and whether a human listener would take it for a question."""

    text: str
    question: bool
    kind: str
    lang: str


@dataclass(frozen=True, slots=True)
class Score:
    """The score of one detector: shares from 0 to 1, microseconds per utterance, and its errors."""

    precision: float
    recall: float
    microseconds: float
    wrongly_found: tuple[Utterance, ...]
    missed: tuple[Utterance, ...]


def by_rules_of_v2(text: str) -> Detection:
    """Classify like the originals' first three versions."""
    found = any(hint in text.lower() for hint in V2_HINTS)
    return Detection(found, float(found), text if found else "")


def by_rules_of_v3(text: str) -> Detection:
    """Classify like the originals' last version."""
    lower = text.lower()
    found = any(hint in lower for hint in V3_HINTS) or bool(V3_WORDS.search(lower))
    return Detection(found, float(found), text if found else "")


DETECTORS: dict[str, Detector] = {"ours": detect, "v0-v2": by_rules_of_v2, "v3": by_rules_of_v3}


def utterances(part: str) -> list[Utterance]:
    """Read one part of the labelled set: "develop" or "test"."""
    lines = (FOLDER / f"{part}.jsonl").read_text("utf-8").splitlines()
    return [Utterance(**json.loads(line)) for line in lines]


def measure(detector: Detector, said: Sequence[Utterance], *, rounds: int = 1) -> Score:
    """Return a detector's score on labelled utterances; the time is the best of `rounds`."""
    judged = [(each, detector(each.text).is_question) for each in said]
    found = [each for each, is_question in judged if is_question]
    asking = [each for each in said if each.question]
    right = sum(each.question for each in found)
    return Score(
        precision=right / len(found) if found else 1.0,
        recall=right / len(asking) if asking else 1.0,
        microseconds=min(_seconds(detector, said) for _ in range(rounds)) / len(said) * 1e6,
        wrongly_found=tuple(each for each in found if not each.question),
        missed=tuple(each for each, is_question in judged if each.question and not is_question),
    )


def _seconds(detector: Callable[[str], Detection], said: Iterable[Utterance]) -> float:
    begun = time.perf_counter()
    for each in said:
        detector(each.text)
    return time.perf_counter() - begun


def main(argv: Sequence[str] | None = None) -> int:
    """Measure all three and print the table, then the errors of the product's detector."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.questions", description="Which detector finds the questions."
    )
    parser.add_argument("--part", choices=("test", "develop"), default="test", help="which labelled utterances")
    parser.add_argument("--figures-only", action="store_true", help="without the list of what was wrong")
    options = parser.parse_args(argv)
    said = utterances(options.part)
    scores = {name: measure(detector, said, rounds=5) for name, detector in DETECTORS.items()}
    print(f"{len(said)} utterances, {sum(each.question for each in said)} of them questions\n")
    print("\n".join(_table(scores)))
    if not options.figures_only:
        print("\n".join(_mistakes(scores["ours"])))
    return 0


def _table(scores: dict[str, Score]) -> Iterator[str]:
    yield "| rules | precision | recall | µs per utterance |\n|---|---|---|---|"
    for name, score in scores.items():
        yield f"| {name} | {score.precision:.3f} | {score.recall:.3f} | {score.microseconds:.0f} |"


def _mistakes(score: Score) -> Iterator[str]:
    yield "\nTaken for questions:"
    yield from (f"- {each.text} ({each.kind})" for each in score.wrongly_found)
    yield "\nMissed:"
    yield from (f"- {each.text} ({each.kind})" for each in score.missed)


if __name__ == "__main__":
    raise SystemExit(main())
