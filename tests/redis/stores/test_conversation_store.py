"""A conversation's id in Redis, and the queue of its questions."""

from __future__ import annotations

import pytest
import redis

from services.conversations.store import ConversationStore, Memory
from services.models import Question
from services.redis.store import ScriptRunner

QUESTION = Question("?", "wecom", "default", "zhangsan")
GROUP = Question("?", "wecom", "default", "zhangsan", chat="group")


@pytest.fixture
def store(runner: ScriptRunner) -> ConversationStore:
    return ConversationStore(runner, secret=b"secret", ttl=100.0)


def test_each_person_chat_bot_channel_and_app_has_its_own_conversation(store: ConversationStore) -> None:
    """Questions and apps that differ in one value have different keys, in the documented shape."""
    others = [
        GROUP,
        Question("?", "wecom", "default", "lisi"),
        Question("?", "wecom", "hr", "zhangsan"),
        Question("?", "chat", "default", "zhangsan"),
    ]
    keys = {store.key("app", question) for question in [QUESTION, *others]} | {store.key("app2", QUESTION)}

    assert len(keys) == 6
    assert all(key.startswith("dify_conversation:app") and len(key.split(":")) == 5 for key in keys)


def test_a_key_shows_no_names(store: ConversationStore) -> None:
    """Person and chat are in the key as keyed hashes."""
    assert "zhangsan" not in store.key("app", GROUP)
    assert "group" not in store.key("app", GROUP)


def test_a_shared_group_has_one_conversation(store: ConversationStore) -> None:
    """All members share the group's conversation; a single chat stays a person's own."""
    other = Question("?", "wecom", "default", "lisi", chat="group")

    assert store.key("app", GROUP, shared=True) == store.key("app", other, shared=True)
    assert store.key("app", QUESTION, shared=True) == store.key("app", QUESTION)


def test_a_conversation_expires_after_its_last_use(store: ConversationStore, redis_client: redis.Redis) -> None:
    """The id is a plain string with a TTL."""
    key = store.key("app", QUESTION)
    store.remember(key, Memory("c1", "0"))

    assert store.load(key) == Memory("c1", "0")
    assert redis_client.get(key) == "c1"
    assert 0 < redis_client.pttl(key) <= 100_000


def test_a_conversation_lives_on_from_each_look(store: ConversationStore, redis_client: redis.Redis) -> None:
    """The question in whose queue it is not uses it too: that of another app."""
    key = store.key("app", QUESTION)
    store.remember(key, Memory("c1", "0"))
    redis_client.pexpire(key, 5_000)

    store.load(key)

    assert 5_000 < redis_client.pttl(key) <= 100_000


def test_an_empty_id_deletes_the_conversation(store: ConversationStore) -> None:
    """Nothing is loaded after it."""
    key = store.key("app", QUESTION)
    store.remember(key, Memory("c1", "0"))
    store.remember(key, Memory("", "0"))

    assert store.load(key).conversation_id == ""


def test_an_answer_from_before_a_reset_is_not_remembered(store: ConversationStore) -> None:
    """An older answer cannot bring the old conversation back."""
    key = store.key("app", QUESTION)
    store.remember(key, Memory("old", "0"))
    before = store.load(key)
    store._runner.run([store.reset_call(key, "s")])

    store.remember(key, before)

    assert store.load(key) == Memory("", "1")


@pytest.mark.every_redis
def test_a_reset_command_works_once(store: ConversationStore, redis_client: redis.Redis) -> None:
    """A redelivered reset changes nothing; the last eight command ids are kept, and they expire."""
    key = store.key("app", QUESTION)
    store._runner.run([store.reset_call(key, "first")])
    store._runner.run([store.reset_call(key, "second")])
    store.remember(key, Memory("new", "2"))

    store._runner.run([store.reset_call(key, "first")])

    assert store.load(key) == Memory("new", "2")
    for number in range(20):
        store._runner.run([store.reset_call(key, str(number))])
    assert redis_client.llen(f"{{{key}}}:reset_by") == 8
    assert 0 < redis_client.pttl(f"{{{key}}}:reset_by") <= 100_000


def test_turns_are_first_in_first_out(store: ConversationStore) -> None:
    """A stream that enters again keeps its position, and moves up when the head leaves."""
    first, second, again = (store.enter("k", stream_id) for stream_id in ("1", "2", "1"))
    store.leave("k", "1")

    assert (first.position, first.entered, second.position, second.head) == (0, True, 1, "1")
    assert (again.position, again.entered) == (0, False)
    assert store.enter("k", "2").position == 0


def test_three_questions_may_wait(store: ConversationStore) -> None:
    """The fifth stream finds the queue full and is not added."""
    positions = [store.enter("k", str(number)).position for number in range(5)]

    assert positions == [0, 1, 2, 3, -1]
    store.leave("k", "0")
    assert store.enter("k", "4").position == 3


def test_a_queue_has_a_ttl(store: ConversationStore, redis_client: redis.Redis) -> None:
    """No key of a conversation stays for ever."""
    store.enter("k", "1")

    assert redis_client.pttl("{k}:turns") > 0


def test_entering_the_queue_returns_the_memory(store: ConversationStore) -> None:
    """The same step loads it, which saves each question a round trip."""
    key = store.key("app", QUESTION)
    nothing = store.enter(key, "1").memory
    store._runner.run([store.reset_call(key, "s")])
    store.remember(key, Memory("c1", "1"))

    assert (nothing, store.enter(key, "1").memory) == (Memory("", "0"), Memory("c1", "1"))


def test_a_question_renews_the_conversations_ttl(store: ConversationStore, redis_client: redis.Redis) -> None:
    """Each question starts the TTL again, and creates no id where none is remembered."""
    key, other = store.key("app", QUESTION), store.key("app", GROUP)
    store.remember(key, Memory("c1", "0"))
    redis_client.pexpire(key, 50_000)

    store.enter(key, "1")
    store.enter(other, "2")

    assert 50_000 < redis_client.pttl(key) <= 100_000
    assert not redis_client.exists(other)
