"""What every answer provider offers, whatever its wire format."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from services.errors import Unrecoverable
from services.models import Delta, Mocked, ProviderEvent, ProviderIds, Query, Recovered, Replacement, Told, Usage
from utils.deadline import Deadline


@dataclass(frozen=True, slots=True)
class QueryResult:
    """A whole answer: its text, the provider's ids, where it comes from, what it cost."""

    content: str
    metadata: Mapping[str, Any] = field(default_factory=dict)
    sources: Sequence[Mapping[str, Any]] = ()
    usage: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {
            "content": self.content,
            "metadata": dict(self.metadata),
            "sources": [dict(source) for source in self.sources],
            "usage": dict(self.usage),
        }


class BaseRAGProvider(ABC):
    """An answer provider; one instance per process and app, safe to use from many threads."""

    name: str
    #: Which app answers: part of a conversation's key, so that another app never gets this one's conversation id.
    app: str
    provider_type = "RAG"
    #: Whether it remembers by itself what was said under a conversation id; else each question brings it along.
    keeps_conversations = True
    #: The search that is asked before it, for some questions; None for none.
    search_provider: BaseSearchProvider | None = None

    @abstractmethod
    def stream_query(self, query: Query, deadline: Deadline) -> Iterator[ProviderEvent]:
        """Ask, and yield what the provider says as it says it. Closing the generator closes the connection.

        Raises:
            ConversationGone: the conversation is unknown there and nothing was yielded but ids.
            ProviderError: anything else that ended the answer.
        """

    @abstractmethod
    def health_check(self) -> bool:
        """Tell whether the provider would take a question, without asking one."""

    def missing_inputs(self) -> list[str]:
        """Name the inputs the app requires and the settings lack.

        Raises:
            ProviderError: the app could not be asked.
        """
        return []

    def wrong_inputs(self) -> list[str]:
        """Say which inputs of the settings have values that the app refuses, and what it takes.

        Raises:
            ProviderError: the app could not be asked.
        """
        return []

    def clock_skew(self) -> float | None:
        """Return the seconds by which the provider's clock was ahead of this machine's; None where it does not say."""
        return None

    def query(self, query: Query, deadline: Deadline) -> QueryResult:
        """Ask, and return the answer when it is whole."""
        text, ids, usage, mocked, told = "", ProviderIds(), Usage(), False, dict[str, Any]()
        for event in self.stream_query(query, deadline):
            match event:
                case Delta(piece):
                    text += piece
                case Replacement(whole):
                    text = whole
                case ProviderIds():
                    ids = event
                case Usage():
                    usage = event
                case Mocked():
                    mocked = True
                case Told(fields):
                    told |= fields
        counted = {
            "tokens": usage.total_tokens,
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": usage.completion_tokens,
            "price": usage.total_price,
            "currency": usage.currency,
        }
        names = {"provider": self.name, "conversation_id": ids.conversation_id, "message_id": ids.message_id}
        metadata = {**told, **names, "mock": True} if mocked else {**told, **names}
        return QueryResult(text, metadata, usage.sources, counted)

    def recover(self, query: Query, ids: ProviderIds, deadline: Deadline) -> Recovered:
        """Return the whole answer of a run that an earlier owner began, waiting while the provider still works on it.

        Raises:
            Unrecoverable: there is none and there will be none: failed, stopped, lost, unknown, provider away.
            ProviderError: `interrupted` after `deadline.abort`, `answer_timeout` when it is over; any other code when
                the run ended in a way that asking again would only repeat.
        """
        raise Unrecoverable(f"{self.name} keeps no answers")

    def cancel(self, ids: ProviderIds, user: str) -> None:  # noqa: B027 - optional by contract
        """Tell the provider to stop a run whose answer nobody wants; failures are logged, not raised."""

    def close(self) -> None:  # noqa: B027 - optional by contract
        """Give connections back."""


@dataclass(frozen=True, slots=True)
class Hit:
    """One result of a search."""

    title: str
    url: str
    snippet: str
    #: From 1, in the order of the search provider.
    position: int

    def to_dict(self) -> dict[str, Any]:
        return {"title": self.title, "url": self.url, "snippet": self.snippet, "position": self.position}


@dataclass(frozen=True, slots=True)
class SearchResult:
    """What a search found; no hits and no answer mean that there is nothing."""

    hits: tuple[Hit, ...]
    #: The search provider's own short answer, "" for none.
    answer: str = ""
    usage: Mapping[str, Any] = field(default_factory=dict)


class BaseSearchProvider(ABC):
    """A web search; one instance per process, safe to use from many threads."""

    name: str
    provider_type = "Search"

    @abstractmethod
    def search(self, query: str, deadline: Deadline) -> SearchResult:
        """Search, and return what was found.

        Raises:
            ProviderError: it failed; `interrupted` after `deadline.abort`, `answer_timeout` when that is over.
        """

    @abstractmethod
    def health_check(self) -> bool:
        """Tell whether a search would be taken, without one: a search costs."""

    def close(self) -> None:  # noqa: B027 - optional by contract
        """Give connections back."""
