"""Detect whether an utterance is a question, and which of its sentences are.

For final transcripts of live speech recognition, in Chinese, English or both mixed, with and without punctuation. Uses
rules only: no model, no network, and time linear in the text. The definition of a question, and the labelled utterances
that measure the rules, are in `tests/unit/questions/utterances/`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from utils.questions import chinese as questions_zh
from utils.questions import english as questions_en

#: Minimum confidence of a question.
THRESHOLD = 0.5

#: Confidence of a sentence with a question mark and no other evidence.
_MARKED = 0.9

_END = re.compile(
    # A full stop inside a number, name or address does not end a sentence; 吗 ends one even without punctuation.
    r"""(?: [。！？…；;\n] | [!?]+(?![\w=&/]) | (?<!\.)\.+(?=\s|$) )+ ["'”’」』）)]*
      | (?<=吗)(?=(?!啡)[\u4e00-\u9fff])""",
    re.VERBOSE,
)
_ABBREVIATION = re.compile(
    r"\b(?:dr|mr|mrs|ms|prof|st|vs|approx|e\.g|i\.e|a\.m|p\.m|u\.s|u\.k|[a-hj-z])$",
    re.IGNORECASE,
)
#: Clause boundaries: punctuation, a change of topic, or a space, as which Chinese speech recognition writes a pause.
_BORDER = re.compile(
    r"[，,、：:—]+\s*(?!\d)|\b(?:by the way|btw)\b|(?<=[\u4e00-\u9fff])\s+(?=[\u4e00-\u9fff])", re.IGNORECASE
)
_HAN = re.compile(r"[\u4e00-\u9fff]")
_LATIN = re.compile(r"[A-Za-z]")


@dataclass(frozen=True, slots=True)
class Detection:
    """The result of question detection for one utterance."""

    is_question: bool
    #: From 0 (certainly no question) to 1 (certainly a question).
    confidence: float
    #: The sentences that are questions, unchanged; "" if there are none.
    question: str


#: A function that detects questions; `detect` is the one in use.
Detector = Callable[[str], Detection]


def detect(text: str) -> Detection:
    """Rate an utterance sentence by sentence; it is a question if one of its sentences is."""
    judged = [_judge(sentence) for sentence in sentences(text)]
    confidence = max((each for each, _ in judged), default=0.0)
    asking = [sentence for each, sentence in judged if each >= THRESHOLD]
    return Detection(bool(asking), confidence, _joined(asking))


def sentences(text: str) -> Iterator[str]:
    """Yield the sentences of a text in order, with punctuation and without surrounding white space."""
    start = 0
    for end in _END.finditer(text):
        if end[0].startswith(".") and _ABBREVIATION.search(text, max(0, end.start() - 8), end.start()):
            continue
        if sentence := text[start : end.end()].strip():
            yield sentence
        start = end.end()
    if sentence := text[start:].strip():
        yield sentence


def _joined(parts: list[str]) -> str:
    text = ""
    for part in parts:
        text += f" {part}" if text and text[-1].isascii() else part
    return text


def _judge(sentence: str) -> tuple[float, str]:
    """Return a sentence's confidence, and the sentence without a statement that precedes the question in it."""
    clauses = [clause.strip() for clause in _BORDER.split(sentence)]
    body = [clause.rstrip("。！？!?….；;\"'”’」』）) \n") for clause in clauses]
    body = _with_its_tag([clause for clause in body if clause])
    best, begin = 0.0, 0
    for number, clause in enumerate(body):
        confidence, start = _judge_clause(clause, first=number == 0, last=number == len(body) - 1)
        if confidence > best:
            best, begin = confidence, start
    best = _with_mark(sentence, body, best)
    return best, sentence[sentence.find(body[0]) + begin :] if begin and len(body) == 1 else sentence


def _with_its_tag(clauses: list[str]) -> list[str]:
    """Join a rhetorical tag with the statement before it: I said so, didn't I."""
    whole = " ".join(clauses[-2:])
    return [*clauses[:-2], whole] if questions_en.states(whole) else clauses


def _with_mark(sentence: str, clauses: list[str], confidence: float) -> float:
    """Adjust the confidence by the final punctuation, which speech recognition sets by intonation, but not reliably."""
    tail = sentence[-3:]
    if not clauses or ("?" not in tail and "？" not in tail):
        return confidence * 0.6 if "!" in tail and not _HAN.search(sentence) else confidence
    return confidence if _rhetorical(clauses[-1]) else max(confidence, _MARKED)


def _rhetorical(clause: str) -> bool:
    return questions_zh.is_rhetorical(clause) or questions_en.is_rhetorical(clause)


def _judge_clause(clause: str, *, first: bool, last: bool) -> tuple[float, int]:
    """Return a clause's confidence and the offset of its question; both languages' rules apply to a mixed clause."""
    chinese = questions_zh.confidence(clause, last=last) if _HAN.search(clause) else 0.0
    if not _LATIN.search(clause):
        return chinese, 0
    english, start = questions_en.confidence(clause, first=first)
    return (chinese, 0) if chinese >= english else (english, start)
