"""What becomes known while a question is answered, beside what the provider itself says."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Literal

from services.errors import Unrecoverable
from services.models import Complete, Delta, Identity, ProviderEvent, Replacement


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
    #: The provider's id of the conversation it is asked in; "" for a new one.
    conversation_id: str = ""


@dataclass(frozen=True, slots=True)
class Resumed:
    """What came of looking an answer up at the provider."""

    outcome: Literal["extended", "replaced", "unchanged", "lost"]
    #: Why it is lost.
    cause: str = ""
    #: Why it was looked up: `owner_lost` or `stream_broken`.
    reason: str = "owner_lost"


AnswerEvent = ProviderEvent | Identity | Waiting | Asking | Resumed


def difference(before: str, whole: str, reason: str = "owner_lost") -> tuple[Delta | Replacement | Resumed, ...]:
    """Return what makes the whole answer of the text that is there, and how it relates to it.

    White space around an answer makes no difference: Dify strips what it keeps.

    Raises:
        Unrecoverable: it is less than what was said already, such as what an aborted run leaves.
    """
    said = before.lstrip()
    if whole.startswith(said) and whole != said:
        return Resumed("extended", reason=reason), Delta(whole[len(said) :])
    if whole == said.rstrip() or whole == said:
        return (Resumed("unchanged", reason=reason),)
    if said.startswith(whole):
        raise Unrecoverable(f"the provider kept {len(whole)} of {len(said)} characters")
    return Resumed("replaced", reason=reason), Replacement(whole)


#: Characters of a second answer that are held at most: as many as the longest answer has bytes by default.
MAX_HELD = 1024 * 1024


def anew(events: Iterator[AnswerEvent], before: str, *, most: int = MAX_HELD) -> Iterator[AnswerEvent]:
    """Yield an answer that takes the place of another, without the text `before` going backwards.

    The new text is held until it begins with `before`, then only what it adds is yielded; or until it is whole, then it
    replaces `before`. One that fails before that leaves `before` as it is.
    """
    held, holds, differs = "", bool(before), False
    with closing(events):  # type: ignore[type-var]
        for event in events:
            if holds and isinstance(event, Complete) and held:
                holds = False
                yield Replacement(held)
            if not holds or not isinstance(event, Delta | Replacement):
                yield event
                continue
            if isinstance(event, Replacement):
                held, differs = "", False
            held += event.text
            # Compared once: a text that differs at this length does so at any.
            if not differs and len(held) >= len(before):
                differs = not held.startswith(before)
                holds = differs
                if not differs and len(held) > len(before):
                    yield Delta(held[len(before) :])
            if differs and len(held) > most:
                holds = False
                yield Replacement(held)
        if holds and held:
            yield Replacement(held)
