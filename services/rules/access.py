"""Who may ask, and which app answers, from `ACCESS_FILE`: a YAML list of rules, of which the last that matches counts.

    - {allow: true}
    - {department: 外包, allow: false, say: 请联系行政开通}
    - {department: unknown, allow: true}
    - {person: [lisi, wangwu], allow: true, use: hr-app}

Whom no rule matches may not ask. `say` is the sentence that a refused person gets, `use` the app that answers, one of
`APPS`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Annotated

from pydantic import Field, StrictBool

from config.apps import OWN_APP
from services.errors import AuthError
from services.rules.visitors import Visitor, VisitorRule, parse_rules

#: Characters of a sentence.
SENTENCE = 500


class AccessRule(VisitorRule):
    """Whether the people whom it matches may ask, and which app answers them."""

    allow: StrictBool
    say: Annotated[str, Field(max_length=SENTENCE)] = ""
    use: str = OWN_APP


class AccessRules:
    """The rules of one file."""

    def __init__(self, rules: Sequence[AccessRule]) -> None:
        self._rules = tuple(rules)

    @classmethod
    def parse(cls, text: str, apps: Collection[str] = ()) -> AccessRules:
        """Return the rules of a file, which may use the `apps` of these names.

        Raises:
            ValueError: it is no list of rules, or a rule uses another app.
        """
        rules = parse_rules(AccessRule, text)
        for number, rule in enumerate(rules, 1):
            if rule.use not in (OWN_APP, *apps):
                raise ValueError(
                    f"in rule {number} use: {OWN_APP}, or an app of APPS ({', '.join(apps) or 'has none'})"
                )
        return cls(rules)

    def check(self, visitor: Visitor) -> str:
        """Check that a question may be asked; return the name of the app that answers it.

        Raises:
            AuthError: `not_allowed`, with the sentence of the rule that counts.
        """
        found = next((rule for rule in reversed(self._rules) if rule.matches(visitor)), None)
        if found is None or not found.allow:
            raise AuthError(code="not_allowed", sentence=found.say if found else "")
        return found.use


#: The rules where nobody has made any.
EVERYBODY = AccessRules([AccessRule(allow=True)])
