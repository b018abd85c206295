"""Finds questions that got no good answer, and groups them by similar words: without a model, in bounded work."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal
from zoneinfo import ZoneInfo

from services.usage.log_store import Row, SaidOf

#: Matches what is neither a letter nor a digit.
_NO_LETTERS = re.compile(r"[\W_]+")
Reason = Literal["no_sources", "refused", "disliked", "asked_again"]

#: Phrases of answers that are none.
REFUSALS = (
    *("无法回答", "无法提供", "没有找到", "未找到", "找不到", "没有相关", "暂无", "不清楚", "不知道", "抱歉", "对不起"),
    *("I don't know", "I do not know", "could not find", "couldn't find", "no information", "unable to", "I'm sorry"),
)
#: The columns of the log that are read.
READ = ("stream_id", "time", "person", "caller", "bot", "question", "answer", "sources", "has_words", "outcome", "asks")
COLUMNS = ("count", "people", "reasons", "examples", "last", "stream_ids")
#: Seconds within which a person asks again what was not answered, and how similar the two questions are at least.
AGAIN_SECONDS, AGAIN_LIKE = 120.0, 0.3
#: How similar a question is to the first one of its group at least: common pairs of letters among all of both.
LIKE = 0.4
#: The last questions that are grouped, and the letters of one that count.
MOST, LETTERS = 20_000, 200
#: The rarest pairs of a question that are looked up, the groups of each, and the groups that it is compared with.
MOST_PAIRS, MOST_GROUPS, MOST_COMPARED = 16, 50, 5
#: Questions and stream ids that a group shows.
EXAMPLES, SHOWN = 3, 10


@dataclass(slots=True)
class Gap:
    """A question without a good answer."""

    stream_id: str
    time: datetime
    who: str
    bot: str
    words: str
    pairs: frozenset[str]
    has_sources: bool
    reasons: set[Reason] = field(default_factory=set)


@dataclass(slots=True)
class GapGroup:
    """Questions of similar words; the first one's are those that others are compared with."""

    gaps: list[Gap]

    def documented(self, zone: ZoneInfo) -> dict[str, Any]:
        """Return the group as a JSON object."""
        reasons = Counter(reason for gap in self.gaps for reason in gap.reasons)
        examples = [words for words, _ in Counter(gap.words for gap in self.gaps).most_common(EXAMPLES)]
        return {
            "count": len(self.gaps),
            "people": len({gap.who for gap in self.gaps}),
            "reasons": dict(sorted(reasons.items())),
            "examples": examples,
            "last": max(gap.time for gap in self.gaps).astimezone(zone).isoformat(timespec="seconds"),
            "stream_ids": [gap.stream_id for gap in self.gaps[-SHOWN:]],
        }


def found_gaps(rows: Iterable[tuple[Row, SaidOf]], phrases: Sequence[str]) -> list[Gap]:
    """Return the questions without a good answer among rows in the order of time.

    An answer without sources counts only with a bot that has answered others with sources.
    """
    wanted = [folded for phrase in phrases if (folded := _folded(phrase))]
    last: dict[tuple[str, str], Gap] = {}
    kept: list[Gap] = []
    with_sources: set[str] = set()
    for row, said in rows:
        if not row["has_words"] or not row["question"]:
            continue
        gap = _gap(row, said, wanted)
        if row["sources"]:
            with_sources.add(gap.bot)
        _note_again(last.get((gap.bot, gap.who)), gap)
        last[gap.bot, gap.who] = gap
        kept.append(gap)
        del kept[:-MOST]
    for gap in kept:
        if gap.bot in with_sources and not gap.has_sources:
            gap.reasons.add("no_sources")
    return [gap for gap in kept if gap.reasons]


def groups(gaps: Sequence[Gap]) -> list[GapGroup]:
    """Return the gaps in groups of similar words, the largest first."""
    made: list[GapGroup] = []
    by_pair: defaultdict[str, list[int]] = defaultdict(list)
    for gap in gaps:
        rarest = sorted(gap.pairs, key=lambda pair: (len(by_pair[pair]), pair))[:MOST_PAIRS]
        common = Counter(number for pair in rarest for number in by_pair[pair][:MOST_GROUPS])
        nearest = [made[number] for number, _ in common.most_common(MOST_COMPARED)]
        best = max(nearest, key=lambda group: _likeness(group.gaps[0], gap), default=None)
        if best is not None and _likeness(best.gaps[0], gap) >= LIKE:
            best.gaps.append(gap)
            continue
        for pair in gap.pairs:
            by_pair[pair].append(len(made))
        made.append(GapGroup([gap]))
    return sorted(made, key=lambda group: len(group.gaps), reverse=True)


def _gap(row: Row, said: SaidOf, phrases: Sequence[str]) -> Gap:
    words = " ".join(row["question"].split())[:LETTERS]
    who = row["person"] or row["caller"] or row["stream_id"]
    # Only an answer can lack sources; an error has none, and a question of our own sentences reached no provider.
    has_sources = bool(row["sources"]) or row["outcome"] != "completed" or not row["asks"]
    gap = Gap(row["stream_id"], row["time"], who, row["bot"], words, _pairs(words), has_sources)
    answer = _folded(row["answer"] or "")
    if any(phrase in answer for phrase in phrases):
        gap.reasons.add("refused")
    if said.rating == "dislike":
        gap.reasons.add("disliked")
    return gap


def _note_again(before: Gap | None, gap: Gap) -> None:
    """Note that a person's former question was asked again."""
    if before and (gap.time - before.time).total_seconds() <= AGAIN_SECONDS and _likeness(before, gap) >= AGAIN_LIKE:
        before.reasons.add("asked_again")


def _likeness(one: Gap, other: Gap) -> float:
    """Return the common pairs of letters among all pairs of two questions, from 0 to 1."""
    together = len(one.pairs | other.pairs)
    return len(one.pairs & other.pairs) / together if together else 0.0


def _pairs(words: str) -> frozenset[str]:
    letters = _folded(words)
    return frozenset(letters[at : at + 2] for at in range(max(1, len(letters) - 1)))


def _folded(words: str) -> str:
    """Return the letters and digits of a text, in one case and one width."""
    return _NO_LETTERS.sub("", unicodedata.normalize("NFKC", words).casefold())
