"""The administrators' API of rules: each file's state, and what a text that is not in force yet would do to whom."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from channels.admin.rules import RulesParts, rules_blueprint
from services.admin.tokens import ROLES
from services.rules.access import AccessRules
from services.rules.quotas import QuotaRules
from services.rules.rules_file import RulesFiles
from services.rules.words import WordRules
from services.usage.sql_store import SqlUsageStore
from services.usage.sums_store import SqlSumsStore
from tests.support.admins import AdminApi
from tests.support.rules import reread
from tests.support.schema import migrated
from tests.support.usage import AT, entry


class Company(AdminApi):
    """Two people who have asked, an access file for them, and administrators of each role."""

    def __init__(self, folder: Path, closes: ExitStack, *, sql: bool = True) -> None:
        self.file = folder / "access.yaml"
        self.file.write_text("- {allow: true}\n", "utf-8")
        self.files = RulesFiles()
        self.files.open("ACCESS_FILE", str(self.file), AccessRules.parse)
        sums = None
        if sql:
            url = migrated(f"sqlite:///{folder}/rules.db")
            store, sums = SqlUsageStore(url), SqlSumsStore(url)
            for each in (store, sums):
                closes.callback(each.close)
            asked = [("s1", "wang", "研发部"), ("s2", "wang", "研发部"), ("s3", "li", "外包"), ("s4", "", "")]
            store.save([entry(name, person=who, department=where) for name, who, where in asked], log=False)
        parsers: dict[str, Callable[[str], Any]] = {
            "ACCESS_FILE": AccessRules.parse,
            "QUOTAS_FILE": QuotaRules.parse,
            "WORDS_FILE": WordRules.parse,
        }
        parts = RulesParts(lambda: self.files.files, parsers, sums, ZoneInfo("Asia/Shanghai"))
        super().__init__(lambda administrators: rules_blueprint(administrators, parts, clock=lambda: AT))

    def checks(self, setting: str, text: str, sample: str = "") -> Any:
        """Check a text as an admin."""
        given = {"setting": setting, "text": text, "sample": sample}
        status, data = self.sends("POST", "rules/check", "admin", given)
        assert status == 200
        return data


@pytest.fixture
def closes() -> Iterator[ExitStack]:
    with ExitStack() as closes:
        yield closes


@pytest.fixture
def company(tmp_path: Path, closes: ExitStack) -> Company:
    return Company(tmp_path, closes)


def test_a_viewer_sees_the_state_of_each_file(company: Company) -> None:
    """A broken file names what was expected, and in which rule; the last good rules stay in force."""
    good = {"setting": "ACCESS_FILE", "file": "access.yaml", "in_force": True, "cause": None}
    assert company.sends("GET", "rules", "viewer") == (200, {"files": [good]})

    company.file.write_text("- {allow: true}\n- {allow: perhaps}\n", "utf-8")
    reread(company.files)

    (broken,) = company.sends("GET", "rules", "viewer")[1]["files"]
    assert (broken["in_force"], broken["cause"].startswith("in rule 2 allow: ")) == (False, True)


def test_access_rules_are_tried_with_the_people_who_asked(company: Company) -> None:
    """Those for whom something changes come first; a broken text says what was expected, and nothing is changed."""
    found = company.checks("ACCESS_FILE", "- {allow: true}\n- {department: 外包, allow: false}\n")

    assert (found["cause"], found["tried"], found["changed"]) == (None, 2, 1)
    assert [(one["person"], one["questions"], one["now"], one["then"]) for one in found["people"]] == [
        ("li", 1, ["allowed"], ["refused"]),
        ("wang", 2, ["allowed"], ["allowed"]),
    ]
    broken = company.checks("ACCESS_FILE", "- {allow: true, use: other}")
    assert (broken["cause"].startswith("in rule 1 use"), broken["people"]) == (True, [])
    assert company.file.read_text("utf-8") == "- {allow: true}\n"


def test_quotas_are_tried_too(company: Company) -> None:
    """Each person has the limits that count; without a file there are none now."""
    found = company.checks("QUOTAS_FILE", "- {questions: 20/day}\n- {person: li, questions: 5/day}\n")

    limits = {one["person"]: (one["now"], one["then"]) for one in found["people"]}
    assert limits == {"wang": ([], ["person: 20 questions/day"]), "li": ([], ["person: 5 questions/day"])}
    assert found["changed"] == 2


def test_words_are_tried_with_a_sample(company: Company) -> None:
    """The lines that it meets, and how an answer with it would look."""
    found = company.checks("WORDS_FILE", "mask 薪酬\n", "薪酬怎么算？")

    assert [(one["line"], one["action"], one["pattern"]) for one in found["words"]] == [(1, "mask", "薪酬")]
    assert found["masked"] != "薪酬怎么算？"
    assert found["masked"].endswith("怎么算？")


def test_a_check_is_for_the_role_admin(company: Company) -> None:
    """It shows who asked; a text that is too long, and an unknown setting, are refused."""
    given = {"setting": "ACCESS_FILE", "text": "- {allow: true}"}
    assert [company.sends("POST", "rules/check", role, given)[0] for role in ROLES] == [403, 403, 200]
    for wrong in ({**given, "setting": "TEXTS_FILE"}, {**given, "text": "a" * 500_001}):
        assert company.sends("POST", "rules/check", "admin", wrong)[0] == 422


def test_without_a_database_a_text_is_checked_without_people(tmp_path: Path, closes: ExitStack) -> None:
    """Nobody is known who has asked."""
    found = Company(tmp_path, closes, sql=False).checks("ACCESS_FILE", "- {allow: false}")

    assert (found["cause"], found["tried"]) == (None, 0)


def test_without_an_access_file_everybody_is_allowed_now(company: Company) -> None:
    """So a file that allows everybody changes nothing."""
    company.files = RulesFiles()

    assert company.checks("ACCESS_FILE", "- {allow: true}")["changed"] == 0
    assert company.checks("ACCESS_FILE", "- {allow: false}")["changed"] == 2
