"""Conversation memory: what is kept of an answered question and loaded for the next one."""

from __future__ import annotations

import pytest

from services.conversations.history_store import MAX_CHARACTERS, HistoryStore
from services.conversations.memory import ConversationMemory, MemoryStores
from services.conversations.store import ConversationStore
from services.models import Exchange, Query, Question
from services.redis.store import ScriptRunner
from tests.support.made_providers import openai_provider

QUESTION = Question("?", "wecom", "default", "zhangsan")
#: A provider that keeps no conversations; it is not asked.
PROVIDER = openai_provider(base_url="http://127.0.0.1:9", api_key="not-a-real-key", model="m")
THINKING = "想一想。" * MAX_CHARACTERS


@pytest.fixture
def memory(runner: ScriptRunner) -> ConversationMemory:
    """The memory of one conversation, for a provider that keeps none."""
    conversations = ConversationStore(runner, secret=b"secret", ttl=100.0)
    key = conversations.key("app", QUESTION)
    return ConversationMemory(
        key, MemoryStores(conversations, HistoryStore(runner, ttl=100.0), timeout=1.0), provider=PROVIDER
    )


def next_history(memory: ConversationMemory, runner: ScriptRunner) -> tuple[Exchange, ...]:
    """Return the history that the conversation's next question brings along."""
    conversations = ConversationStore(runner, secret=b"secret", ttl=100.0)
    key = conversations.key("app", QUESTION)
    following = ConversationMemory(
        key, MemoryStores(conversations, HistoryStore(runner, ttl=100.0), timeout=1.0), provider=PROVIDER
    )
    return following.recalled(Query("next", "u")).history


def test_a_turn_is_kept_without_the_models_thinking(memory: ConversationMemory, runner: ScriptRunner) -> None:
    """Thinking that is longer than a turn's limit shortens neither its answer nor other turns."""
    memory.keep("你好", "您好", "s1")
    memory.keep("为什么天是蓝的？", f"<think>{THINKING}</think>因为瑞利散射。", "s2")

    assert next_history(memory, runner) == (Exchange("你好", "您好"), Exchange("为什么天是蓝的？", "因为瑞利散射。"))


def test_an_answer_of_thinking_alone_is_no_turn(memory: ConversationMemory, runner: ScriptRunner) -> None:
    """Some servers refuse a conversation that has an empty answer."""
    memory.keep("你好", "<think>想一想。</think>", "s1")

    assert next_history(memory, runner) == ()
