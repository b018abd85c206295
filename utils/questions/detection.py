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
    # A full stop inside a number, name or address does not end a sentence. Without punctuation 吗 ends one, and so do
    # the particle 吧 (not that of 酒吧 and of 的吧, which goes on) and 请问 after a few words.
    r"""(?: [。！？…；;\n] | [!?]+(?![\w=&/]) | (?<!\.)\.+(?=\s|$) )+ ["'”’」』）)]*
      | (?<=吗)(?=(?!啡)[\u4e00-\u9fff])
      | (?<=吧)(?<![酒网贴氧迪啡的]吧)[，,、\s]{0,4}(?=\w)(?![台友主员唧嗒吧]|还是)
      | (?=请问)(?<=[\u4e00-\u9fff]{4})(?<![想要先再来就去])""",
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
#: Questions that cannot be understood without what was said before them: by a pronoun, or by a missing subject.
_POINTS_BACK = re.compile(
    r"它|[他她](?!人)|前者|后者|刚才|上述|其中|[这那](?:个|些|样|种|份|件|位|是)|^.{1,8}呢\W{0,4}$"
    r"|^.?(?:为什么|为啥|怎么办|怎么样|怎么回事|多少|多久|什么时候|几[天点个次]|哪里|哪儿|谁)\w{0,2}\W{0,4}$"
)
_POINTS_BACK_EN = re.compile(
    r"\b(?:it|its|they|them|their|he|she|him|her|this|that|these|those)\b|^(?:and|so|but|(?:what|how) about)\b"
    r"|^(?:why|when|where|who|how(?: (?:much|many|long|far|often))?)\W{0,4}$",
    re.IGNORECASE,
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
    #: The utterance without the sentences before its first question; "" if there is none.
    onwards: str = ""
    #: Whether the question points to what was said before it, so that it cannot be understood alone.
    points_back: bool = False


#: A function that detects questions; `detect` is the one in use.
Detector = Callable[[str], Detection]


def detect(text: str) -> Detection:
    """Rate an utterance sentence by sentence; it is a question if one of its sentences is."""
    judged = [_judge(sentence) for sentence in sentences(text)]
    confidence = max((each for each, _ in judged), default=0.0)
    asking = [sentence for each, sentence in judged if each >= THRESHOLD]
    if not asking:
        return Detection(False, confidence, "")
    onwards = text[text.find(asking[0]) :].rstrip()
    return Detection(True, confidence, _joined(asking), onwards, _points_back(asking[0]))


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


def _points_back(question: str) -> bool:
    return bool((_POINTS_BACK if _HAN.search(question) else _POINTS_BACK_EN).search(question))


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
