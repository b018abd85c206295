"""What is remembered of a question's conversation, while it is answered and afterwards."""

from __future__ import annotations

import pytest

from services.answers.conversation_memory import ConversationMemory, MemoryStores
from services.answers.conversation_store import ConversationStore
from services.answers.history_store import MAX_CHARACTERS, HistoryStore
from services.models import Query, Question, Turn
from services.redis.store import ScriptRunner

QUESTION = Question("?", "wecom", "default", "zhangsan")
THOUGHT = "想一想。" * MAX_CHARACTERS


@pytest.fixture
def memory(runner: ScriptRunner) -> ConversationMemory:
    """The memory of one conversation, for a provider that keeps none."""
    conversations = ConversationStore(runner, secret=b"secret", ttl=100.0)
    key = conversations.key("app", QUESTION)
    return ConversationMemory(key, MemoryStores(conversations, HistoryStore(runner, ttl=100.0), timeout=1.0))


def told(memory: ConversationMemory, runner: ScriptRunner) -> tuple[Turn, ...]:
    """Return what the conversation's next question brings along."""
    conversations = ConversationStore(runner, secret=b"secret", ttl=100.0)
    key = conversations.key("app", QUESTION)
    following = ConversationMemory(key, MemoryStores(conversations, HistoryStore(runner, ttl=100.0), timeout=1.0))
    return following.recalled(Query("next", "u")).history


def test_a_models_thoughts_are_no_part_of_a_turn(memory: ConversationMemory, runner: ScriptRunner) -> None:
    """Thoughts longer than all that is kept leave the answer as it was said, and take no other turn's room."""
    memory.keep("你好", "您好", "s1")
    memory.keep("为什么天是蓝的？", f"<think>{THOUGHT}</think>因为瑞利散射。", "s2")

    assert told(memory, runner) == (Turn("你好", "您好"), Turn("为什么天是蓝的？", "因为瑞利散射。"))


def test_thoughts_alone_are_no_turn(memory: ConversationMemory, runner: ScriptRunner) -> None:
    """Some servers refuse a conversation with an empty answer in it."""
    memory.keep("你好", "<think>想一想。</think>", "s1")

    assert told(memory, runner) == ()
