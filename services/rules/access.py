"""Who may ask, from `ACCESS_FILE`: a YAML list of rules, of which the last one that matches counts.

    - {allow: true}
    - {department: 外包, allow: false, say: 请联系行政开通}
    - {department: unknown, allow: true}
    - {person: [lisi, wangwu], allow: true}

Whom no rule matches may not ask. `say` is the sentence that a refused person gets.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field, StrictBool

from services.errors import AuthError
from services.rules.visitors import Visitor, VisitorRule, parse_rules

#: Characters of a sentence.
SENTENCE = 500


class AccessRule(VisitorRule):
    """Whether the people whom it matches may ask."""

    allow: StrictBool
    say: Annotated[str, Field(max_length=SENTENCE)] = ""


class AccessRules:
    """The rules of one file."""

    def __init__(self, rules: Sequence[AccessRule]) -> None:
        self._rules = tuple(rules)

    @classmethod
    def parse(cls, text: str) -> AccessRules:
        """Return the rules of a file.

        Raises:
            ValueError: it is no list of rules.
        """
        return cls(parse_rules(AccessRule, text))

    def check(self, visitor: Visitor) -> None:
        """Check that a question may be asked.

        Raises:
            AuthError: `not_allowed`, with the sentence of the rule that counts.
        """
        found = next((rule for rule in reversed(self._rules) if rule.matches(visitor)), None)
        if found is None or not found.allow:
            raise AuthError(code="not_allowed", sentence=found.say if found else "")
