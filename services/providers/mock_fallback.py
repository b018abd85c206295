"""Wraps a provider and lets the built-in mock answer when it fails: for demonstrations and tests."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace

from services.errors import ConversationGone, ProviderError, StreamBroken
from services.models import Delta, ProviderEvent, ProviderIds, Query, Replacement
from services.providers.base import BaseRAGProvider
from services.providers.closing import closing_events
from services.providers.wrapper import ProviderWrapper
from utils.deadline import Deadline

log = logging.getLogger(__name__)


class MockFallback(ProviderWrapper):
    """Asks the provider. If it fails before its first text, the mock answers, and the answer is marked as mocked."""

    def __init__(self, provider: BaseRAGProvider, mock: BaseRAGProvider) -> None:
        super().__init__(provider)
        self._mock = mock

    def stream_query(self, query: Query, deadline: Deadline) -> Iterator[ProviderEvent]:
        """Yield the provider's answer, or `Mocked` and the mock's answer.

        Raises:
            ConversationGone: raised by the provider; the caller asks again without the conversation.
            StreamBroken: raised by the provider after it started a run; the caller recovers the run's answer.
            ProviderError: the provider failed after its first text, or the deadline has passed.
        """
        spoke = begun = False
        try:
            with closing_events(self._wrapped.stream_query(query, deadline)) as events:
                for event in events:
                    spoke = spoke or isinstance(event, Delta | Replacement)
                    begun = begun or (isinstance(event, ProviderIds) and event.findable)
                    yield event
            return
        except ConversationGone:
            raise
        except Exception as exc:  # a plug-in may raise any exception
            lost = begun and isinstance(exc, StreamBroken)
            if spoke or lost or deadline.over or deadline.aborted:
                raise
            self._note(exc)
        for event in self._mock.stream_query(query, deadline):
            # The mock has no conversations. Keep the id, so the provider continues its conversation once it recovers.
            if isinstance(event, ProviderIds):
                event = replace(event, conversation_id=query.conversation_id)
            yield event

    def _note(self, exc: Exception) -> None:
        fields = {"provider": self.name}
        if isinstance(exc, ProviderError):
            log.warning("the mock answers for the provider", extra={**fields, "code": exc.code})
        else:
            log.error("the mock answers for the provider", extra=fields, exc_info=exc)
