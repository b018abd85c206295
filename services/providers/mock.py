"""An answer provider without a backend, and a wrapper that lets it answer when another provider fails."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace

from services.errors import ConversationGone, ProviderError, StreamBroken
from services.http.retries import pause
from services.http.service import check_deadline
from services.models import Delta, Mocked, ProviderEvent, ProviderIds, Query, Replacement, Usage
from services.providers.base import BaseRAGProvider, ProviderWrapper, closing_events
from utils.deadline import Deadline

log = logging.getLogger(__name__)


class MockProvider(BaseRAGProvider):
    """Answers every question with the same sentence, which quotes the question."""

    name = "mock"
    app = "mock"
    takes_options = frozenset({"inputs", "model", "temperature"})

    def __init__(self, *, delay: float = 0.1, pieces: int = 4) -> None:
        """Set the delay before the first piece, in seconds, and the number of pieces."""
        self._delay = delay
        self._pieces = pieces

    def stream_query(self, query: Query, deadline: Deadline) -> Iterator[ProviderEvent]:
        """Yield `Mocked`, the sentence in pieces, and a usage of one token per four characters."""
        answer = mock_answer(query.words, query.mock_language)
        yield Mocked()
        yield ProviderIds(message_id="mock-response-id")
        pause(min(self._delay, deadline.remaining()), deadline)
        size = -(-len(answer) // self._pieces)
        for start in range(0, len(answer), size):
            check_deadline(deadline)
            yield Delta(answer[start : start + size])
        prompt, completion = len(query.text) // 4, len(answer) // 4
        yield Usage(prompt + completion, prompt, completion)

    def health_check(self) -> bool:
        """Return True: the mock is always available."""
        return True


def mock_answer(question: str, language: str = "zh") -> str:
    """Return the mock's answer in Chinese, or in English for "en"."""
    if language == "en":
        return (
            f"This is a mock response to your question: '{question}'. In mock mode, the actual API will not be called."
        )
    return f"这是一个模拟回答，用于展示系统流程。根据你的问题「{question}」，建议稍后接入真正的 RAG 服务。"


class MockFallback(ProviderWrapper):
    """Asks the provider. If it fails before its first text, the mock answers, and the answer is marked as mocked."""

    def __init__(self, provider: BaseRAGProvider, mock: BaseRAGProvider) -> None:
        super().__init__(provider)
        self._mock = mock

    def stream_query(self, query: Query, deadline: Deadline) -> Iterator[ProviderEvent]:
        """Yield the provider's answer, or `Mocked` and the mock's answer.

        Raises:
            ConversationGone: raised by the provider; the caller sends the question again without the conversation.
            StreamBroken: raised by the provider after it started a run; the caller recovers the run's answer.
            ProviderError: the provider failed after its first text, or the deadline has passed.
        """
        spoke = begun = False
        try:
            with closing_events(self._wrapped.stream_query(query, deadline)) as events:
                for event in events:
                    spoke = spoke or isinstance(event, Delta | Replacement)
                    begun = begun or (isinstance(event, ProviderIds) and event.name_run)
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
