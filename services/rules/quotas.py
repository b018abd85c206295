"""How much may be asked, from `QUOTAS_FILE`: a YAML list of rules, of which the last one that matches counts whole.

    - {questions: 50/day, tokens: 200000/day}            # each person
    - {department: 研发部, questions: 200/day, tokens: 3000000/month}
    - {person: zhangsan, unlimited: true}
    - {chat: any, questions: 20/minute}                  # each group chat
    - {bot: hr, total: true, questions: 10000/day}       # all questions to the bot together
    - {key: reports, questions: 1000/day}                # an API key that API_KEYS names

Rules about persons, chats, totals and keys are judged apart, and a question needs room in each. Several limits are
separated by semicolons: `20/minute;50/day`. Minutes, hours, days and months are those of the calendar.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime, timedelta
from functools import cached_property
from typing import Annotated, Any, Literal, NamedTuple, cast, get_args
from zoneinfo import ZoneInfo

from pydantic import BeforeValidator, Field, StrictBool, model_validator

from services.rules.visitors import Names, Visitor, VisitorRule, parse_rules

Kind = Literal["person", "chat", "total", "key"]
Thing = Literal["questions", "tokens"]
Unit = Literal["minute", "hour", "day", "month"]
KINDS: tuple[Kind, ...] = get_args(Kind)
THINGS: tuple[Thing, ...] = get_args(Thing)
UNITS: tuple[Unit, ...] = get_args(Unit)
#: Stands for every group chat, and for every API key.
ANY = "any"
_LIMIT = re.compile(rf"([0-9]{{1,15}}) ?/ ?({'|'.join(UNITS)})")


def _limits(value: Any) -> Mapping[str, int]:
    parts = [_LIMIT.fullmatch(part.strip()) for part in str(value).split(";")]
    limits = {part[2]: int(part[1]) for part in parts if part}
    if len(limits) < len(parts):
        raise ValueError(f"expected such as 50/day or 20/minute;50/day, with {', '.join(UNITS)}, each one once")
    return limits


Limits = Annotated[Mapping[Unit, int], BeforeValidator(_limits)]


class Period(NamedTuple):
    """A minute, hour, day or month of the calendar."""

    #: In keys of Redis.
    name: str
    #: In seconds since 1970.
    begin: float
    end: float


def period(unit: Unit, now: float, zone: ZoneInfo) -> Period:
    """Return the period that has the moment `now`, in seconds since 1970."""
    local = datetime.fromtimestamp(now, zone)
    if unit in ("day", "month"):
        first = local.date() if unit == "day" else local.date().replace(day=1)
        later = first + timedelta(days=1) if unit == "day" else (first + timedelta(days=31)).replace(day=1)
        name = first.isoformat() if unit == "day" else f"{first:%Y-%m}"
        return Period(name, _midnight(first, zone), _midnight(later, zone))
    seconds = 60 if unit == "minute" else 3600
    minute = local.minute if unit == "minute" else 0
    begin = local.replace(minute=minute, second=0, microsecond=0).timestamp()
    # By the time since 1970: an hour that the clocks go back to begins twice.
    return Period(f"{unit}-{int(begin)}", begin, begin + seconds)


def _midnight(day: date, zone: ZoneInfo) -> float:
    return datetime(day.year, day.month, day.day, tzinfo=zone).timestamp()


class Counter(NamedTuple):
    """What is counted together: the questions and tokens of one person, chat, key or total, by one unit of time."""

    kind: Kind
    #: The person, chat or key, and the members by which the rule chooses questions.
    subject: str
    unit: Unit
    #: The limits; None for none.
    questions: int | None = None
    tokens: int | None = None

    @property
    def name(self) -> str:
        """What tells it from other counters. Limits are not in it: a rule that changes goes on with what was used."""
        return json.dumps([self.kind, self.subject, self.unit])

    @property
    def limits(self) -> Mapping[Thing, int]:
        return {thing: limit for thing in THINGS if (limit := getattr(self, thing)) is not None}


class QuotaRule(VisitorRule):
    """The limits of the questions that it matches."""

    chat: Names = ()
    key: Names = ()
    total: StrictBool = False
    unlimited: StrictBool = False
    questions: Limits = Field(default_factory=dict)
    tokens: Limits = Field(default_factory=dict)

    @model_validator(mode="after")
    def _checked(self) -> QuotaRule:
        if bool(self.questions or self.tokens) == self.unlimited:
            raise ValueError("expected either questions and tokens, or unlimited: true")
        if sum(map(bool, (self.chat, self.key, self.total))) > 1:
            raise ValueError("expected one of chat, key and total at most")
        return self

    @cached_property
    def kind(self) -> Kind:
        return "chat" if self.chat else "key" if self.key else "total" if self.total else "person"

    def matches(self, visitor: Visitor, *, any_department: bool = False) -> bool:
        return (
            _has(self.chat, visitor.chat)
            and _has(self.key, visitor.key)
            and super().matches(visitor, any_department=any_department)
        )

    def counters(self, visitor: Visitor) -> Iterator[Counter]:
        """Yield the counters of a visitor whom it matches."""
        subject = json.dumps([_subject(self.kind, visitor), *self._scope], ensure_ascii=False)
        for unit in UNITS:
            if unit in self.questions or unit in self.tokens:
                yield Counter(self.kind, subject, unit, self.questions.get(unit), self.tokens.get(unit))

    @cached_property
    def _scope(self) -> list[list[str]]:
        """The members that choose questions; a person's questions are the same whatever rule counts them."""
        chosen_by = ("bot", "channel") if self.kind == "person" else ("bot", "channel", "person", "department")
        return [sorted(getattr(self, name)) for name in chosen_by]


def _has(names: Sequence[str], name: str) -> bool:
    return not names or name in names or (ANY in names and bool(name))


def _subject(kind: Kind, visitor: Visitor) -> str:
    return "" if kind == "total" else cast(str, getattr(visitor, kind))


class QuotaRules:
    """The rules of one file."""

    def __init__(self, rules: Sequence[QuotaRule]) -> None:
        self.rules = tuple(rules)
        self._of = {kind: [rule for rule in reversed(rules) if rule.kind == kind] for kind in KINDS}

    @classmethod
    def parse(cls, text: str) -> QuotaRules:
        """Return the rules of a file.

        Raises:
            ValueError: it is no list of rules.
        """
        return cls(parse_rules(QuotaRule, text))

    def needed(self, visitor: Visitor, *, departments_known: bool = True) -> list[Counter]:
        """Return the counters in which a visitor's question needs room.

        Unless the departments are known, those are missing that depend on them.
        """
        found = (self._counting(kind, visitor, departments_known) for kind in KINDS)
        return [counter for rules in found if len(rules) == 1 for counter in rules[0].counters(visitor)]

    def possible(self, visitor: Visitor) -> list[Counter]:
        """Return the counters of all rules of which one counts, if it depends on departments that are not known."""
        found = (self._counting(kind, visitor, False) for kind in KINDS)
        return [one for rules in found if len(rules) > 1 for rule in rules for one in rule.counters(visitor)]

    def _counting(self, kind: Kind, visitor: Visitor, departments_known: bool) -> list[QuotaRule]:
        """Return the rule of a kind that counts, if any; several where the departments decide."""
        rules: list[QuotaRule] = []
        if kind == "total" or _subject(kind, visitor):
            for rule in self._of[kind]:
                if rule.matches(visitor, any_department=not departments_known):
                    rules.append(rule)
                    if departments_known or not rule.department:
                        return rules
            # No rule counts where the department is none of those named.
            rules += [QuotaRule(unlimited=True)] if rules else []
        return rules
