"""Rules, for administrators: what is in force, what a text that is not yet would do, and versions to save and restore.

A kind whose setting names a file is edited there, and cannot be saved here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from typing import Any, Literal, NamedTuple
from zoneinfo import ZoneInfo

from flask import Blueprint, Response
from pydantic import ConfigDict, Field

from channels.admin.endpoints import TAG, USUAL
from channels.admin.feedback import in_turns
from channels.admin.reports import Sums
from channels.web.guarded import Administrators, admin_errors
from channels.web.rest import Operation, RestError, RestModel, body, envelope, params
from config.apps import OWN_APP
from services.admin.rules_store import KEPT, RulesStore
from services.admin.tokens import Administrator
from services.errors import AnswerError, AuthError, StoreUnavailable
from services.rules.access import EVERYBODY, AccessRules
from services.rules.quotas import QuotaRules
from services.rules.rules_file import RulesFile
from services.rules.stored_rules import SETTINGS, Kind, RulesVersions, Version, parsed
from services.rules.visitors import Visitor
from services.rules.words import WordRules

#: Characters of a text that is checked, and of the sample; bytes of the body.
MOST_TEXT, MOST_SAMPLE, MAX_BODY = 500_000, 20_000, 4 * 1024 * 1024
#: Days of the people with whom a text is tried; how many are, each by bot and channel, and how many are shown.
DAYS, MOST_TRIED, MOST_SHOWN = 30, 2_000, 200
#: The outcome of access rules for somebody who may not ask, and for somebody whom the bot's own app answers.
REFUSED, ALLOWED = "refused", "allowed"
#: What there is by kind where nobody has made rules.
WITHOUT: Mapping[Kind, Any] = {"access": EVERYBODY, "quotas": QuotaRules([]), "words": WordRules([])}
#: A part of an address that is a kind, so that `check` is none.
KINDS = f"any({','.join(SETTINGS)})"
#: Characters of the note of a version.
MOST_NOTE = 500
#: Why rules cannot be saved, in words.
_ELSEWHERE = {
    "file": "{setting} names a file: its rules count, and they are edited in it.",
    "nowhere": "Rules are saved in a database, and there is none: set MYSQL_HOST or DATABASE_PATH.",
}


class RulesFileShown(RestModel):
    """A file of rules."""

    setting: str = Field(description="The setting that names it.", examples=["ACCESS_FILE"])
    file: str = Field(description="Its name, without its folder.")
    in_force: bool = Field(description="Whether it is in force as it is; false: the last good rules are.")
    cause: str | None = Field(description="What was expected where the file is broken.")


class RulesVersion(RestModel):
    """A version of rules that an administrator saved, without its text."""

    number: int = Field(examples=[4])
    saved_at: str = Field(examples=["2026-11-25T03:00:00.000Z"])
    saved_by: str = Field(description="The name of the administrator.", examples=["wang"])
    note: str | None = Field(examples=["the contractors too"])
    restores: int | None = Field(description="The version whose text it has again.")


class RulesKind(RestModel):
    """Where the rules of one kind are kept."""

    kind: Kind
    setting: str
    kept_in: Literal["file", "database", "nowhere"] = Field(
        description="`file`: the setting names one, and it is edited there. `nowhere`: there is no database to save in."
    )
    version: RulesVersion | None = Field(description="The newest version in the database; it is in force.")
    in_force: int | None = Field(
        description="The version that this replica has in force, 0 for none; it follows within five seconds."
    )
    cause: str | None = Field(description="What was expected where this replica cannot read the newest version.")


class RulesShown(RestModel):
    """The files of rules that the settings name, and the rules that are saved."""

    files: list[RulesFileShown]
    kinds: list[RulesKind]


class VersionsAsked(RestModel):
    """Which versions."""

    cursor: int | None = Field(None, ge=1, le=2**31 - 1, description="`next` of the page before.")
    limit: int = Field(USUAL, ge=1, le=KEPT)


class RulesVersionsPage(RestModel):
    """Versions of rules, the newest first."""

    versions: list[RulesVersion]
    next: int | None = Field(description="The `cursor` of the next page; null at the end.")


class RulesVersionText(RestModel):
    """A version of rules with its text."""

    number: int
    text: str


class RulesSaved(RestModel):
    """Rules that are to be in force."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"text": "- {allow: true}", "base": 3, "note": "everybody"}]}
    )

    text: str = Field(max_length=MOST_TEXT, description="An empty one ends the rules of this kind.")
    base: int = Field(ge=0, le=2**31 - 1, description="The newest version when the text was begun; 0 for none.")
    note: str | None = Field(None, max_length=MOST_NOTE)


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


_VERSIONS = "/api/admin/rules/{kind}/versions"
OPERATIONS = (
    Operation(
        "GET",
        "/api/admin/rules",
        "The rules, where they are kept, and whether they are in force",
        TAG,
        answers={200: RulesShown},
        auth="viewer",
        description="Of the replica that answers; each takes a change within five seconds.",
    ),
    Operation(
        "PUT",
        "/api/admin/rules/{kind}",
        "Save rules",
        TAG,
        body=RulesSaved,
        answers={200: RulesVersion, 409: None, 422: None},
        auth="admin",
        description="`kind` is `access`, `quotas` or `words`. The text is checked first: 422 `rules_broken` with "
        "`cause` changes nothing. 409 `rules_changed`: somebody has saved since `base`; `rules_elsewhere`: a file has "
        "these rules, or there is no database. In force on all replicas within five seconds. Audited as `rules.save`.",
    ),
    Operation(
        "GET",
        _VERSIONS,
        "Versions of rules",
        TAG,
        query=VersionsAsked,
        answers={200: RulesVersionsPage},
        auth="viewer",
        description=f"The newest {KEPT} of a kind are kept. Without a database there are none: 404.",
    ),
    Operation(
        "GET",
        _VERSIONS + "/{number}",
        "The text of a version",
        TAG,
        answers={200: RulesVersionText, 404: None},
        auth="admin",
    ),
    Operation(
        "POST",
        _VERSIONS + "/{number}/restore",
        "Go back to a version",
        TAG,
        answers={200: RulesVersion, 404: None, 409: None, 422: None},
        auth="admin",
        description="Its text becomes the newest version. Refused as saving it would be. Audited as `rules.restore`.",
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
    #: The versions in the database, and those in force here; None without one.
    store: RulesStore | None = None
    versions: RulesVersions | None = None

    def kept_in(self, kind: Kind) -> Literal["file", "database", "nowhere"]:
        """Return where the rules of a kind are kept."""
        if self.versions is None:
            return "file" if any(one.setting == SETTINGS[kind] for one in self.files()) else "nowhere"
        return "database" if kind in self.versions.kinds else "file"

    def parsed(self, kind: Kind, text: str) -> Any:
        """Return the rules of a text; raises `ValueError` with what was expected."""
        return parsed(text, self.parsers[SETTINGS[kind]], WITHOUT[kind])


def rules_blueprint(
    administrators: Administrators, parts: RulesParts, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
) -> Blueprint:
    """Return the addresses of rules."""
    routes = Blueprint("admin_rules", __name__)
    admin_errors(routes)

    @routes.get("/api/admin/rules")
    def rules() -> Response:
        administrators.check("viewer")
        files = [_file(one) for one in parts.files()]
        return envelope({"files": files, "kinds": list(_kinds(parts))})

    @routes.post("/api/admin/rules/check")
    def check() -> Response:
        administrators.check("admin")
        given = body(RulesText, max_bytes=MAX_BODY)
        return envelope(_checked(given, parts, clock().astimezone(parts.zone).date()))

    _add_versions(routes, administrators, parts)
    return routes


def _add_versions(routes: Blueprint, administrators: Administrators, parts: RulesParts) -> None:
    @routes.get(f"/api/admin/rules/<{KINDS}:kind>/versions")
    def versions(kind: Kind) -> Response:
        administrators.check("viewer")
        asked = params(VersionsAsked)
        found = _stored(parts).page(kind, asked.cursor, asked.limit)
        following = found[-1].number if len(found) == asked.limit else None
        return envelope({"versions": [_version(one) for one in found], "next": following})

    @routes.get(f"/api/admin/rules/<{KINDS}:kind>/versions/<number>")
    def version(kind: Kind, number: str) -> Response:
        administrators.check("admin")
        text = _text(parts, kind, number)
        return envelope({"number": int(number), "text": text})

    @routes.put(f"/api/admin/rules/<{KINDS}:kind>")
    def save(kind: Kind) -> Response:
        who = administrators.check("admin")
        given = body(RulesSaved, max_bytes=MAX_BODY)
        return _save(administrators, who, parts, kind, given)

    @routes.post(f"/api/admin/rules/<{KINDS}:kind>/versions/<number>/restore")
    def restore(kind: Kind, number: str) -> Response:
        who = administrators.check("admin")
        text = _text(parts, kind, number)
        return _save(administrators, who, parts, kind, text, restores=int(number))


def _save(
    administrators: Administrators,
    who: Administrator,
    parts: RulesParts,
    kind: Kind,
    given: RulesSaved | str,
    restores: int | None = None,
) -> Response:
    """Save a text that an administrator has sent, or that of an earlier version, as the newest one."""
    if (place := parts.kept_in(kind)) != "database":
        raise RestError(409, _ELSEWHERE[place].format(setting=SETTINGS[kind]), reason="rules_elsewhere")
    text, base, note = (given, None, None) if isinstance(given, str) else (given.text, given.base, given.note)
    text = text.removeprefix("\ufeff")
    try:
        parts.parsed(kind, text)
    except ValueError as exc:
        raise RestError(422, reason="rules_broken", data={"cause": str(exc)}) from exc
    act = administrators.act(who, "rules.save" if restores is None else "rules.restore", kind)
    saved = _stored(parts).save(kind, text, by=act, base=base, note=note or None, restores=restores)
    if saved is None:
        raise RestError(409, reason="rules_changed")
    administrators.note(act)
    if parts.versions:
        parts.versions.look()
    return envelope(_version(saved))


def _stored(parts: RulesParts) -> RulesStore:
    if parts.store is None:
        raise RestError(404)
    return parts.store


def _text(parts: RulesParts, kind: Kind, number: str) -> str:
    """Return the text of a version, whose number comes from an address."""
    text = _stored(parts).text(kind, int(number)) if re.fullmatch("[0-9]{1,9}", number) else None
    if text is None:
        raise RestError(404, reason="version_unknown")
    return text


def _kinds(parts: RulesParts) -> Iterator[dict[str, Any]]:
    """Yield each kind of rules; without an answer of the database, the newest versions are left out."""
    try:
        newest = (parts.store.newest() if parts.store else None) or {}
    except StoreUnavailable:
        newest = {}
    for kind, setting in SETTINGS.items():
        rules = parts.versions.kinds.get(kind) if parts.versions else None
        version = newest.get(kind) if rules else None
        yield {
            "kind": kind,
            "setting": setting,
            "kept_in": parts.kept_in(kind),
            "version": _version(version) if version else None,
            "in_force": rules.number if rules else None,
            "cause": (rules.problem or None) if rules else None,
        }


def _version(version: Version) -> dict[str, Any]:
    assert version.saved_at
    saved = version.saved_at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return {**version._asdict(), "saved_at": saved}


def _file(file: RulesFile[Any]) -> dict[str, Any]:
    return {
        "setting": file.setting,
        "file": file.name,
        "in_force": not file.problem,
        "cause": file.problem or None,
    }


def _checked(given: RulesText, parts: RulesParts, today: date) -> dict[str, Any]:
    nothing: dict[str, Any] = {"cause": None, "tried": 0, "changed": 0, "people": [], "words": [], "masked": None}
    kind = next(kind for kind, setting in SETTINGS.items() if setting == given.setting)
    text, in_file = given.text.removeprefix("\ufeff"), parts.kept_in(kind) == "file"
    try:
        # An empty file of access rules lets nobody in; an emptied version ends the rules.
        rules = parts.parsers[given.setting](text) if in_file and not text.strip() else parts.parsed(kind, text)
    except ValueError as exc:
        return {**nothing, "cause": str(exc)}
    if isinstance(rules, WordRules):
        return {**nothing, **_words(rules, given.sample)}
    in_force = _in_force(parts, kind)
    people = [
        {**shown, "now": _outcome(in_force, visitor), "then": _outcome(rules, visitor)}
        for visitor, shown in in_turns(_visitors(parts, today))
    ]
    people.sort(key=lambda one: one["now"] == one["then"])
    changed = {one["person"] for one in people if one["now"] != one["then"]}
    tried = {one["person"] for one in people}
    return {**nothing, "tried": len(tried), "changed": len(changed), "people": people[:MOST_SHOWN]}


def _in_force(parts: RulesParts, kind: Kind) -> Any:
    """Return the rules in force here; None while they are not known."""
    if parts.versions and (stored := parts.versions.kinds.get(kind)):
        with suppress(AnswerError):
            return stored.rules
        return None
    return next((one.rules for one in parts.files() if one.setting == SETTINGS[kind]), WITHOUT[kind])


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
