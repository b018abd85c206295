"""A conversation's memory and its line."""

from __future__ import annotations

import pytest
import redis

from services.answers.conversation_store import ConversationStore, Memory
from services.models import Question
from services.redis.store import ScriptRunner

QUESTION = Question("?", "wecom", "default", "zhangsan")
GROUP = Question("?", "wecom", "default", "zhangsan", chat="group")


@pytest.fixture
def store(runner: ScriptRunner) -> ConversationStore:
    return ConversationStore(runner, secret=b"secret", ttl=100.0)


def test_each_person_chat_bot_and_app_has_a_conversation_of_its_own(store: ConversationStore) -> None:
    """Five questions that differ in one thing each have five keys, in the documented shape."""
    others = [
        GROUP,
        Question("?", "wecom", "default", "lisi"),
        Question("?", "wecom", "hr", "zhangsan"),
        Question("?", "chat", "default", "zhangsan"),
    ]
    keys = {store.key("app", question) for question in [QUESTION, *others]} | {store.key("app2", QUESTION)}

    assert len(keys) == 6
    assert all(key.startswith("dify_conversation:app") and len(key.split(":")) == 5 for key in keys)


def test_nobody_reads_names_out_of_a_key(store: ConversationStore) -> None:
    """Person and chat are keyed hashes."""
    assert "zhangsan" not in store.key("app", GROUP)
    assert "group" not in store.key("app", GROUP)


def test_a_shared_group_has_one_conversation(store: ConversationStore) -> None:
    """Everybody in it is one, but a single chat stays a person's own."""
    other = Question("?", "wecom", "default", "lisi", chat="group")

    assert store.key("app", GROUP, shared=True) == store.key("app", other, shared=True)
    assert store.key("app", QUESTION, shared=True) == store.key("app", QUESTION)


def test_a_conversation_is_remembered_from_its_last_use(store: ConversationStore, redis_client: redis.Redis) -> None:
    """The id is a plain string with a life."""
    key = store.key("app", QUESTION)
    store.remember(key, Memory("c1", "0"))

    assert store.load(key) == Memory("c1", "0")
    assert redis_client.get(key) == "c1"
    assert 0 < redis_client.pttl(key) <= 100_000


def test_forgetting_leaves_nothing(store: ConversationStore) -> None:
    """An empty id deletes."""
    key = store.key("app", QUESTION)
    store.remember(key, Memory("c1", "0"))
    store.remember(key, Memory("", "0"))

    assert store.load(key).conversation_id == ""


def test_an_answer_from_before_a_reset_changes_nothing(store: ConversationStore) -> None:
    """A conversation begun anew stays new, whatever an older answer still remembers."""
    key = store.key("app", QUESTION)
    store.remember(key, Memory("old", "0"))
    before = store.load(key)
    store._runner.run([store.reset_call(key, "s")])

    store.remember(key, before)

    assert store.load(key) == Memory("", "1")


@pytest.mark.every_redis
def test_a_reset_command_works_once(store: ConversationStore, redis_client: redis.Redis) -> None:
    """Delivered again, after whatever came next, it changes nothing; so few are remembered that nothing grows."""
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


def test_turns_are_first_come_first_served(store: ConversationStore) -> None:
    """A stream keeps its place however often it asks, and moves up when the head leaves."""
    first, second, again = (store.enter("k", stream_id) for stream_id in ("1", "2", "1"))
    store.leave("k", "1")

    assert (first.position, first.entered, second.position, second.head) == (0, True, 1, "1")
    assert (again.position, again.entered) == (0, False)
    assert store.enter("k", "2").position == 0


def test_three_may_wait(store: ConversationStore) -> None:
    """The fifth finds the line full and is not in it."""
    places = [store.enter("k", str(number)).position for number in range(5)]

    assert places == [0, 1, 2, 3, -1]
    store.leave("k", "0")
    assert store.enter("k", "4").position == 3


def test_a_line_has_a_life(store: ConversationStore, redis_client: redis.Redis) -> None:
    """Nothing in Redis stays for ever."""
    store.enter("k", "1")

    assert redis_client.pttl("{k}:turns") > 0


def test_whose_turn_it_is_learns_what_is_remembered(store: ConversationStore) -> None:
    """In the same step: a question is a round trip less."""
    key = store.key("app", QUESTION)
    nothing = store.enter(key, "1").memory
    store._runner.run([store.reset_call(key, "s")])
    store.remember(key, Memory("c1", "1"))

    assert (nothing, store.enter(key, "1").memory) == (Memory("", "0"), Memory("c1", "1"))


def test_to_ask_is_to_use_a_conversation(store: ConversationStore, redis_client: redis.Redis) -> None:
    """Its life begins again with each question, and what is not remembered gets none."""
    key, other = store.key("app", QUESTION), store.key("app", GROUP)
    store.remember(key, Memory("c1", "0"))
    redis_client.pexpire(key, 5_000)

    store.enter(key, "1")
    store.enter(other, "2")

    assert 5_000 < redis_client.pttl(key) <= 100_000
    assert not redis_client.exists(other)
