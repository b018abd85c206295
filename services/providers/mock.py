"""An answer provider without a backend, for trying the channels without a Dify."""

from __future__ import annotations

import threading
from collections.abc import Iterator

from services.errors import ProviderError
from services.models import Delta, Mocked, ProviderEvent, ProviderIds, Query, Usage
from services.providers.base import BaseRAGProvider
from utils.deadline import Deadline


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
        _wait(self._delay, deadline)
        size = -(-len(answer) // self._pieces)
        for start in range(0, len(answer), size):
            _end_if_over(deadline)
            yield Delta(answer[start : start + size])
        asked, answered = len(query.text) // 4, len(answer) // 4
        yield Usage(asked + answered, asked, answered)

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


def _wait(seconds: float, deadline: Deadline) -> None:
    woken = threading.Event()
    with deadline.interrupting(woken.set):
        woken.wait(min(seconds, deadline.remaining()))


def _end_if_over(deadline: Deadline) -> None:
    if deadline.aborted:
        raise ProviderError(f"aborted: {deadline.aborted}", code="interrupted")
    if deadline.over:
        raise ProviderError("the total time is over", code="answer_timeout")
