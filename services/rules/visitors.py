"""The people and programs that rules are about, and the YAML list of rules about them.

A rule matches where each of its members names what the question has; a list names several, and a rule without members
matches everybody. `access.py` and `quotas.py` add their own members.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple, TypeVar

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

#: Matches whoever has no known department.
UNKNOWN = "unknown"
MOST_RULES = 10_000


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


class VisitorRule(BaseModel):
    """One rule; a member without names matches everybody."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    person: Names = ()
    department: Names = ()
    bot: Names = ()
    channel: Names = ()

    def matches(self, visitor: Visitor) -> bool:
        departments = visitor.departments or (UNKNOWN,)
        return (
            (not self.person or visitor.person in self.person)
            and (not self.department or any(one in self.department for one in departments))
            and (not self.bot or visitor.bot in self.bot)
            and (not self.channel or visitor.channel in self.channel)
        )


R = TypeVar("R", bound=VisitorRule)


def parse_rules(kind: type[R], text: str) -> Sequence[R]:
    """Return the rules of a file.

    Raises:
        ValueError: it is no list of rules; the message says which one is wrong, and what was expected.
    """
    rules: TypeAdapter[list[R]] = TypeAdapter(list[kind])  # type: ignore[valid-type]
    try:
        return rules.validate_python(_read(text))
    except ValidationError as exc:
        error = exc.errors(include_url=False)[0]
        place = [str(each + 1) if isinstance(each, int) else each for each in error["loc"]]
        where = f"in rule {' '.join(place)}: " if place else ""
        raise ValueError(where + error["msg"].removeprefix("Input should be ")) from exc


def _read(text: str) -> Any:
    """Return what a YAML file has; an empty one has no rules."""
    try:
        rules = yaml.safe_load(text) or []
    except yaml.YAMLError as exc:
        mark: Any = getattr(exc, "problem_mark", None)
        where = f", which line {mark.line + 1} is not" if mark else ""
        raise ValueError(f"YAML{where}") from exc
    if isinstance(rules, list) and len(rules) > MOST_RULES:
        raise ValueError(f"at most {MOST_RULES} rules")
    return rules
