"""One rule of WeCom that a reply breaks."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RuleViolation:
    """A broken rule: its name, and what is wrong in words."""

    rule: str
    text: str
    #: False for a rule that WeCom does not document: other services were seen to need it.
    documented: bool = True

    def __str__(self) -> str:
        return self.text
