"""Another provider with a web search before it: what was found is the answer, or what the provider answers from."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal
from weakref import WeakKeyDictionary

from services import metrics
from services.errors import ConversationGone, ProviderError
from services.http.service import aborted_error
from services.models import Delta, ProviderEvent, ProviderIds, Query, Recovered, Replacement, Usage
from services.providers.base import BaseRAGProvider, BaseSearchProvider, Hit, SearchResult
from services.providers.closing import closing_events
from services.providers.search.words import as_context, as_list, citable
from utils.deadline import Deadline

log = logging.getLogger(__name__)

Show = Literal["list", "context"]
Sources = tuple[Mapping[str, Any], ...]
#: The sentences that stand before an answer which should have had results, by the keys of config/texts.py.
NOTES = ("search_failed", "search_empty")
#: What stands between such a sentence and the answer.
BREAK = "\n\n"


@dataclass(frozen=True, slots=True)
class Search:
    """What came of one search: its result, or the sentence that says why there is none."""

    result: SearchResult | None = None
    note: str = ""


class SearchFirst(BaseRAGProvider):
    """Searches for the questions that want it, and asks the provider; all else is the provider's own."""

    def __init__(
        self,
        rag: BaseRAGProvider,
        search: BaseSearchProvider,
        *,
        wants: Callable[[str], str | None],
        show: Show = "context",
        sentence: Callable[[str], str],
        timeout: float = 10.0,
    ) -> None:
        """Take both providers and how they work together.

        `wants` returns what to search for, None for nothing. `show` makes the results the answer ("list") or what the
        provider is asked with ("context"). `sentence` has the words of `search_failed`, `search_empty` and
        `search_heading`. `timeout` bounds a search, in seconds.
        """
        self.name = rag.name
        self.app = rag.app
        self.keeps_conversations = rag.keeps_conversations
        self.search_provider = self._search = search
        self._rag = rag
        self._wants = wants
        self._show = show
        self._sentence = sentence
        self._timeout = timeout
        #: What was found for an answer whose conversation turned out to be gone: it is asked for once more.
        self._found: WeakKeyDictionary[Deadline, Search] = WeakKeyDictionary()

    def stream_query(self, query: Query, deadline: Deadline) -> Iterator[ProviderEvent]:
        """Yield the results as the answer, or the provider's answer from them.

        A search that fails or finds nothing costs the results, not the answer: its first words say so.

        Raises:
            ConversationGone: as the provider does, to be asked anew; that searches no second time.
            ProviderError: the provider failed, or the time is over.
        """
        wanted = self._wants(query.text)
        if not wanted:
            with closing_events(self._rag.stream_query(query, deadline)) as events:
                yield from events
            return
        search = self._found.pop(deadline, None) or self._searched(wanted, deadline)
        if search.result and self._show == "list":
            yield Delta(as_list(search.result, self._sentence("search_heading")))
            yield Usage(sources=_sources(search.result.hits))
            return
        try:
            yield from self._answer(query, search, deadline)
        except ConversationGone:
            self._found[deadline] = search
            raise

    def _answer(self, query: Query, search: Search, deadline: Deadline) -> Iterator[ProviderEvent]:
        """Ask the provider with what was found."""
        if search.result is None:
            yield from _noted(self._rag.stream_query(query, deadline), search.note)
            return
        hits = citable(search.result)
        asked = replace(query, text=as_context(search.result, hits, query.text))
        yield from _with_sources(self._rag.stream_query(asked, deadline), _sources(hits))

    def _searched(self, wanted: str, deadline: Deadline) -> Search:
        """Search within the bound; what goes wrong becomes a sentence, unless the answer itself is over."""
        began = time.monotonic()
        try:
            with _within(deadline, self._timeout) as bounded:
                result = self._search.search(wanted, bounded)
        except Exception as exc:  # a search provider may be anybody's code, and the question has an answer without it
            if deadline.aborted:
                raise aborted_error(deadline) from exc
            if deadline.over:
                raise ProviderError("the time is over", code="answer_timeout") from exc
            self._note("failed", began, exc)
            return Search(note=self._sentence("search_failed"))
        if not result.hits and not result.answer:
            self._note("empty", began)
            return Search(note=self._sentence("search_empty"))
        self._note("found", began, hits=len(result.hits))
        return Search(result)

    def _note(self, outcome: str, began: float, exc: Exception | None = None, **more: int) -> None:
        """Count and log how a search went, not what it was for."""
        metrics.SEARCHES.labels(self._search.name, outcome).inc()
        fields: dict[str, Any] = {"search": self._search.name, "outcome": outcome, **more}
        fields["ms"] = round(1000 * (time.monotonic() - began))
        if isinstance(exc, ProviderError):
            log.warning("searched", extra={**fields, "code": exc.code, "cause": str(exc)})
        elif exc:
            log.error("searched", extra=fields, exc_info=exc)
        else:
            log.info("searched", extra=fields)

    def health_check(self) -> bool:
        """Tell how the provider is: without a search there is still an answer."""
        return self._rag.health_check()

    def missing_inputs(self) -> list[str]:
        return self._rag.missing_inputs()

    def wrong_inputs(self) -> list[str]:
        return self._rag.wrong_inputs()

    def clock_skew(self) -> float | None:
        return self._rag.clock_skew()

    def recover(self, query: Query, ids: ProviderIds, deadline: Deadline) -> Recovered:
        """Return the provider's answer as this had begun it, without another search.

        The sentence before it and the hits are those the earlier owner kept, if it came to write them.
        """
        recovered = self._rag.recover(query, ids, deadline)
        notes = (self._sentence(key) + BREAK for key in NOTES)
        note = next((each for each in notes if query.said.startswith(each)), "")
        hits = tuple(source for source in query.sources if source.get("type") == "web")
        usage = replace(recovered.usage, sources=(*hits, *recovered.usage.sources))
        return replace(recovered, text=note + recovered.text, usage=usage)

    def cancel(self, ids: ProviderIds, user: str) -> None:
        self._rag.cancel(ids, user)

    def close(self) -> None:
        self._rag.close()
        self._search.close()


@contextmanager
def _within(deadline: Deadline, seconds: float) -> Iterator[Deadline]:
    """Give the block a deadline of its own, which ends with the other at the latest."""
    bounded = Deadline(min(seconds, deadline.remaining()))
    with deadline.interrupting(lambda: bounded.abort(deadline.aborted)):
        yield bounded


def _noted(events: Iterator[ProviderEvent], note: str) -> Iterator[ProviderEvent]:
    """Put a note before an answer's first words, also before those that take their place; never alone."""
    begun = False
    with closing_events(events):
        for event in events:
            begun = begun and not isinstance(event, Replacement)
            if isinstance(event, Delta | Replacement) and event.text and not begun:
                begun = True
                event = type(event)(f"{note}{BREAK}{event.text}")
            yield event


def _with_sources(events: Iterator[ProviderEvent], sources: Sources) -> Iterator[ProviderEvent]:
    """Put the hits before the provider's own sources: the answer cites them by their place.

    They are told at once, so that another owner of the answer has them too.
    """
    yield Usage(sources=sources)
    with closing_events(events):
        for event in events:
            if isinstance(event, Usage):
                event = replace(event, sources=(*sources, *event.sources))
            yield event


def _sources(hits: Sequence[Hit]) -> Sources:
    return tuple({**hit.to_dict(), "type": "web"} for hit in hits)
