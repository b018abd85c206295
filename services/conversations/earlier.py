"""The messages that a client sends with its question, for a provider that does not know the conversation."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import groupby
from operator import itemgetter
from typing import Literal, NamedTuple

from services.models import Exchange, Query
from services.providers.base import BaseRAGProvider

#: The role and the text of a message.
EarlierMessage = tuple[Literal["user", "assistant"], str]


class Earlier(NamedTuple):
    """Instructions for the model ("" for none), and exchanges, the oldest first, which may lack question or answer."""

    instructions: str = ""
    exchanges: tuple[Exchange, ...] = ()

    @property
    def size(self) -> int:
        """The bytes of all texts."""
        texts = [self.instructions, *(text for one in self.exchanges for text in (one.question, one.answer))]
        return sum(len(text.encode()) for text in texts)


def exchanges_of(messages: Iterable[EarlierMessage]) -> tuple[Exchange, ...]:
    """Return messages as exchanges; messages of one role in a row become one text."""
    exchanges: list[Exchange] = []
    for role, group in groupby(messages, key=itemgetter(0)):
        text = "\n\n".join(text for _, text in group)
        if role == "assistant" and exchanges and not exchanges[-1].answer:
            exchanges[-1] = Exchange(exchanges[-1].question, text)
        else:
            exchanges.append(Exchange(text, "") if role == "user" else Exchange("", text))
    return tuple(exchanges)


def written(earlier: Earlier) -> str:
    """Return the JSON for a stored question, "" for nothing."""
    if not any(earlier):
        return ""
    exchanges = [[one.question, one.answer] for one in earlier.exchanges]
    return json.dumps([earlier.instructions, exchanges], ensure_ascii=False, separators=(",", ":"))


def read(text: str) -> Earlier:
    """Parse the JSON that `written` returned.

    Raises:
        ValueError, TypeError: the text is something else.
    """
    if not text:
        return Earlier()
    instructions, exchanges = json.loads(text)
    return Earlier(instructions, tuple(Exchange(*one) for one in exchanges))


def with_earlier(query: Query, provider: BaseRAGProvider, *, known: bool) -> Query:
    """Return the query with its earlier messages; without them where the conversation is `known` to the provider.

    A provider that keeps no conversations gets the exchanges as its history. Instructions and exchanges for which the
    provider has no field go before the question, as text.
    """
    if known or not (query.instructions or query.earlier):
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
    texts += [pair for one in earlier.exchanges for pair in (("User", one.question), ("Assistant", one.answer))]
    return (f"{role}: {text}" for role, text in texts if text)
