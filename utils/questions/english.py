"""Detect questions in English clauses by inversion, leading question words, tags and requests for information.

Live speech recognition writes no capitals and few commas, so a question may start in the middle of what looks like one
clause; there, only a verb before its subject marks it.
"""

from __future__ import annotations

import re
from itertools import pairwise

from utils.questions import words_en as words
from utils.questions.rhetoric_en import RHETORICAL, STATES_BEFORE_TAG

_TOKEN = re.compile(r"[a-z]+(?:'[a-z]+)?|[\u4e00-\u9fff]+|\d[\d.,]*", re.IGNORECASE)


def is_rhetorical(clause: str) -> bool:
    """Return whether a clause is a rhetorical question, which states something."""
    tokens = _tokens(clause)[0]
    return bool(RHETORICAL.search(" ".join(tokens))) or _states(tokens)


def states(clause: str) -> bool:
    """Return whether a clause is a statement with a rhetorical tag."""
    return _states(_tokens(clause)[0])


def confidence(clause: str, *, first: bool = True) -> tuple[float, int]:
    """Return the confidence, 0 to 1, that a clause is a question, and the offset at which the question starts.

    `first`: the clause starts its sentence. A later clause may be only a tag.
    """
    tokens, offsets = _tokens(clause)
    if not first and (tokens == ["right"] or _is_tag(tokens)):
        return 0.75, 0
    if RHETORICAL.search(" ".join(tokens)) or _states(tokens):
        return 0.2, 0
    lead = _lead(tokens)
    at_start = max(_by_phrase(tokens[lead:]), _by_order(tokens[lead:]), _by_tag(tokens))
    if tokens[:1] == ["so"] and len(tokens) == 3:  # so do I
        at_start = 0.0
    inside, begin = (0.0, 0) if words.NEGATIVE_FIRST.match(" ".join(tokens[lead:])) else _inside(tokens, lead)
    if at_start >= inside:
        return at_start, 0
    return inside, offsets[begin] if _is_clause(tokens[:begin]) else 0


def _tokens(clause: str) -> tuple[list[str], list[int]]:
    """Return the words in lower case, a run of Chinese as one word, and the offset of each."""
    found = [(word[0].lower(), word.start()) for word in _TOKEN.finditer(clause.replace("’", "'"))]
    pairs = [(word, offset) for known, offset in found for word in words.CONTRACTIONS.get(known, known).split()]
    once = [pair for before, pair in pairwise([("", 0), *pairs]) if pair[0] != before[0]]  # did did that help
    return [word for word, _ in once], [offset for _, offset in once]


def _lead(tokens: list[str]) -> int:
    """Return the number of introductory words."""
    lead = _leading(tokens, 0)
    introduction = words.INTRODUCTION.match(" ".join(tokens[lead : lead + 12]))
    return _leading(tokens, lead + len(introduction[0].split())) if introduction else lead


def _leading(tokens: list[str], start: int) -> int:
    end = max(start, len(tokens) - 1)
    return next((i for i in range(start, len(tokens)) if tokens[i] not in words.LEAD), end)


def _by_phrase(tokens: list[str]) -> float:
    text = " ".join(tokens)
    if words.WANTS_TO_KNOW.search(text):
        return 0.85
    if words.REQUEST.match(text):
        return 0.75
    return 0.6 if 3 <= len(tokens) <= 4 and "or" in tokens[1:-1] and tokens[0] not in ("sooner", "more", "one") else 0.0


def _by_tag(tokens: list[str]) -> float:
    if not 4 <= len(tokens) <= 12:
        return 0.0
    if tokens[-1] == "huh" or tokens[-2:] == ["or", "what"]:
        return 0.65
    if tokens[-1] in words.QUESTION_WORD and tokens[-2] in words.PREPOSITION:
        return 0.65
    if tokens[-1] in ("right", "correct"):
        return 0.0 if tokens[-2] in ("all", "is", "are", "that's", "you're", "the", "then", "turn", "just") else 0.7
    return 0.75 if _is_tag(tokens[-2:]) or _is_positive_tag(tokens[-3:]) else 0.0


def _states(tokens: list[str]) -> bool:
    """Return True for `that's life isn't it`, False for `that's the key isn't it`."""
    return bool(STATES_BEFORE_TAG.match(" ".join(tokens))) and _by_tag(tokens) > 0


def _is_tag(tokens: list[str]) -> bool:
    return len(tokens) == 2 and tokens[0] in words.NEGATED and tokens[1] in words.PERSON | {"it", "there"}


def _is_positive_tag(tokens: list[str]) -> bool:
    """Return True for `it doesn't mix does it`, False for `so do I`."""
    before, verb, subject = tokens
    inverted = verb in words.AUXILIARY and subject in words.PERSON | {"it"} and _agrees(verb, subject)
    return inverted and before not in words.NO_QUESTION_AFTER | words.PERSON | words.QUESTION_WORD | {"so"}


def _by_order(tokens: list[str]) -> float:
    """Rate a clause by its first words."""
    if len(tokens) > 1 and tokens[0] in words.PREPOSITION and tokens[1] in words.QUESTION_WORD:
        since = tokens[:2] == ["since", "when"] and tokens[2:3] != [] and tokens[2] in words.AUXILIARY
        return 0.8 if since or _inverts_soon(tokens, 2) else 0.0
    if tokens and tokens[0] in words.QUESTION_WORD:
        return _by_question_word(tokens)
    return 0.85 if len(tokens) > 1 and _inverts(tokens) and not words.QUOTED.search(" ".join(tokens)) else 0.0


def _by_question_word(tokens: list[str]) -> float:
    word, rest = tokens[0], tokens[1:]
    text = " ".join(tokens)
    if words.DISMISSED.search(text) or words.FREE_RELATIVE.search(text):
        return 0.0
    if not rest:
        return 0.6
    if word == "what" and rest[0] in words.BE and rest[1:2] and rest[1] not in words.SUBJECT and _goes_on(rest[2:]):
        return 0.0
    if rest[0] in words.AUXILIARY:
        return 0.9 if word != "which" or _asks_which(rest) else 0.0
    return 0.8 if _asks_after(word, rest) else 0.0


def _goes_on(rest: list[str]) -> bool:
    """Return whether the words so far are only the subject of a statement: what is strange to me is that."""
    return any(verb in ("is", "was") and after not in words.PERSON for verb, after in pairwise(rest))


def _asks_which(rest: list[str]) -> bool:
    """Return True for `which is cheaper`, `which would you take`; False for relative clauses: which is why."""
    if rest[0] in words.BE - words.NEGATED:
        return rest[1:2] == ["the"] or any(word.endswith(("er", "est")) or word in _OF_WHICH for word in rest[1:3])
    return _inverts(rest)


#: which is it, which are ours.
_OF_WHICH = frozenset(("it", "ours", "yours", "mine", "right", "correct", "which"))


def _asks_after(word: str, rest: list[str]) -> bool:
    """Return whether a question word that no auxiliary follows starts a question, not a subordinate clause."""
    after = rest[0].split("'")[0]
    if word == "how":
        return _asks_how(rest)
    if word in ("where", "when", "why"):
        return after in ("to", "exactly", "else") or (word == "why" and after == "not" and len(rest) > 1)
    if word == "which" and (after in words.AFTER_WHICH or after.endswith(("ly", "ed"))):
        return False
    return after not in words.SUBJECT | {"a", "an", "and", "or", "but"}


def _asks_how(rest: list[str]) -> bool:
    if rest[0] in ("about", "come"):
        return True
    if rest[0] in ("much", "many", "long", "often", "far", "soon", "big", "old", "to", "fast"):
        return rest[1:2] == [] or rest[1] not in words.PERSON
    return rest[0] not in words.SUBJECT and _inverts_soon(rest, 1)


def _inverts_soon(tokens: list[str], start: int) -> bool:
    pairs = zip(tokens[start : start + 5], tokens[start + 1 : start + 6], strict=False)
    return any(verb in words.AUXILIARY and subject in words.SUBJECT | {"a", "an"} for verb, subject in pairs)


def _inverts(tokens: list[str]) -> bool:
    """Return whether a clause starts with a verb before its subject, excluding commands and omitted subjects."""
    verb, subject = tokens[0], tokens[1] if len(tokens) > 1 else ""
    if verb not in words.AUXILIARY or not subject or words.NO_INVERSION.match(" ".join(tokens[:3])):
        return False
    if not _agrees(verb, subject):
        return False
    if subject in words.PERSON:
        return True
    if subject in words.SOMEONE or subject[0] >= "\u4e00":
        return verb != "have"
    if verb in words.BE:
        return _is_subject_of_be(tokens)
    if verb in words.DO | words.HAVE:
        return _has_predicate(tokens)
    return subject in words.SUBJECT | words.BODY or (
        (subject in ("a", "an") or _is_plural(subject)) and len(tokens) > 3
    )


def _agrees(verb: str, subject: str) -> bool:
    persons = words.AGREEMENT.get(verb.removesuffix("n't"))
    return persons is None or subject in persons or (verb != "am" and subject not in words.PERSON)


def _is_subject_of_be(tokens: list[str]) -> bool:
    """Return True for `is lunch included`, False for `is fine by me`."""
    subject = tokens[1]
    if len(tokens) < 3 or subject in words.SUBJECT | words.BODY:
        return len(tokens) > 2
    swallowed = subject in words.COMPLEMENT or subject.endswith(("ed", "ly"))
    return not swallowed and (not subject.endswith("ing") or subject in words.NOUNS_IN_ING)


def _has_predicate(tokens: list[str]) -> bool:
    """Return True for `did the client sign`, `do invoices need a stamp`; False for `did the slides already`."""
    verb = tokens[0]
    if verb in words.NEGATED:
        return tokens[1] in words.SUBJECT and len(tokens) > 2
    end = 3 if tokens[1] in words.DETERMINER - words.POINTER else 2
    if len(tokens) <= end or tokens[end] in words.AFTER_OBJECT | words.DETERMINER | {"a", "an"}:
        return False
    if verb == "do":
        return tokens[1] in ("these", "those") or (_is_plural(tokens[end - 1]) and tokens[1] not in words.POINTER)
    if verb in ("have", "had"):
        return tokens[1] in words.DETERMINER and tokens[-1].endswith(("ed", "en", "ne"))
    return tokens[1] not in ("not", "been", "to", "a", "an", "no", "already")


def _is_plural(word: str) -> bool:
    return len(word) > 3 and word.endswith("s") and not word.endswith("ss")


def _inside(tokens: list[str], start: int) -> tuple[float, int]:
    """Return the confidence of a question that starts inside the clause, and the index of its first word."""
    told = tokens.index("asked") if "asked" in tokens else len(tokens)
    for i in range(start + 1, min(told, len(tokens) - 2)):
        if _is_told(tokens[max(start, i - 2) : i]):
            continue
        if tokens[i] in words.QUESTION_WORD and _is_fronted(*tokens[i : i + 3]):
            return 0.8, i
        if tokens[i] in words.AUXILIARY and _inverts_inside(tokens, i):
            return 0.75, i
    return 0.0, 0


def _is_told(before: list[str]) -> bool:
    return before[-1] in words.TELLING or (before[0] in words.TELLING and before[-1] in words.TOLD_TO)


def _is_fronted(word: str, verb: str, subject: str) -> bool:
    if word in ("who", "which"):
        return verb in words.AUXILIARY and subject in words.PERSON
    return verb in words.AUXILIARY and subject in words.SUBJECT and not (verb in words.BE and subject == "that")


def _inverts_inside(tokens: list[str], i: int) -> bool:
    before, verb, subject, after = tokens[i - 1 : i + 3]
    if before in words.PERSON | words.AUXILIARY | words.NO_QUESTION_AFTER | words.QUESTION_WORD or "'" in before:
        return False
    if subject == "there":
        return verb in words.BE and after in ("a", "an", "any", "some")
    if subject == "it":
        return verb in words.ASK_OF_IT and after not in words.AUXILIARY
    if subject == "that":
        return verb in words.ASK_OF_IT and after in words.SUITS and before not in words.SOMEONE
    if not _agrees(verb, subject):
        return False
    return subject in words.PERSON or (subject in words.SOMEONE and verb != "have")


def _is_clause(tokens: list[str]) -> bool:
    """Return whether the words are a clause of their own, so that the question after them is separate."""
    own = words.AUXILIARY | words.PERSON | {"thanks"}
    return len(tokens) > 2 and any(word in own or "'" in word for word in tokens)
