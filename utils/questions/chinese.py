"""Detect questions in Chinese clauses by particles, A-not-A forms, alternatives, requests and question words.

Chinese question words have many other uses (谁都, 没什么, 几个人, 问他什么时候来). Those are removed from the clause
first; a question word that remains marks a question.
"""

from __future__ import annotations

import re

from utils.questions import words_zh as words
from utils.questions.rhetoric_zh import RHETORICAL

#: Placeholder for removed text.
_GONE = "〇"
#: First characters of verbs that always introduce an indirect question: 忘了, 问, 搞清楚, 弄明白, 我看看,
#: 明确, 注意, 留意, find out.
_NEVER_ASKED_OF = "忘问搞弄我明注留fn"
_NO = frozenset("不没否")
_HOW_AND_WHY = ("为什么", "为何", "为啥", "怎么", "如何")


def is_rhetorical(clause: str) -> bool:
    """Return whether a clause is a rhetorical question, which states something."""
    return bool(RHETORICAL.search(clause.rstrip(words.TAIL))) and not words.ASKS.search(clause)


def confidence(clause: str, *, last: bool = True) -> float:
    """Return the confidence, 0 to 1, that a clause is a question; `last`: it is the last clause of its sentence."""
    body = words.LEAD.sub("", clause).rstrip(words.TAIL)
    if words.ASKS.search(body):
        return 0.9
    if RHETORICAL.search(body):
        return 0.2
    if body.endswith("来着") and words.QUESTION_WORD.search(body):
        return 0.85
    bare = _without_asides(body)
    return max(_by_end(bare, last=last), _by_words(bare), _by_request(body), _by_alternative(body))


def _without_asides(body: str) -> str:
    """Remove question words that ask nothing and indirect questions."""
    for aside in (words.OPEN, words.VAGUE, words.TOLD_WHETHER):
        body = aside.sub(_GONE, body)
    return words.TOLD.sub(_without_told, body)


def _without_told(told: re.Match[str]) -> str:
    """Remove an indirect question, except one that is put to the listener or asks what was said (他说了什么)."""
    if _is_for_listener(told) or _is_about_forgotten(told):
        return told[0]
    near = told.string[max(0, told.start() - 2) : told.start()] + told["verb"] + told["gap"] + told["word"]
    unfinished = told["verb"][0] in _NEVER_ASKED_OF or told["word"] in _HOW_AND_WHY or not _NO.isdisjoint(near)
    return _GONE + told["rest"] if unfinished or told["rest"] else told[0]


def _is_for_listener(told: re.Match[str]) -> bool:
    """Return True for 你知道…, 想知道… and 给我讲讲…, False for 有人问… and 给我讲了…."""
    asker, verb = told["asker"], told["verb"]
    if told["gap"][:1] == "得":
        return True
    if not asker or (verb == "问" and asker in ("谁", "有人")) or told["gap"].startswith("一下看"):
        return False
    return asker[0] not in "给跟" or verb[-1] not in "了过"


def _is_about_forgotten(told: re.Match[str]) -> bool:
    """Return True for 忘了密码怎么重置, False for 忘了怎么重置."""
    about = told["gap"].strip("了") or told["rest"][:1] == "办"
    return told["verb"][0] == "忘" and told["word"].startswith("怎么") and bool(about)


def _by_end(bare: str, *, last: bool) -> float:
    if bare.endswith("吗"):
        return 0.9
    if bare.endswith("呢"):
        return _by_ne(bare[:-1]) if last else 0.4
    if words.TAG.search(bare):
        return 0.75
    return 0.75 if words.ENDS_OR_NOT.search(bare) and _GONE not in bare[-4:] else 0.0


def _by_ne(bare: str) -> float:
    """Rate a clause that ended with 呢: 小李呢 and 定了没呢 ask, 他还在开会呢 states what is going on."""
    if words.ENDS_OR_NOT.search(bare):
        return 0.8
    if words.GOING_ON.search(bare) or _GONE in bare:
        return 0.1
    return 0.75 if len(bare) <= 8 else 0.4


def _by_words(bare: str) -> float:
    if words.CHOICE.search(bare):
        return 0.85
    return 0.8 if words.QUESTION_WORD.search(bare) or words.OR_NOT.search(bare) else 0.0


def _by_request(body: str) -> float:
    return 0.75 if words.REQUEST.search(body) else 0.0


def _by_alternative(body: str) -> float:
    """Rate 还是 by its neighbours: between two similar things it is a choice, otherwise it means "after all"."""
    left, _, right = body.partition("还是")
    if not left or not right or right.endswith("吧"):
        return 0.0
    alike = bool(set(left[-6:]) & set(right[:6]) - words.COMMON)
    either = bool(words.EITHER.search(left[-14:]))
    after_all = bool(words.AFTER_ALL.match(right))
    if (alike and either) or ((alike or either) and not after_all):
        return 0.8
    return (
        0.65
        if max(len(left), len(right)) <= 4 and not after_all and left[-1] not in "我们他你可果后在那这天家也都底"
        else 0.0
    )
