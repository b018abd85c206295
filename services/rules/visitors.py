"""The people and programs that rules are about, and the YAML list of rules about them.

A rule matches where each of its members names what the question has; a list names several, and a rule without members
matches everybody. `access.py` and `quotas.py` add their own members.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple, TypeVar

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

#: Matches whoever has no known department.
UNKNOWN = "unknown"
MOST_RULES = 10_000
#: Names, lists and members of a file that are read before other threads go on.
AT_ONCE = 1_000
#: YAML's tag of a boolean.
_BOOL = "tag:yaml.org,2002:bool"


def _listed(value: Any) -> Any:
    """Return one name as a list of one."""
    return value if isinstance(value, list) else [value]


#: A list that has lost its last name is refused: it would match everybody.
Names = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(min_length=1), BeforeValidator(_listed)]


class Visitor(NamedTuple):
    """Who asks, as rules see it. A name that a program gives for its user is no `person`."""

    bot: str
    channel: str
    #: WeCom's userid, or the user_code of a token; "" for everybody else.
    person: str = ""
    #: The names of the person's departments.
    departments: Sequence[str] = ()
    #: The group's chatid; "" in a single chat.
    chat: str = ""
    #: The name of an API key, or its fingerprint; "" for people and for anonymous callers.
    key: str = ""


class VisitorRule(BaseModel):
    """One rule; a member that it does not have matches everybody."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    person: Names = ()
    department: Names = ()
    bot: Names = ()
    channel: Names = ()

    def matches(self, visitor: Visitor, *, any_department: bool = False) -> bool:
        """Tell whether the rule is about this visitor; with `any_department` whether it may be."""
        departments = visitor.departments or (UNKNOWN,)
        return (
            (not self.person or visitor.person in self.person)
            and (any_department or not self.department or any(one in self.department for one in departments))
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
        # The caller begins its sentence with "expected", as the checks of the rules do.
        wanted = error["msg"].removeprefix("Input should be ").removeprefix("Value error, expected ")
        raise ValueError(where + wanted) from exc


class _Loader(yaml.BaseLoader):
    """Reads every scalar but true and false as the text that was written: the userid 00123 is no number.

    Serves other requests meanwhile. The loader in C is five times as fast, but a text that is nested deep crashes it.
    """

    _events = 0

    def get_event(self) -> Any:
        self._events += 1
        if self._events % AT_ONCE == 0:
            time.sleep(0)
        return super().get_event()  # type: ignore[no-untyped-call]

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        mapping: dict[Any, Any] = super().construct_mapping(node, deep)
        if len(mapping) < len(node.value):
            raise yaml.MarkedYAMLError(problem="a member twice", problem_mark=node.start_mark)
        return mapping


_Loader.add_implicit_resolver(_BOOL, re.compile(r"(?:true|false|True|False|TRUE|FALSE)\Z"), [*"tfTF"])
_Loader.add_constructor(_BOOL, lambda _, node: node.value.lower() == "true")


def _read(text: str) -> Any:
    """Return what a YAML file has; an empty one has no rules."""
    try:
        rules = yaml.load(text, _Loader) or []  # nosec B506 - makes texts, booleans, lists and mappings
    except yaml.YAMLError as exc:
        mark: Any = getattr(exc, "problem_mark", None)
        where = f", which line {mark.line + 1} is not" if mark else ""
        raise ValueError(f"YAML{where}") from exc
    if isinstance(rules, list) and len(rules) > MOST_RULES:
        raise ValueError(f"at most {MOST_RULES} rules")
    return rules
