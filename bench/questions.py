"""`python -m bench.questions`: the accuracy of the question detector, compared with the originals' keyword rules.

Measured on the labelled utterances of tests/unit/questions, by default on the part that no rule was written for. False
positives and missed questions are listed below the table.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import accuracy
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


def measure(detector: Detector, texts: Sequence[Utterance], *, rounds: int = 1) -> accuracy.Score:
    """Return a detector's score on labelled utterances; the time is the best of `rounds`."""
    return accuracy.score(texts, "question", lambda text: detector(text).is_question, rounds=rounds)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure all three and print the table, then the errors of the product's detector."""

    def scores(part: str) -> tuple[str, dict[str, accuracy.Score]]:
        texts = utterances(part)
        heading = f"{len(texts)} utterances, {sum(each.question for each in texts)} of them questions"
        return heading, {name: measure(detector, texts, rounds=5) for name, detector in DETECTORS.items()}

    return accuracy.main(argv, "questions", scores)


if __name__ == "__main__":
    raise SystemExit(main())
