"""What a client says came before its question: instructions and turns, told to a provider that does not know them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import groupby
from operator import itemgetter
from typing import Literal, NamedTuple

from services.models import Query, Turn
from services.providers.base import BaseRAGProvider

Said = tuple[Literal["user", "assistant"], str]


class Earlier(NamedTuple):
    """Instructions for the model ("" for none), and turns, the oldest first; a turn may lack question or answer."""

    instructions: str = ""
    turns: tuple[Turn, ...] = ()

    @property
    def size(self) -> int:
        """The bytes of all texts."""
        texts = [self.instructions, *(text for turn in self.turns for text in (turn.question, turn.answer))]
        return sum(len(text.encode()) for text in texts)


def turns_of(messages: Iterable[Said]) -> tuple[Turn, ...]:
    """Return messages as turns; messages of one role in a row become one text."""
    turns: list[Turn] = []
    for role, group in groupby(messages, key=itemgetter(0)):
        text = "\n\n".join(text for _, text in group)
        if role == "assistant" and turns and not turns[-1].answer:
            turns[-1] = Turn(turns[-1].question, text)
        else:
            turns.append(Turn(text, "") if role == "user" else Turn("", text))
    return tuple(turns)


def written(earlier: Earlier) -> str:
    """Return it as JSON for a stored question, "" for nothing."""
    if not any(earlier):
        return ""
    turns = [[turn.question, turn.answer] for turn in earlier.turns]
    return json.dumps([earlier.instructions, turns], ensure_ascii=False, separators=(",", ":"))


def read(text: str) -> Earlier:
    """Return what `written` wrote.

    Raises:
        ValueError, TypeError: the text is something else.
    """
    if not text:
        return Earlier()
    instructions, turns = json.loads(text)
    return Earlier(instructions, tuple(Turn(*turn) for turn in turns))


def told(query: Query, provider: BaseRAGProvider, *, knows: bool) -> Query:
    """Return the query with what came earlier; unchanged where the provider `knows` the conversation.

    A provider without conversations gets the turns as its history. What a provider has no field for goes before the
    question, as text.
    """
    if knows or not (query.instructions or query.earlier):
        return replace(query, instructions="", earlier=())
    history = query.history if provider.keeps_conversations else query.earlier
    instructions = query.instructions if provider.takes_instructions else ""
    missing = Earlier("" if instructions else query.instructions, query.earlier if provider.keeps_conversations else ())
    before = "\n\n".join([*_lines(missing), ""]) + "User: " if any(missing) else ""
    return replace(
        query, text=before + query.text, before=before, history=history, instructions=instructions, earlier=()
    )


def _lines(earlier: Earlier) -> Iterator[str]:
    texts = [("System", earlier.instructions)]
    texts += [pair for turn in earlier.turns for pair in (("User", turn.question), ("Assistant", turn.answer))]
    return (f"{who}: {text}" for who, text in texts if text)
