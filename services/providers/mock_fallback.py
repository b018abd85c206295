"""Another provider with the built-in mock behind it: for shows and tests, where any answer is better than none."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace

from services.errors import ConversationGone, ProviderError, StreamBroken
from services.models import Delta, ProviderEvent, ProviderIds, Query, Recovered, Replacement
from services.providers.base import BaseRAGProvider
from services.providers.closing import closing_events
from utils.deadline import Deadline

log = logging.getLogger(__name__)


class MockFallback(BaseRAGProvider):
    """Asks the provider; where that fails before its first word, the mock answers, and says that it did."""

    def __init__(self, provider: BaseRAGProvider, mock: BaseRAGProvider) -> None:
        self.name = provider.name
        self.app = provider.app
        self.keeps_conversations = provider.keeps_conversations
        self.search_provider = provider.search_provider
        self._provider = provider
        self._mock = mock

    def stream_query(self, query: Query, deadline: Deadline) -> Iterator[ProviderEvent]:
        """Yield the provider's answer, or `Mocked` and the mock's.

        Raises:
            ConversationGone: as the provider does, to be asked anew.
            StreamBroken: as the provider does, where it has begun a run: its own answer is looked up.
            ProviderError: the provider failed in mid-answer, or the time is over.
        """
        spoke = begun = False
        try:
            with closing_events(self._provider.stream_query(query, deadline)) as events:
                for event in events:
                    spoke = spoke or isinstance(event, Delta | Replacement)
                    begun = begun or (isinstance(event, ProviderIds) and event.findable)
                    yield event
            return
        except ConversationGone:
            raise
        except Exception as exc:  # a provider may be anybody's code
            lost = begun and isinstance(exc, StreamBroken)
            if spoke or lost or deadline.over or deadline.aborted:
                raise
            self._note(exc)
        for event in self._mock.stream_query(query, deadline):
            # The mock knows no conversations: the provider's own goes on when it is back.
            if isinstance(event, ProviderIds):
                event = replace(event, conversation_id=query.conversation_id)
            yield event

    def _note(self, exc: Exception) -> None:
        fields = {"provider": self.name}
        if isinstance(exc, ProviderError):
            log.warning("the mock answers for the provider", extra={**fields, "code": exc.code})
        else:
            log.error("the mock answers for the provider", extra=fields, exc_info=exc)

    def health_check(self) -> bool:
        """Tell how the provider is: the mock is always there."""
        return self._provider.health_check()

    def missing_inputs(self) -> list[str]:
        return self._provider.missing_inputs()

    def wrong_inputs(self) -> list[str]:
        return self._provider.wrong_inputs()

    def clock_skew(self) -> float | None:
        return self._provider.clock_skew()

    def recover(self, query: Query, ids: ProviderIds, deadline: Deadline) -> Recovered:
        return self._provider.recover(query, ids, deadline)

    def cancel(self, ids: ProviderIds, user: str) -> None:
        self._provider.cancel(ids, user)

    def close(self) -> None:
        self._provider.close()
