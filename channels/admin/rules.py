"""The files of rules, for administrators: whether each is in force, and what a text that is not yet would do."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, Literal, NamedTuple
from zoneinfo import ZoneInfo

from flask import Blueprint, Response
from pydantic import ConfigDict, Field

from channels.admin.endpoints import TAG
from channels.admin.feedback import in_turns
from channels.admin.reports import Sums
from channels.web.guarded import Administrators, admin_errors
from channels.web.rest import Operation, RestModel, body, envelope
from config.apps import OWN_APP
from services.errors import AuthError
from services.rules.access import AccessRule, AccessRules
from services.rules.quotas import QuotaRules
from services.rules.rules_file import RulesFile
from services.rules.visitors import Visitor
from services.rules.words import WordRules

#: Characters of a text that is checked, and of the sample; bytes of the body.
MOST_TEXT, MOST_SAMPLE, MAX_BODY = 500_000, 20_000, 4 * 1024 * 1024
#: Days of the people with whom a text is tried; how many are, each by bot and channel, and how many are shown.
DAYS, MOST_TRIED, MOST_SHOWN = 30, 2_000, 200
#: The outcome of access rules for somebody who may not ask, and for somebody whom the bot's own app answers.
REFUSED, ALLOWED = "refused", "allowed"
_EVERYBODY = AccessRules([AccessRule(allow=True)])


class RulesFileShown(RestModel):
    """A file of rules."""

    setting: str = Field(description="The setting that names it.", examples=["ACCESS_FILE"])
    file: str = Field(description="Its name, without its folder.")
    in_force: bool = Field(description="Whether it is in force as it is; false: the last good rules are.")
    cause: str | None = Field(description="What was expected where the file is broken.")


class RulesShown(RestModel):
    """The files of rules that the settings name."""

    files: list[RulesFileShown]


class RulesText(RestModel):
    """Rules that are not in force yet."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"setting": "ACCESS_FILE", "text": "- {allow: true}"}]})

    setting: Literal["ACCESS_FILE", "QUOTAS_FILE", "WORDS_FILE"]
    text: str = Field(max_length=MOST_TEXT, description="The content of the file.")
    sample: str = Field("", max_length=MOST_SAMPLE, description="A question or an answer, for `WORDS_FILE`.")


class TriedPerson(RestModel):
    """Somebody who has asked, and what rules do about them."""

    person: str
    department: str | None
    bot: str
    channel: str
    questions: int = Field(description=f"Of the last {DAYS} days.")
    now: list[str] = Field(description="What the rules in force do: of access rules `allowed`, `refused` or an app.")
    then: list[str] = Field(description="What the text would do; of quotas the limits that count.")


class MetWords(RestModel):
    """A line of the words that the sample meets."""

    line: int
    action: str
    pattern: str


class RulesChecked(RestModel):
    """What a text would do."""

    cause: str | None = Field(description="What was expected where the text is broken; null for a good one.")
    tried: int = Field(description="People with whom it was tried: those who asked most.")
    changed: int = Field(description="Those of them for whom something changes.")
    people: list[TriedPerson] = Field(
        description=f"By bot and channel, {MOST_SHOWN} at most, those for whom something changes first."
    )
    words: list[MetWords]
    masked: str | None = Field(description="The sample as it would be shown in an answer.")


OPERATIONS = (
    Operation(
        "GET",
        "/api/admin/rules",
        "The files of rules, and whether they are in force",
        TAG,
        answers={200: RulesShown},
        auth="viewer",
        description="Of the replica that answers; each reads a changed file within five seconds.",
    ),
    Operation(
        "POST",
        "/api/admin/rules/check",
        "Check rules before they are in force",
        TAG,
        body=RulesText,
        answers={200: RulesChecked, 422: None},
        auth="admin",
        description="Nothing is changed. Rules of access and quotas are tried with the people who asked lately, by "
        "their main department, beside the rules in force; words with the sample.",
    ),
)


class RulesParts(NamedTuple):
    """What the views of rules read; `sums` is None without a database."""

    files: Callable[[], Sequence[RulesFile[Any]]]
    #: By setting, what reads a text; it raises `ValueError` with what it expected.
    parsers: Mapping[str, Callable[[str], Any]]
    sums: Sums | None
    zone: ZoneInfo


def rules_blueprint(
    administrators: Administrators, parts: RulesParts, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
) -> Blueprint:
    """Return the addresses of rules."""
    routes = Blueprint("admin_rules", __name__)
    admin_errors(routes)

    @routes.get("/api/admin/rules")
    def rules() -> Response:
        administrators.check("viewer")
        return envelope({"files": [_file(one) for one in parts.files()]})

    @routes.post("/api/admin/rules/check")
    def check() -> Response:
        administrators.check("admin")
        given = body(RulesText, max_bytes=MAX_BODY)
        return envelope(_checked(given, parts, clock().astimezone(parts.zone).date()))

    return routes


def _file(file: RulesFile[Any]) -> dict[str, Any]:
    return {
        "setting": file.setting,
        "file": file.name,
        "in_force": not file.problem,
        "cause": file.problem or None,
    }


def _checked(given: RulesText, parts: RulesParts, today: date) -> dict[str, Any]:
    nothing: dict[str, Any] = {"cause": None, "tried": 0, "changed": 0, "people": [], "words": [], "masked": None}
    try:
        rules = parts.parsers[given.setting](given.text.removeprefix("\ufeff"))
    except ValueError as exc:
        return {**nothing, "cause": str(exc)}
    except RecursionError:
        return {**nothing, "cause": "a file that is nested less deeply"}
    if isinstance(rules, WordRules):
        return {**nothing, **_words(rules, given.sample)}
    # Without a file of access rules everybody may ask, and without one of quotas nothing is limited.
    without = _EVERYBODY if given.setting == "ACCESS_FILE" else None
    in_force = next((one.rules for one in parts.files() if one.setting == given.setting), without)
    people = [
        {**shown, "now": _outcome(in_force, visitor), "then": _outcome(rules, visitor)}
        for visitor, shown in in_turns(_visitors(parts, today))
    ]
    people.sort(key=lambda one: one["now"] == one["then"])
    changed = {one["person"] for one in people if one["now"] != one["then"]}
    tried = {one["person"] for one in people}
    return {**nothing, "tried": len(tried), "changed": len(changed), "people": people[:MOST_SHOWN]}


def _words(rules: WordRules, sample: str) -> dict[str, Any]:
    met = sorted({*rules.asked([sample]), *rules.answered(sample)})
    words = [{"line": rule.line, "action": rule.action, "pattern": rule.pattern} for rule in met]
    return {"words": words, "masked": rules.masked(sample)}


def _visitors(parts: RulesParts, today: date) -> Iterator[tuple[Visitor, dict[str, Any]]]:
    """Yield the people who asked lately, those with most questions first, as rules and as administrators see them."""
    if parts.sums is None:
        return
    by = ("person", "department", "bot", "channel")
    totals = parts.sums.totals(today - timedelta(days=DAYS - 1), today, by=by, chosen={})
    known = [(key, total.questions) for key, total in totals if key[0]]
    for (person, department, bot, channel), questions in sorted(known, key=lambda one: -one[1])[:MOST_TRIED]:
        shown = {"person": person, "department": department or None, "bot": bot, "channel": channel}
        departments = (department,) if department else ()
        yield Visitor(bot, channel, person, departments), {**shown, "questions": questions}


def _outcome(rules: AccessRules | QuotaRules | None, visitor: Visitor) -> list[str]:
    """Return what rules do about a visitor."""
    if isinstance(rules, QuotaRules):
        return [
            f"{counter.kind}: {limit} {thing}/{counter.unit}"
            for counter in rules.needed(visitor)
            for thing, limit in counter.limits.items()
        ]
    if isinstance(rules, AccessRules):
        try:
            app = rules.check(visitor)
        except AuthError:
            return [REFUSED]
        return [ALLOWED] if app == OWN_APP else [app]
    return []
