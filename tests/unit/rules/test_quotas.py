"""Quota rules: which counters a question needs, and the calendar that they are counted by."""

from __future__ import annotations

import re
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from services.rules.quotas import Counter, QuotaRules, Unit, period
from services.rules.visitors import Visitor

SHANGHAI = ZoneInfo("Asia/Shanghai")
COMPANY = """
- {questions: 50/day, tokens: 200000/day}
- {department: 研发部, questions: 200/day, tokens: 3000000/month}
- {person: zhangsan, unlimited: true}
- {chat: any, questions: 20/minute}
- {chat: [wrTEST], questions: 40/minute}
- {total: true, questions: 20000/day}
- {bot: hr, total: true, questions: 10000/day}
- {key: any, questions: 10/day}
- {key: reports, questions: 1000/day}
"""


def limits(counters: list[Counter]) -> list[tuple[str, str, int | None, int | None]]:
    return [(one.kind, one.unit, one.questions, one.tokens) for one in counters]


@pytest.mark.parametrize(
    ("visitor", "expected"),
    [
        (
            Visitor("default", "wecom", "wangwu", ["人事部"]),
            [("person", "day", 50, 200000), ("total", "day", 20000, None)],
        ),
        (
            Visitor("hr", "wecom", "lisi", ["人事部", "研发部"], chat="wr1"),
            [
                *(("person", "day", 200, None), ("person", "month", None, 3000000)),
                *(("chat", "minute", 20, None), ("total", "day", 10000, None)),
            ],
        ),
        (
            Visitor("default", "wecom", "zhangsan", ["研发部"], chat="wrTEST"),
            [("chat", "minute", 40, None), ("total", "day", 20000, None)],
        ),
        (Visitor("default", "http", key="reports"), [("total", "day", 20000, None), ("key", "day", 1000, None)]),
        (Visitor("default", "http", key="0f3a"), [("total", "day", 20000, None), ("key", "day", 10, None)]),
        (Visitor("default", "http"), [("total", "day", 20000, None)]),
    ],
)
def test_the_last_rule_of_each_kind_counts_whole(visitor: Visitor, expected: list[object]) -> None:
    """A program is no person, and a person's rule says nothing about keys."""
    assert limits(QuotaRules.parse(COMPANY).needed(visitor)) == expected


def test_what_depends_on_an_unknown_department_is_left_open() -> None:
    """The rules that may count are those before the first one that does in any case."""
    rules, visitor = QuotaRules.parse(COMPANY), Visitor("default", "wecom", "wangwu")

    assert limits(rules.needed(visitor, departments_known=False)) == [("total", "day", 20000, None)]
    assert {one.unit for one in rules.possible(visitor)} == {"day", "month"}
    decided = Visitor("default", "wecom", "zhangsan")
    assert rules.possible(decided) == []
    only = QuotaRules.parse("- {department: 研发部, questions: 1/day}")
    assert (only.needed(visitor, departments_known=False), only.needed(visitor)) == ([], [])
    assert limits(only.possible(visitor)) == [("person", "day", 1, None)]


def test_a_person_has_one_count_whatever_rule_of_the_same_questions_counts() -> None:
    """So a changed limit goes on with what was used. Rules about other questions count apart."""
    text = "- {questions: 5/day}\n- {department: 研发部, questions: 9/day}\n- {bot: hr, questions: 1/day}"
    rules = QuotaRules.parse(text)

    def name(bot: str, department: str) -> str:
        return rules.needed(Visitor(bot, "wecom", "lisi", [department]))[0].name

    assert name("default", "研发部") == name("default", "人事部") != name("hr", "人事部")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("- {questions: 50}", "in rule 1 questions: such as 50/day"),
        ("- {questions: 50/week}", ": such as 50/day"),
        ("- {questions: 5/day;6/day}", "each one once"),
        ("- {questions: -1/day}", ": such as 50/day"),
        ("- {person: lisi}", "in rule 1: either questions and tokens, or unlimited: true"),
        ("- {unlimited: true, tokens: 1/day}", "in rule 1: either"),
        ("- {chat: any, total: true, questions: 1/day}", "in rule 1: one of chat, key and total at most"),
        ("- {question: 1/day}", "in rule 1 question: Extra inputs are not permitted"),
    ],
)
def test_a_wrong_file_is_described(text: str, expected: str) -> None:
    with pytest.raises(ValueError, match=re.escape(expected)):
        QuotaRules.parse(text)


def test_several_limits_are_separated_by_semicolons() -> None:
    rules = QuotaRules.parse("- {questions: 20/minute; 50/day, tokens: 9/day}")

    assert limits(rules.needed(Visitor("default", "wecom", "lisi"))) == [
        ("person", "minute", 20, None),
        ("person", "day", 50, 9),
    ]


@pytest.mark.parametrize(
    ("unit", "moment", "name", "begin", "end"),
    [
        ("day", "2026-11-24T23:59:59", "2026-11-24", "2026-11-24T00:00", "2026-11-25T00:00"),
        ("day", "2026-11-25T00:01", "2026-11-25", "2026-11-25T00:00", "2026-11-26T00:00"),
        ("day", "2028-02-28T23:59", "2028-02-28", "2028-02-28T00:00", "2028-02-29T00:00"),
        ("day", "2028-02-29T00:01", "2028-02-29", "2028-02-29T00:00", "2028-03-01T00:00"),
        ("month", "2028-02-29T12:00", "2028-02", "2028-02-01T00:00", "2028-03-01T00:00"),
        ("month", "2026-01-31T23:59", "2026-01", "2026-01-01T00:00", "2026-02-01T00:00"),
        ("month", "2026-12-31T23:59", "2026-12", "2026-12-01T00:00", "2027-01-01T00:00"),
        ("hour", "2026-11-24T08:30", "hour-1795478400", "2026-11-24T08:00", "2026-11-24T09:00"),
        ("minute", "2026-11-24T08:30:59", "minute-1795480200", "2026-11-24T08:30", "2026-11-24T08:31"),
    ],
)
def test_periods_are_those_of_the_calendar_in_shanghai(
    unit: Unit, moment: str, name: str, begin: str, end: str
) -> None:
    """A day begins at midnight there, not at 08:00, and a month on its first."""

    def at(local: str) -> float:
        return datetime.fromisoformat(local).replace(tzinfo=SHANGHAI).timestamp()

    assert period(unit, at(moment), SHANGHAI) == (name, at(begin), at(end))


def test_an_hour_that_the_clocks_repeat_is_counted_twice() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    first = datetime(2026, 10, 25, 2, 30, tzinfo=berlin).timestamp()

    assert period("hour", first, berlin).end == period("hour", first + 3600, berlin).begin
    assert period("day", first, berlin).end - period("day", first, berlin).begin == 25 * 3600
