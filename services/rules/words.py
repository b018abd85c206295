"""Words that questions and answers must not have, from `WORDS_FILE`.

A line of the file is an action and a word, or `re:` and an expression of RE2; `#` begins a comment, also after a blank:

    refuse 机密项目         a question with it gets a sentence instead of an answer
    mask 密码本             stars take its place in answers
    mask re:1[0-9]{10}     the same for whatever the expression matches, at most `MATCH_CHARACTERS` at once
    note 竞品               it is only counted

Text is compared in a folded form: NFKD, without case, without characters that nobody sees, without blanks between
Chinese characters. Words are searched by Aho and Corasick's automaton, expressions by RE2, both in linear time.
"""

from __future__ import annotations

import logging
import re
import time
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import ahocorasick_rs
import re2

from services import metrics
from services.errors import AnswerError
from services.rules.stored_rules import Rules

log = logging.getLogger(__name__)

Action = Literal["refuse", "mask", "note"]

#: Takes the place of each character of a masked word. Markdown gives it no meaning, unlike "*".
STAR = "＊"
#: Characters that an expression matches at most, in the folded form; a longer match is several.
MATCH_CHARACTERS = 64
#: Characters of an answer for which expressions are searched at once: a search costs more than a delta's other work.
STEP = 8
#: Characters of a word or an expression, and rules of a file.
WORD_CHARACTERS, MOST_RULES = 200, 50_000
#: Blanks between two Chinese characters that are ignored; more of them separate words.
BLANKS = 16
#: Characters that may be held back before those that nobody sees are dropped from them.
MOST_HELD = 1024
#: Characters of a long text that are looked at before other threads go on.
SLICE = 8192

_UNSEEN = (
    "\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufff9-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff"
)
_CHINESE = "\u3007\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_UNSEEN_ONES = re.compile(f"[{_UNSEEN}\U000e0000-\U000e0fff]+")
_BLANKS = re.compile(f"(?<=[{_CHINESE}])[ \t]{{1,{BLANKS}}}(?=[{_CHINESE}])")
#: What an expression may not have, outside a class and unescaped: a text that comes in pieces has no ends.
_ANCHOR = re.compile(r"\\[AzbB]|[\^$]")
_ESCAPED_OR_CLASS = re.compile(r"\\[^AzbB]|\[\^?\]?(?:\\.|\[:\w+:\]|[^\]\\])*\]")


class Rule(NamedTuple):
    """One line of the file."""

    line: int
    action: Action
    #: The word, or the expression, in the folded form.
    pattern: str
    is_expression: bool


class Folded(NamedTuple):
    """A text in the form in which it is compared."""

    text: str
    #: For each character the index of the one that it was made of; None where both texts have the same indexes.
    origin: Sequence[int] | None

    def begin(self, index: int, end: int) -> int:
        """Return the index in the original text at which this character begins; `end` for the end of the text."""
        if index >= len(self.text):
            return end
        return index if self.origin is None else self.origin[index]


def folded(text: str) -> Folded:
    """Return the folded form of a text."""
    written = text if text.isascii() else unicodedata.normalize("NFKD", text)
    same = written.casefold()
    if len(same) == len(text) and not (_UNSEEN_ONES.search(same) or _BLANKS.search(same)):
        # Neither step makes a text shorter, so each character has become one.
        return Folded(same, None)
    pieces, origin = list[str](), list[int]()
    for index, character in enumerate(text):
        piece = unicodedata.normalize("NFKD", character).casefold()
        pieces.append(piece)
        origin += [index] * len(piece)
    return Folded(*_without(_BLANKS, *_without(_UNSEEN_ONES, "".join(pieces), origin)))


def _without(dropped: re.Pattern[str], text: str, origin: list[int]) -> tuple[str, list[int]]:
    """Return a text and its origins without what an expression matches."""
    kept, places, at = list[str](), list[int](), 0
    for found in dropped.finditer(text):
        kept.append(text[at : found.start()])
        places += origin[at : found.start()]
        at = found.end()
    return "".join(kept) + text[at:], places + origin[at:]


class _Patterns:
    """The rules of some actions, searched together."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        of_kind: dict[bool, list[Rule]] = {False: [], True: []}
        for rule in rules:
            of_kind[rule.is_expression].append(rule)
        words, expressions = of_kind[False], of_kind[True]
        self._words = words
        patterns = [rule.pattern for rule in words]
        self._longest = ahocorasick_rs.AhoCorasick(patterns, matchkind=ahocorasick_rs.MatchKind.LeftmostLongest)
        self._every = ahocorasick_rs.AhoCorasick(patterns)
        self._expressions = [(rule, _compiled(rule.pattern)) for rule in expressions]
        joined = "|".join(f"(?:{rule.pattern})" for rule in expressions)
        self._any = _compiled(joined) if expressions else None
        longest = max(map(len, patterns), default=1) - 1
        #: The last characters of an unfinished text that must not be shown, and the new ones that make a search.
        self.reach, self.step = (max(longest, MATCH_CHARACTERS), STEP) if expressions else (longest, 1)

    def __bool__(self) -> bool:
        return bool(self._words or self._expressions)

    def lines(self, text: str) -> set[Rule]:
        """Return every rule that matches a folded text."""
        found = {self._words[number] for number, _, _ in self._matches(self._every, text, overlapping=True)}
        if self._any and self._any.search(text):
            found |= {rule for rule, expression in self._expressions if expression.search(text)}
        return found

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Return the parts of a folded text that match, in their order, joined where they overlap."""
        found = [(start, end) for _, start, end in self._matches(self._longest, text)]
        if self._any:
            found += _cut(self._any, text)
        if len(found) < 2:
            return found
        joined: list[tuple[int, int]] = []
        for start, end in sorted(found):
            if joined and start < joined[-1][1]:
                joined[-1] = joined[-1][0], max(end, joined[-1][1])
            else:
                joined.append((start, end))
        return joined

    def _matches(self, automaton: Any, text: str, **options: bool) -> list[tuple[int, int, int]]:
        return automaton.find_matches_as_indexes(text, **options) if self._words else []


class WordRules:
    """The rules of one file."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._asked = _Patterns(rule for rule in rules if rule.action != "mask")
        self._notes = _Patterns(rule for rule in rules if rule.action == "note")
        self.masks = _Patterns(rule for rule in rules if rule.action == "mask")

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._asked or self.masks)

    @classmethod
    def parse(cls, text: str) -> WordRules:
        """Return the rules of a file.

        Raises:
            ValueError: a line is wrong; the message says which, and what was expected.
        """
        lines = ((number, line.strip()) for number, line in enumerate(text.splitlines(), 1))
        rules = [_rule(number, line) for number, line in lines if line and not line.startswith("#")]
        if len(rules) > MOST_RULES:
            raise ValueError(f"at most {MOST_RULES} rules")
        return cls(rules)

    def asked(self, texts: Iterable[str]) -> list[Rule]:
        """Return the rules that the texts of a question meet, those that refuse it first."""
        found = {rule for text in texts for rule in _met(self._asked, text)}
        return sorted(found, key=lambda rule: (rule.action != "refuse", rule.line))

    def answered(self, text: str) -> list[Rule]:
        """Return the rules that a whole answer meets."""
        return sorted({*_met(self._notes, text), *_met(self.masks, text)})

    def masked(self, text: str) -> str:
        """Return a whole text with stars in the place of masked words."""
        mask = Mask(self)
        return "".join([*(mask.feed(piece) for piece in slices(text)), mask.rest()])


def slices(text: str) -> Iterator[str]:
    """Yield a text in slices of at most `SLICE` characters; other threads go on between two of them."""
    for at in range(0, len(text), SLICE):
        if at:
            time.sleep(0)
        yield text[at : at + SLICE]


def _met(patterns: _Patterns, text: str) -> Iterator[Rule]:
    """Yield the rules that a text meets; a rule may come more than once."""
    before = ""
    for piece in slices(text) if patterns else ():
        yield from patterns.lines(folded(before + piece).text)
        before = piece[-MOST_HELD:]


@dataclass(slots=True)
class Mask:
    """Masks a text that comes in pieces: what it returns is the same, however the text was cut."""

    rules: WordRules
    #: The text that was not returned yet.
    held: str = ""

    def feed(self, piece: str) -> str:
        """Take the next piece; return the text that no later piece can change."""
        masks = self.rules.masks
        if not masks:
            return piece
        self.held += piece
        if len(self.held) < masks.reach + masks.step:
            return ""
        form = folded(self.held)
        # A blank at the end is none if a Chinese character follows.
        known = len(form.text.rstrip(" \t"))
        if len(form.text) - known > BLANKS:
            known = len(form.text)
        shown = self._masked(form, known - masks.reach) if known > masks.reach else ""
        if len(self.held) > MOST_HELD:
            self.held = _UNSEEN_ONES.sub("", self.held)
        return shown

    def rest(self) -> str:
        """Return the text that was held back; the next piece begins another text."""
        form = folded(self.held)
        shown = self._masked(form, len(form.text))
        self.held = ""
        return shown

    def _masked(self, form: Folded, known: int) -> str:
        """Return the held text up to `known`, an index of its folded form, and hold the rest."""
        held, size = self.held, len(self.held)
        spans = self.rules.masks.spans(form.text)
        for start, end in spans:
            if start < known < end:
                known = start
        shown, at = list[str](), 0
        for start, end in spans:
            if end <= known:
                shown += [held[at : form.begin(start, size)], STAR * (end - start)]
                at = form.begin(end - 1, size) + 1
        cut = max(at, form.begin(known, size))
        shown.append(held[at:cut])
        self.held = held[cut:]
        return "".join(shown)


class BotWords:
    """The rules of one bot as they are in force now. What meets them is counted, and logged without the words."""

    def __init__(self, bot: str, source: Rules[WordRules]) -> None:
        self._bot = bot
        self._source = source

    @property
    def rules(self) -> WordRules:
        """Those in force; raises as `Rules` does."""
        return self._source.rules

    def check(self, texts: Iterable[str]) -> None:
        """Check the texts of a question.

        Raises:
            AnswerError: `forbidden_words`, or `store_unavailable` while the rules are not known.
        """
        met = self.rules.asked(texts)
        self._note("question", met)
        if met and met[0].action == "refuse":
            raise AnswerError(f"line {met[0].line} of {self._source.setting}", code="forbidden_words")

    def note_answer(self, rules: WordRules, text: str) -> None:
        """Count the rules that an answer met before it was masked."""
        self._note("answer", rules.answered(text))

    def _note(self, place: str, met: Sequence[Rule]) -> None:
        for rule in met:
            metrics.WORDS.labels(self._bot, rule.action, place).inc()
            log.info("words", extra={"bot": self._bot, "place": place, "action": rule.action, "line": rule.line})


def _rule(number: int, line: str) -> Rule:
    action, _, pattern = re.split(r"\s#", line, maxsplit=1)[0].strip().partition(" ")
    pattern = pattern.strip()
    if action not in get_args(Action) or not pattern:
        raise ValueError(f"in line {number} refuse, mask or note, and a word or re:EXPRESSION")
    if len(pattern) > WORD_CHARACTERS:
        raise ValueError(f"in line {number} at most {WORD_CHARACTERS} characters")
    kind: Action = action  # type: ignore[assignment]
    if pattern.startswith("re:"):
        return Rule(number, kind, _expression(number, pattern.removeprefix("re:").strip()), is_expression=True)
    word = folded(pattern).text
    if not word:
        raise ValueError(f"in line {number} a word with characters that can be seen")
    return Rule(number, kind, word, is_expression=False)


def _expression(number: int, written: str) -> str:
    """Return an expression that matches the folded form of what it says.

    Raises:
        ValueError: RE2 rejects it, it matches an empty text, or it has an anchor.
    """
    pattern = "".join(c if c.isascii() else re.escape(unicodedata.normalize("NFKD", c)) for c in written)
    if _ANCHOR.search(_ESCAPED_OR_CLASS.sub("", pattern)):
        raise ValueError(f"in line {number} an expression without ^, $, \\A, \\z, \\b and \\B")
    try:
        found = _compiled(pattern)
    except re2.error as exc:
        raise ValueError(f"in line {number} an expression of RE2 ({_reason(exc)})") from exc
    if found.search(""):
        raise ValueError(f"in line {number} an expression that matches no empty text")
    return pattern


def _reason(error: Exception) -> str:
    """Return RE2's own words about a rejected expression."""
    reason = error.args[0]
    return reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)


def _compiled(pattern: str) -> Any:
    options = re2.Options()
    options.case_sensitive = False
    options.longest_match = True
    options.never_capture = True
    options.log_errors = False
    return re2.compile(pattern, options)


def _cut(expression: Any, text: str) -> Iterator[tuple[int, int]]:
    """Yield the matches of an expression, each of at most `MATCH_CHARACTERS`."""
    at = 0
    while at < len(text) and (found := expression.search(text, at)):
        start, end = found.span()
        at = min(end, start + MATCH_CHARACTERS)
        yield start, at
