"""Error messages for missing and wrong settings: one line with the name, the value and the expected value."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import ValidationError

from config.errors import SettingsError
from config.fields import Group

MASK = "***"
#: Characters of a value that a message shows; the rest is cut.
SHOWN = 80

#: Pydantic error type → plain text that replaces pydantic's message.
_EXPECTED = {
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_parsing": "true or false",
    "bool_type": "true or false",
}

_WORDS = (
    (re.compile(r"^(Value error, |Input should be )"), ""),
    (re.compile(r"^greater than or equal to "), "at least "),
    (re.compile(r"^less than or equal to "), "at most "),
    (re.compile(r"^greater than "), "more than "),
)

AnyGroup = TypeVar("AnyGroup", bound=Group)


@dataclass(frozen=True, slots=True)
class Problem:
    """A variable whose value prevents the start. `value` is "" if the variable is missing."""

    name: str
    value: str
    expected: str

    def __str__(self) -> str:
        if not self.value:
            return f"{self.name} is missing: expected {self.expected}"
        value = re.sub(r"//[^/@]*@", f"//{MASK}@", " ".join(self.value.split()))
        cut = value if len(value) <= SHOWN else value[:SHOWN] + "…"
        return f"{self.name}={cut!r} is wrong: expected {self.expected}"


class Invalid(SettingsError):
    """The settings are invalid. The message describes the first problem and lists the names of the others."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        first, *others = problems
        more = f" (also: {', '.join(problem.name for problem in others)})" if others else ""
        super().__init__(f"{first}{more}")


def validated(group: type[AnyGroup], given: Mapping[str, Any], where: str = "") -> AnyGroup:
    """Build a group of settings; `where` is prepended to variable names in messages.

    Raises:
        Invalid: one or more variables are wrong; the error lists all of them.
    """
    try:
        return group.model_validate(dict(given))
    except ValidationError as exc:
        problems = [_problem(group, error, where) for error in exc.errors(include_url=False)]
    # Raised outside the except block, so that no traceback chains to pydantic's error: it contains the secret input.
    raise Invalid(problems)


def _problem(group: type[Group], error: Mapping[str, Any], where: str) -> Problem:
    field = str(error["loc"][0])
    value = MASK if is_secret(group, field) else str(error["input"])
    return Problem(where + field.upper(), value, _EXPECTED.get(error["type"]) or _in_plain_words(error["msg"]))


def _in_plain_words(message: str) -> str:
    for pattern, words in _WORDS:
        message = pattern.sub(words, message)
    return message


def is_secret(group: type[Group], field: str) -> bool:
    return "Secret" in str(group.model_fields[field].annotation)
