"""Who may ask, from `ACCESS_FILE`: a YAML list of rules, of which the last one that matches counts.

    - {allow: true}
    - {department: 外包, allow: false, say: 请联系行政开通}
    - {department: unknown, allow: true}
    - {person: [lisi, wangwu], allow: true}

A rule matches where each of its members `person`, `department`, `bot` and `channel` names what the question has; a list
names several. Whom no rule matches may not ask. `say` is the sentence that a refused person gets.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, TypeAdapter, ValidationError

from services.errors import AuthError

#: Matches whoever has no known department.
UNKNOWN = "unknown"
MOST_RULES = 10_000
#: Characters of a sentence.
SENTENCE = 500


def _listed(value: Any) -> Any:
    """Return one name as a list of one; YAML reads an id of digits as a number."""
    values = value if isinstance(value, list) else [value]
    return tuple(str(each) if isinstance(each, int) and not isinstance(each, bool) else each for each in values)


Names = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], BeforeValidator(_listed)]


class Visitor(NamedTuple):
    """Who asks, as rules see it. A name that a program gives for its user is no `person`."""

    bot: str
    channel: str
    #: WeCom's userid, or the user_code of a token; "" for everybody else.
    person: str = ""
    #: The names of the person's departments.
    departments: Sequence[str] = ()


class AccessRule(BaseModel):
    """One rule; a member without names matches everybody."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    allow: StrictBool
    person: Names = ()
    department: Names = ()
    bot: Names = ()
    channel: Names = ()
    say: Annotated[str, Field(max_length=SENTENCE)] = ""

    def matches(self, visitor: Visitor) -> bool:
        departments = visitor.departments or (UNKNOWN,)
        return (
            (not self.person or visitor.person in self.person)
            and (not self.department or any(one in self.department for one in departments))
            and (not self.bot or visitor.bot in self.bot)
            and (not self.channel or visitor.channel in self.channel)
        )


_RULES = TypeAdapter(Annotated[list[AccessRule], Field(max_length=MOST_RULES)])


class AccessRules:
    """The rules of one file."""

    def __init__(self, rules: Sequence[AccessRule]) -> None:
        self._rules = tuple(rules)

    @classmethod
    def parse(cls, text: str) -> AccessRules:
        """Return the rules of a file.

        Raises:
            ValueError: it is no list of rules; the message says which one is wrong, and what was expected.
        """
        try:
            return cls(_RULES.validate_python(_read(text)))
        except ValidationError as exc:
            error = exc.errors(include_url=False)[0]
            place = [str(each + 1) if isinstance(each, int) else each for each in error["loc"]]
            where = f"in rule {' '.join(place)}: " if place else ""
            raise ValueError(where + error["msg"].removeprefix("Input should be ")) from exc

    def check(self, visitor: Visitor) -> None:
        """Check that a question may be asked.

        Raises:
            AuthError: `not_allowed`, with the sentence of the rule that counts.
        """
        found = next((rule for rule in reversed(self._rules) if rule.matches(visitor)), None)
        if found is None or not found.allow:
            raise AuthError(code="not_allowed", sentence=found.say if found else "")


def _read(text: str) -> Any:
    """Return what a YAML file has; an empty one has no rules."""
    try:
        return yaml.safe_load(text) or []
    except yaml.YAMLError as exc:
        mark: Any = getattr(exc, "problem_mark", None)
        where = f", which line {mark.line + 1} is not" if mark else ""
        raise ValueError(f"YAML{where}") from exc
