"""The mock provider, which needs no server and no key."""

from __future__ import annotations

import threading

import pytest

from services.errors import ProviderError
from services.models import Delta, Query
from services.providers.mock import MockProvider, mock_answer
from utils.deadline import Deadline


def test_the_mock_answers_with_the_originals_sentence() -> None:
    """The original's sentence quotes the question."""
    result = MockProvider(delay=0.0).query(Query("年假怎么申请", "u1"), Deadline(60.0))

    assert result.content == (
        "这是一个模拟回答，用于展示系统流程。根据你的问题「年假怎么申请」，建议稍后接入真正的 RAG 服务。"
    )
    assert result.metadata == {
        "provider": "mock",
        "conversation_id": "",
        "message_id": "mock-response-id",
        "mock": True,
    }
    assert result.usage["tokens"] == result.usage["prompt_tokens"] + result.usage["completion_tokens"] > 0


def test_the_chat_endpoint_keeps_its_english_sentence() -> None:
    """The original of this endpoint answered in English."""
    result = MockProvider(delay=0.0).query(Query("What?", "u1", mock_language="en"), Deadline(60.0))

    assert result.content == (
        "This is a mock response to your question: 'What?'. In mock mode, the actual API will not be called."
    )


def test_the_mock_streams_its_answer_in_pieces() -> None:
    """The answer is streamed in several deltas."""
    events = list(MockProvider(delay=0.0, pieces=4).stream_query(Query("q", "u1"), Deadline(60.0)))

    assert len([event for event in events if isinstance(event, Delta)]) == 4
    assert "".join(event.text for event in events if isinstance(event, Delta)) == mock_answer("q")


def test_the_mock_stops_at_the_deadline() -> None:
    """A deadline that is over raises `answer_timeout`."""
    with pytest.raises(ProviderError) as caught:
        list(MockProvider(delay=0.0).stream_query(Query("q", "u1"), Deadline(0.0)))

    assert caught.value.code == "answer_timeout"


def test_an_abort_wakes_the_mock() -> None:
    """An abort wakes the wait before the first delta."""
    deadline = Deadline(600.0)
    threading.Timer(0.05, deadline.abort, ("cancelled",)).start()

    with pytest.raises(ProviderError) as caught:
        list(MockProvider(delay=500.0).stream_query(Query("q", "u1"), deadline))

    assert caught.value.code == "interrupted"


def test_the_mock_is_always_healthy() -> None:
    """It depends on nothing."""
    assert MockProvider().health_check()
