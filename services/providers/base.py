"""The interfaces of answer and search providers, independent of any wire format, and the base class of wrappers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from services.attachments import MediaFile
from services.errors import AnswerError, Unrecoverable
from services.forms import FormChoice, PendingForm
from services.models import Delta, Metadata, Mocked, ProviderEvent, ProviderIds, Query, Replacement, Usage
from utils.deadline import Deadline


@dataclass(frozen=True, slots=True)
class QueryResult:
    """A complete answer: its text, metadata such as the provider's ids, its sources and its usage."""

    content: str
    metadata: Mapping[str, Any] = field(default_factory=dict)
    sources: Sequence[Mapping[str, Any]] = ()
    usage: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the result as a dict that can be written as JSON."""
        return {
            "content": self.content,
            "metadata": dict(self.metadata),
            "sources": [dict(source) for source in self.sources],
            "usage": dict(self.usage),
        }


@dataclass(frozen=True, slots=True)
class Recovered:
    """The complete answer of an earlier run, as the provider stored it."""

    text: str
    usage: Usage = field(default_factory=Usage)
    #: The run's ids, if it was found without them.
    ids: ProviderIds = field(default_factory=ProviderIds)
    #: The forms that the run waits for, if it has paused; `text` is the answer so far then.
    forms: tuple[PendingForm, ...] = ()


@dataclass(frozen=True, slots=True)
class Opening:
    """The opening of an app before the first question: a statement in Markdown, "" for none, and questions to ask."""

    statement: str = ""
    questions: tuple[str, ...] = ()


#: Returns the questions that the app suggests after an answer with these ids, before the deadline.
Suggest = Callable[[Query, ProviderIds, Deadline], Sequence[str]]


class BaseForms(ABC):
    """The forms of a provider whose runs may pause until a person answers. Thread-safe."""

    @abstractmethod
    def submit(self, form: PendingForm, choice: FormChoice, query: Query, deadline: Deadline) -> None:
        """Submit a person's answer, once: it is sent again only if no byte of it can have left.

        Raises:
            FormRefused: the provider did not take it.
            ProviderError: the provider may have accepted it, unless `unsent` is true.
        """

    @abstractmethod
    def is_open(self, form: PendingForm, query: Query, deadline: Deadline) -> bool:
        """Return whether the provider still waits for an answer to the form.

        Raises:
            ProviderError: no reply came from the provider.
        """

    @abstractmethod
    def resume(self, form: PendingForm, query: Query, deadline: Deadline) -> Iterator[ProviderEvent]:
        """Yield the rest of the answer of a run whose form was submitted, as `stream_query` does.

        Raises:
            ProviderError: the answer failed.
        """


class BaseRAGProvider(ABC):
    """An answer provider. There is one instance per process and app; it must be thread-safe."""

    name: str
    #: Identifies the app. It is part of a conversation's Redis key, so an app never gets another app's conversation id.
    app: str
    provider_type = "RAG"
    #: Whether the provider stores conversations itself; if False, each question carries the earlier exchanges.
    keeps_conversations = True
    #: Whether `Query.instructions` go along; if False, they are part of the question's text.
    takes_instructions = False
    #: The address, without a slash, whose folder `/files/` has the files of answers; "" if there is none.
    files_root = ""
    #: The options of a single question that reach the provider; a channel refuses the others.
    takes_options: frozenset[str] = frozenset({"inputs"})
    #: How the provider takes a message's files: "" not at all, "upload" before the question, "inline" within it.
    takes_files: Literal["", "upload", "inline"] = ""
    #: The search provider that is queried before this provider for some questions; None if there is none.
    search_provider: BaseSearchProvider | None = None
    #: Fetches suggested questions; None where the provider has none. It may raise `ProviderError`.
    suggest: Suggest | None = None
    #: Fetches the app's opening; None where it has none. It may raise `ProviderError`.
    opening: Callable[[], Opening] | None = None
    #: Submits forms; None if the provider's runs never pause for a person.
    forms: BaseForms | None = None
    #: Whether `rate` reaches the provider; if False, people's ratings are kept here only.
    takes_ratings = False
    #: Whether requests carry the user's own token; then `rate` gets it too.
    sends_user_tokens = False

    @abstractmethod
    def stream_query(self, query: Query, deadline: Deadline) -> Iterator[ProviderEvent]:
        """Ask the question and yield the answer's events as they arrive. Closing the generator closes the connection.

        Raises:
            ConversationGone: the provider does not know the conversation; only ids were yielded before.
            ProviderError: the answer failed for any other reason.
        """

    @abstractmethod
    def health_check(self) -> bool:
        """Return whether the provider would accept a question. Must not ask one, because questions cost money."""

    def missing_inputs(self) -> list[str]:
        """Return the names of inputs that the app requires and the settings lack.

        Raises:
            ProviderError: the request for the app's input form failed.
        """
        return []

    def wrong_inputs(self) -> list[str]:
        """Describe the inputs in the settings whose values the app rejects, with the values it accepts.

        Raises:
            ProviderError: the request for the app's input form failed.
        """
        return []

    def clock_skew(self) -> float | None:
        """Return by how many seconds the provider's clock is ahead of this machine's; None if unknown."""
        return None

    def query(self, query: Query, deadline: Deadline) -> QueryResult:
        """Ask the question and return the complete answer."""
        text, ids, usage, mocked, further = "", ProviderIds(), Usage(), False, dict[str, Any]()
        for event in self.stream_query(query, deadline):
            match event:
                case Delta(piece):
                    text += piece
                case Replacement(replaced):
                    text = replaced
                case ProviderIds():
                    ids = event
                case Usage():
                    usage = event
                case Mocked():
                    mocked = True
                case Metadata(fields):
                    further |= fields
        counted = {
            "tokens": usage.total_tokens,
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": usage.completion_tokens,
            "price": usage.total_price,
            "currency": usage.currency,
        }
        names = {"provider": self.name, "conversation_id": ids.conversation_id, "message_id": ids.message_id}
        metadata = {**further, **names, "mock": True} if mocked else {**further, **names}
        return QueryResult(text, metadata, usage.sources, counted)

    def check_file(self, file: MediaFile) -> None:  # noqa: B027 - optional by contract
        """Check that a file can be part of a question, before it is uploaded or asked about.

        Raises:
            AnswerError: `media_wrong_type` or `media_too_large`.
        """

    def upload(self, file: MediaFile, query: Query, deadline: Deadline) -> str:
        """Store a file at the provider, for the person who asks `query`; return its entry for `Query.files`.

        Called only where `takes_files` is "upload".

        Raises:
            AnswerError: `media_wrong_type`, `media_too_large`, or a `ProviderError`.
        """
        raise AnswerError(f"{self.name} takes no files", code="media_unsupported")

    def recover(self, query: Query, ids: ProviderIds, deadline: Deadline) -> Recovered:
        """Return the complete answer of a run that an earlier owner started. Waits while the run is in progress.

        `ids` are those that `stream_query` yielded, as far as they were known, with the conversation of the question.
        `services.providers.recovery.Poller` waits for the answer within timeouts.

        Raises:
            Unrecoverable: there is no answer and there will be none: the run failed, was stopped, is lost or unknown,
                or the provider cannot be reached.
            ProviderError: `interrupted` after `deadline.abort`, `answer_timeout` when the deadline has passed; any
                other code when asking again would end in the same error.
        """
        raise Unrecoverable(f"{self.name} keeps no answers")

    def cancel(self, ids: ProviderIds, user: str) -> None:  # noqa: B027 - optional by contract
        """Tell the provider to stop a run whose answer is no longer needed. Failures are logged, not raised."""

    def rate(  # noqa: B027 - optional by contract
        self, message_id: str, user: str, rating: Literal["like", "dislike", ""], content: str, *, token: str = ""
    ) -> None:
        """Send the provider a user's rating of an answer, with a comment; "" withdraws it.

        The call may be repeated. `token` is that user's, "" where it is not needed or unknown.

        Raises:
            ProviderError: it was not accepted. It is tried again later, unless `http_status` is a refusal of this call.
        """

    def close(self) -> None:  # noqa: B027 - optional by contract
        """Close the pooled connections."""


@dataclass(frozen=True, slots=True)
class Hit:
    """One result of a search."""

    title: str
    url: str
    snippet: str
    #: Rank given by the search provider, starting at 1.
    position: int

    def to_dict(self) -> dict[str, Any]:
        return {"title": self.title, "url": self.url, "snippet": self.snippet, "position": self.position}


@dataclass(frozen=True, slots=True)
class SearchResult:
    """The result of a search. It is empty when there are no hits and no answer."""

    hits: tuple[Hit, ...]
    #: The search provider's own short answer; "" if there is none.
    answer: str = ""
    usage: Mapping[str, Any] = field(default_factory=dict)


class BaseSearchProvider(ABC):
    """A web search. There is one instance per process; it must be thread-safe."""

    name: str
    provider_type = "Search"

    @abstractmethod
    def search(self, query: str, deadline: Deadline) -> SearchResult:
        """Search the web for `query`.

        Raises:
            ProviderError: the search failed; `interrupted` after `deadline.abort`, `answer_timeout` when the deadline
                has passed.
        """

    @abstractmethod
    def health_check(self) -> bool:
        """Return whether the service would accept a search. Must not run one, because searches cost money."""

    def close(self) -> None:  # noqa: B027 - optional by contract
        """Close the pooled connections."""


@contextmanager
def closing_events(events: Iterator[ProviderEvent]) -> Iterator[Iterator[ProviderEvent]]:
    """Close a provider's event iterator, and with it the connection, when the block ends.

    An iterator without `close`, as a third-party provider may return, is left as it is.
    """
    try:
        yield events
    finally:
        close: Callable[[], None] = getattr(events, "close", lambda: None)
        close()


class ProviderWrapper(BaseRAGProvider):
    """Delegates everything except `stream_query` to the wrapped provider. Health is the wrapped provider's health."""

    def __init__(self, wrapped: BaseRAGProvider) -> None:
        self.name = wrapped.name
        self.app = wrapped.app
        self.files_root = wrapped.files_root
        self.keeps_conversations = wrapped.keeps_conversations
        self.takes_instructions = wrapped.takes_instructions
        self.takes_options = wrapped.takes_options
        self.takes_files = wrapped.takes_files
        self.search_provider = wrapped.search_provider
        self.suggest = wrapped.suggest
        self.opening = wrapped.opening
        self.forms = wrapped.forms
        self.takes_ratings = wrapped.takes_ratings
        self.sends_user_tokens = wrapped.sends_user_tokens
        self._wrapped = wrapped

    def health_check(self) -> bool:
        return self._wrapped.health_check()

    def missing_inputs(self) -> list[str]:
        return self._wrapped.missing_inputs()

    def wrong_inputs(self) -> list[str]:
        return self._wrapped.wrong_inputs()

    def clock_skew(self) -> float | None:
        return self._wrapped.clock_skew()

    def check_file(self, file: MediaFile) -> None:
        self._wrapped.check_file(file)

    def upload(self, file: MediaFile, query: Query, deadline: Deadline) -> str:
        return self._wrapped.upload(file, query, deadline)

    def recover(self, query: Query, ids: ProviderIds, deadline: Deadline) -> Recovered:
        return self._wrapped.recover(query, ids, deadline)

    def cancel(self, ids: ProviderIds, user: str) -> None:
        self._wrapped.cancel(ids, user)

    def rate(
        self, message_id: str, user: str, rating: Literal["like", "dislike", ""], content: str, *, token: str = ""
    ) -> None:
        self._wrapped.rate(message_id, user, rating, content, token=token)

    def close(self) -> None:
        self._wrapped.close()
