"""The administrators' API of rules: each file's state, and what a text that is not in force yet would do to whom."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from channels.admin.rules import RulesParts, rules_blueprint
from services.admin.rules_store import RulesStore
from services.admin.sql_store import AdminStore
from services.admin.tokens import ROLES
from services.redis.store import ScriptRunner
from services.rules.access import AccessRules
from services.rules.copy_store import RulesCopyStore
from services.rules.quotas import QuotaRules
from services.rules.rules_file import RulesFiles
from services.rules.stored_rules import RulesVersions
from services.rules.words import WordRules
from services.usage.sql_store import SqlUsageStore
from services.usage.sums_store import SqlSumsStore
from tests.support.admins import AdminApi
from tests.support.rules import reread
from tests.support.schema import migrated
from tests.support.usage import AT, entry


class Company(AdminApi):
    """Two people who have asked, an access file for them, and administrators of each role."""

    def __init__(
        self, folder: Path, closes: ExitStack, runner: ScriptRunner | None = None, *, sql: bool = True
    ) -> None:
        """With a `runner`, rules without a file are saved in the database."""
        self.file = folder / "access.yaml"
        self.file.write_text("- {allow: true}\n", "utf-8")
        sums = None
        self.store = self.audit = self.versions = None
        if sql:
            url = migrated(f"sqlite:///{folder}/rules.db")
            store, sums = SqlUsageStore(url), SqlSumsStore(url)
            for each in (store, sums):
                closes.callback(each.close)
            asked = [("s1", "wang", "研发部"), ("s2", "wang", "研发部"), ("s3", "li", "外包"), ("s4", "", "")]
            store.save([entry(name, person=who, department=where) for name, who, where in asked], log=False)
        if runner:
            self.store, self.audit = RulesStore(url), AdminStore(url)
            closes.callback(self.store.close)
            closes.callback(self.audit.close)
            self.versions = RulesVersions(self.store, RulesCopyStore(runner))
            self.versions.open("quotas", QuotaRules.parse, QuotaRules([]))
            self.versions.open("words", WordRules.parse, WordRules([]))
        self.files = RulesFiles(self.versions)
        self.files.open("ACCESS_FILE", str(self.file), AccessRules.parse)
        parsers: dict[str, Callable[[str], Any]] = {
            "ACCESS_FILE": AccessRules.parse,
            "QUOTAS_FILE": QuotaRules.parse,
            "WORDS_FILE": WordRules.parse,
        }
        parts = RulesParts(
            lambda: self.files.files, parsers, sums, ZoneInfo("Asia/Shanghai"), self.store, self.versions
        )
        super().__init__(lambda administrators: rules_blueprint(administrators, parts, clock=lambda: AT))

    def saves(self, kind: str, text: str, base: int, role: str = "admin", **note: str) -> tuple[int, Any]:
        """Save a text; return the status and the data."""
        return self.sends("PUT", f"rules/{kind}", role, {"text": text, "base": base, **note})

    def kind(self, kind: str) -> Any:
        """Return what a viewer sees of a kind."""
        kinds = self.sends("GET", "rules", "viewer")[1]["kinds"]
        return next(one for one in kinds if one["kind"] == kind)

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


@pytest.fixture
def editors(tmp_path: Path, closes: ExitStack, runner: ScriptRunner) -> Company:
    """A company whose quotas and words are edited, and whose rules of access are in a file."""
    return Company(tmp_path, closes, runner)


def test_a_viewer_sees_the_state_of_each_file(company: Company) -> None:
    """A broken file names what was expected, and in which rule; the last good rules stay in force."""
    good = {"setting": "ACCESS_FILE", "file": "access.yaml", "in_force": True, "cause": None}
    assert company.sends("GET", "rules", "viewer")[1]["files"] == [good]

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


def test_saved_rules_are_in_force_and_have_their_versions(editors: Company) -> None:
    """At once on the replica that saved them; everybody sees who and when, an admin the texts, newest first."""
    unset = {"setting": "QUOTAS_FILE", "kept_in": "database", "version": None, "in_force": None, "cause": None}
    assert editors.kind("quotas") == {"kind": "quotas", **unset}

    status, first = editors.saves("quotas", "- {questions: 5/day}\n", 0, note="begin")
    assert (status, first["number"], first["saved_by"], first["note"]) == (200, 1, "admin", "begin")
    assert editors.saves("quotas", "- {questions: 9/day}\n", 1)[0] == 200

    kind = editors.kind("quotas")
    assert (kind["version"]["number"], kind["in_force"], kind["cause"]) == (2, 2, None)
    status, page = editors.gets("rules/quotas/versions?limit=1")
    assert [one["number"] for one in page["versions"]] == [2]
    status, page = editors.gets(f"rules/quotas/versions?cursor={page['next']}")
    assert (page["versions"], page["next"]) == ([first], None)
    assert editors.gets("rules/quotas/versions/1", "admin") == (200, {"number": 1, "text": "- {questions: 5/day}\n"})
    people = editors.checks("QUOTAS_FILE", "")["people"]
    assert {(*one["now"], *one["then"]) for one in people} == {("person: 9 questions/day",)}


def test_going_back_makes_the_newest_version_and_both_are_audited(editors: Company) -> None:
    """Who, from where, and the numbers before and after."""
    for number, text in enumerate(("mask 甲", "mask 乙")):
        editors.saves("words", text, number)

    status, third = editors.sends("POST", "rules/words/versions/1/restore", "admin")

    assert (status, third["number"], third["restores"]) == (200, 3, 1)
    assert editors.gets("rules/words/versions/3", "admin")[1]["text"] == "mask 甲"
    assert editors.audit
    assert [row.act for row in editors.audit.audit()] == [
        ("admin", "admin", "127.0.0.1", "rules.restore", "words", "2", "3, as 1"),
        ("admin", "admin", "127.0.0.1", "rules.save", "words", "1", "2"),
        ("admin", "admin", "127.0.0.1", "rules.save", "words", "0", "1"),
    ]


def test_of_two_editors_the_second_is_refused(editors: Company) -> None:
    """Its text began from a version that is not the newest any more."""
    editors.saves("words", "mask 甲", 0)

    assert editors.saves("words", "mask 乙", 0) == (409, {"reason": "rules_changed"})
    assert editors.kind("words")["version"]["number"] == 1


def test_a_broken_text_saves_nothing(editors: Company) -> None:
    """The reply has what was expected."""
    status, data = editors.saves("quotas", "- {questions: many}", 0)

    assert (status, data["reason"], data["cause"].startswith("in rule 1 questions")) == (422, "rules_broken", True)
    assert editors.kind("quotas")["version"] is None
    for wrong in ({"text": "a" * 500_001, "base": 0}, {"text": "", "base": -1}, {"text": ""}):
        assert editors.sends("PUT", "rules/quotas", "admin", wrong)[0] == 422
    assert editors.gets("rules/quotas/versions")[1]["versions"] == []


def test_an_emptied_text_ends_the_rules(editors: Company) -> None:
    """Nobody is limited then, as the check says before; an empty file of access rules lets nobody in."""
    editors.saves("quotas", "- {questions: 5/day}\n", 0)

    assert editors.checks("QUOTAS_FILE", " \n")["changed"] == 2
    assert editors.saves("quotas", "", 1)[0] == 200
    assert editors.checks("QUOTAS_FILE", "")["changed"] == 0
    assert editors.checks("ACCESS_FILE", "")["changed"] == 2


def test_a_file_comes_before_versions(editors: Company) -> None:
    """Where the setting names one, nothing is saved; without a database neither."""
    assert editors.kind("access")["kept_in"] == "file"
    reply = editors.asks("PUT", "rules/access", "admin", json={"text": "", "base": 0})
    assert (reply.status_code, reply.get_json()["data"]) == (409, {"reason": "rules_elsewhere"})
    assert reply.get_json()["message"].startswith("ACCESS_FILE names a file: ")


def test_without_a_database_nothing_can_be_saved(company: Company) -> None:
    """The reply says what to set; there are no versions."""
    assert [company.kind(kind)["kept_in"] for kind in ("access", "words")] == ["file", "nowhere"]
    reply = company.asks("PUT", "rules/words", "admin", json={"text": "", "base": 0})
    assert (reply.status_code, "DATABASE_PATH" in reply.get_json()["message"]) == (409, True)
    assert company.gets("rules/words/versions")[0] == 404


def test_texts_and_changes_are_for_the_role_admin(editors: Company) -> None:
    """Each of the three tries everything; unknown kinds and versions are 404."""
    editors.saves("words", "mask 甲", 0)
    tried = [
        ("GET", "rules", None),
        ("GET", "rules/words/versions", None),
        ("GET", "rules/words/versions/1", None),
        ("PUT", "rules/words", {"text": "mask 乙", "base": 1}),
        ("POST", "rules/words/versions/1/restore", None),
    ]
    found = {role: [editors.sends(method, path, role, sent)[0] for method, path, sent in tried] for role in ROLES}

    assert found == {
        "viewer": [200, 200, 403, 403, 403],
        "operator": [200, 200, 403, 403, 403],
        "admin": [200, 200, 200, 200, 200],
    }
    assert editors.saves("others", "", 0)[0] == 404
    for path in (
        "rules/words/versions/9",
        "rules/words/versions/first",
        "rules/words/versions/99999999999999999999",
        "rules/others/versions/1",
    ):
        assert editors.gets(path, "admin")[0] == 404
