"""Access rules: the last one that matches counts whole, and whom none matches may not ask."""

from __future__ import annotations

import re
import threading
import time

import pytest

from services.errors import AuthError
from services.rules.access import AccessRules
from services.rules.departments import parse_departments
from services.rules.visitors import Visitor

COMPANY = """
- {allow: true}
- {department: 外包, allow: false, say: 请联系行政开通}
- {department: unknown, channel: wecom, allow: false}
- {person: [lisi, 10086], allow: true}
- {bot: hr, allow: false, say: 人事专用}
- {bot: hr, department: [人事部, 法务部], allow: true}
"""


def sentence(rules: str, visitor: Visitor) -> str | None:
    """Return None for a visitor who may ask, else the sentence."""
    try:
        AccessRules.parse(rules).check(visitor)
    except AuthError as exc:
        return exc.sentence
    return None


@pytest.mark.parametrize(
    ("visitor", "expected"),
    [
        (Visitor("default", "wecom", "zhangsan", ["研发部"]), None),
        (Visitor("default", "wecom", "wangwu", ["研发部", "外包"]), "请联系行政开通"),
        (Visitor("default", "wecom", "wangwu"), ""),
        (Visitor("default", "http"), None),
        (Visitor("default", "wecom", "lisi", ["外包"]), None),
        (Visitor("default", "wecom", "10086", ["外包"]), None),
        (Visitor("hr", "wecom", "lisi", ["研发部"]), "人事专用"),
        (Visitor("hr", "wecom", "zhaoliu", ["法务部"]), None),
    ],
)
def test_the_last_rule_that_matches_counts(visitor: Visitor, expected: str | None) -> None:
    assert sentence(COMPANY, visitor) == expected


@pytest.mark.parametrize("nobody", ["", "[]", "# nothing\n", "- {person: lisi, allow: true}"])
def test_whom_no_rule_matches_may_not_ask(nobody: str) -> None:
    """A file that matches nobody lets nobody in."""
    assert sentence(nobody, Visitor("default", "wecom", "zhangsan", ["研发部"])) == ""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("allow: true", "a valid list"),
        ("- {allow: true}\n- {alow: true}", "in rule 2 allow: Field required"),
        ("- {allow: yess}", "in rule 1 allow: a valid boolean"),
        ("- {allow: true, persons: a}", "in rule 1 persons: Extra inputs are not permitted"),
        ("- {allow: true, person: [[a]]}", "in rule 1 person 1: a valid string"),
        ("- {allow: true, say: 长" + "长" * 500 + "}", "in rule 1 say: String should have at most 500 characters"),
        ("- {allow: true\n- b: [", "YAML, which line 2 is not"),
        ("- {allow: true}\n- {allow: true, use: hr}", "in rule 2 use: default, or an app of APPS (hr-app, it-app)"),
        ("- {allow: true}\n- {allow: true, allow: false}", "YAML, which line 2 is not"),
        ("- {allow: true, person: []}", "in rule 1 person: Tuple should have at least 1 item"),
        ("- {allow: 'true'}", "in rule 1 allow: a valid boolean"),
        ("- {allow: true, person: !!int ''}", "in rule 1 person 1: String should have at least 1 character"),
    ],
)
def test_a_wrong_file_is_described(text: str, expected: str) -> None:
    with pytest.raises(ValueError, match=re.escape(expected)):
        AccessRules.parse(text, ["hr-app", "it-app"])


def test_the_rule_that_counts_names_the_app() -> None:
    """The last match counts whole: without `use` the bot's own app answers, whatever an earlier rule says."""
    rules = AccessRules.parse(
        "- {allow: true, use: hr-app}\n- {person: lisi, allow: true}\n- {bot: it, allow: true, use: default}",
        ["hr-app"],
    )

    visitors = [Visitor("default", "wecom", "zhangsan"), Visitor("default", "wecom", "lisi"), Visitor("it", "http")]
    assert [rules.check(visitor) for visitor in visitors] == ["hr-app", "default", "default"]


def test_a_long_file_serves_others_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    """10,000 rules take a second of CPU time."""
    pauses: list[float] = []
    sleep, here = time.sleep, threading.get_ident()

    def pause(seconds: float) -> None:
        # Threads of earlier tests sleep too.
        return pauses.append(seconds) if threading.get_ident() == here else sleep(seconds)

    monkeypatch.setattr(time, "sleep", pause)

    AccessRules.parse("\n".join(f"- {{person: user{number}, allow: true}}" for number in range(1000)))

    assert len(pauses) >= 5
    assert not any(pauses)


@pytest.mark.parametrize("userid", ["00123", "0x1F", "1_000", "12:30", "1.50", "yes", "trueman", "null", "2026-11-24"])
def test_a_name_is_the_text_that_is_written(userid: str) -> None:
    """YAML would read some as numbers, which no person has: a rule that refuses would refuse nobody."""
    rules = AccessRules.parse(f"- {{allow: true}}\n- {{person: [{userid}], allow: false}}")

    with pytest.raises(AuthError):
        rules.check(Visitor("default", "wecom", userid))


def test_departments_are_read_by_the_names_of_columns() -> None:
    """A person of several departments has several lines."""
    text = "name,department,userid\r\n张三,研发部,zhangsan\r\n张三,外包,zhangsan\r\n李四,人事部,lisi\r\n"

    assert parse_departments(text) == {"zhangsan": ["研发部", "外包"], "lisi": ["人事部"]}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "CSV whose head has userid"),
        ("userid,dept\na,b\n", "CSV whose head has department"),
        ("userid,department\na,研发部\nb,\n", "in line 3 a userid and a department"),
        ("userid,department\na\n", "in line 2 a userid and a department"),
        ('userid,department\na,"研发部\nb,外包\nc,外包\n', "CSV, which line 4 is not"),
        ('userid,department\n"a"b,外包\n', "CSV, which line 2 is not"),
    ],
)
def test_a_wrong_file_of_departments_is_described(text: str, expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        parse_departments(text)
