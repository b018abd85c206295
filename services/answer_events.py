"""What becomes known while a question is answered, beside what the provider itself says."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Literal

from services.errors import Unrecoverable
from services.models import Delta, Identity, ProviderEvent, Replacement


@dataclass(frozen=True, slots=True)
class Waiting:
    """The question waits for the conversation's earlier ones, or no longer does."""

    waiting: bool


@dataclass(frozen=True, slots=True)
class Asking:
    """The provider is about to be asked; whoever takes this in must have it stored before going on."""

    #: How many times that makes, over all owners.
    asks: int = 1
    #: Why an earlier owner's answer could not be had; "" the first time.
    cause: str = ""
    #: The provider's name.
    provider: str = ""
    #: How often the conversation was begun anew, when the question was about to be asked; "" for none.
    resets: str = ""


@dataclass(frozen=True, slots=True)
class Resumed:
    """What came of asking the provider for the answer that an earlier owner had asked for."""

    outcome: Literal["extended", "replaced", "unchanged", "lost"]
    #: Why it is lost.
    cause: str = ""


AnswerEvent = ProviderEvent | Identity | Waiting | Asking | Resumed


def difference(before: str, whole: str) -> tuple[Delta | Replacement | Resumed, ...]:
    """Return what makes the whole answer of the text that is there, and how it relates to it.

    White space around an answer makes no difference: Dify strips what it keeps.

    Raises:
        Unrecoverable: it is less than what was said already, such as what an aborted run leaves.
    """
    said = before.lstrip()
    if whole.startswith(said) and whole != said:
        return Resumed("extended"), Delta(whole[len(said) :])
    if whole == said.rstrip() or whole == said:
        return (Resumed("unchanged"),)
    if said.startswith(whole):
        raise Unrecoverable(f"the provider kept {len(whole)} of {len(said)} characters")
    return Resumed("replaced"), Replacement(whole)


def anew(events: Iterator[ProviderEvent], before: str) -> Iterator[ProviderEvent]:
    """Yield an answer that takes the place of another: until its first words come, the old text stays."""
    with closing(events):  # type: ignore[type-var]
        for event in events:
            if before and isinstance(event, Delta | Replacement):
                event, before = Replacement(event.text), ""
            yield event
