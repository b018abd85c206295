"""The turns of a conversation, for providers that keep none."""

from __future__ import annotations

import pytest
import redis

from services.conversations.history_store import MAX_CHARACTERS, MAX_EXCHANGES, HistoryStore, history_key
from services.conversations.store import ConversationStore
from services.models import Exchange, Question
from services.redis.store import ScriptRunner
from tests.support.servers.processes import FakeClock

QUESTION = Question("?", "wecom", "default", "zhangsan")


@pytest.fixture
def conversations(runner: ScriptRunner) -> ConversationStore:
    return ConversationStore(runner, secret=b"secret", ttl=100.0)


@pytest.fixture
def key(conversations: ConversationStore) -> str:
    return conversations.key("app", QUESTION)


@pytest.fixture
def history(runner: ScriptRunner, clock: FakeClock) -> HistoryStore:
    return HistoryStore(runner, ttl=100.0, max_tokens=20, max_seconds=60.0, clock=clock)


def test_turns_are_loaded_in_order(history: HistoryStore, key: str, redis_client: redis.Redis) -> None:
    """The turns are unchanged, the oldest first, in a list with a TTL."""
    history.add(key, "0", "s1", Exchange("你好", "您好\n"))
    history.add(key, "0", "s2", Exchange("谢谢 😀", "不客气"))

    assert history.load(key) == (Exchange("你好", "您好\n"), Exchange("谢谢 😀", "不客气"))
    assert 0 < redis_client.pttl(history_key(key)) <= 100_000


def test_the_history_is_bounded_in_tokens(history: HistoryStore, key: str) -> None:
    """The newest turns that fit are loaded whole."""
    for number in range(5):
        history.add(key, "0", f"s{number}", Exchange(f"问题{number}", "三个字"))

    assert history.load(key) == tuple(Exchange(f"问题{number}", "三个字") for number in (2, 3, 4))


@pytest.mark.parametrize(
    ("turn", "loaded"),
    [
        pytest.param(Exchange("问", "答" * 30), Exchange("问", "答" * 18 + "…"), id="long-answer"),
        pytest.param(Exchange("问" * 30, "答"), Exchange("问" * 18 + "…", "答"), id="long-question"),
        pytest.param(Exchange("问" * 30, "答" * 30), Exchange("问" * 9 + "…", "答" * 9 + "…"), id="both-long"),
        pytest.param(Exchange("ask", "word " * 30), Exchange("ask", ("word " * 30)[:75] + "…"), id="narrow-letters"),
        pytest.param(Exchange("ask", "n" * 200 + "宽" * 30), Exchange("ask", "n" * 75 + "…"), id="mixed"),
    ],
)
def test_the_last_turn_is_cut_to_the_limit(history: HistoryStore, key: str, turn: Exchange, loaded: Exchange) -> None:
    """Questions mostly refer to the last turn, so a turn that is too long is cut, not left out."""
    history.add(key, "0", "s1", Exchange("早", "早"))
    history.add(key, "0", "s2", turn)

    assert history.load(key) == (loaded,)


def test_an_old_turn_is_not_loaded(history: HistoryStore, key: str, clock: FakeClock) -> None:
    """The age of each turn counts, not the conversation's."""
    history.add(key, "0", "s1", Exchange("早", "早"))
    clock.advance(50)
    history.add(key, "0", "s2", Exchange("在吗", "在"))
    clock.advance(20)

    assert history.load(key) == (Exchange("在吗", "在"),)


def test_an_answer_written_by_two_owners_is_one_turn(history: HistoryStore, key: str) -> None:
    """The last turn of a stream counts; a stream whose id has the same beginning keeps its own."""
    history.add(key, "0", "s1", Exchange("问", "答"))
    history.add(key, "0", "s12", Exchange("问", "半"))
    history.add(key, "0", "s12", Exchange("问", "全"))

    assert history.load(key) == (Exchange("问", "答"), Exchange("问", "全"))


def test_a_reset_ends_the_history(
    history: HistoryStore, key: str, conversations: ConversationStore, runner: ScriptRunner
) -> None:
    """The turn of an answer that was running is not added either: it belongs to the old conversation."""
    history.add(key, "0", "s1", Exchange("问", "答"))

    runner.run([conversations.reset_call(key, "command")])
    history.add(key, "0", "s2", Exchange("还", "在"))

    assert history.load(key) == ()


def test_the_list_is_bounded(runner: ScriptRunner, key: str, redis_client: redis.Redis) -> None:
    """The number of turns and the characters of each have a limit."""
    history = HistoryStore(runner, ttl=100.0, max_tokens=10**9)
    for number in range(MAX_EXCHANGES + 3):
        history.add(key, "0", f"s{number}", Exchange("问" * 10_000, "答" * 10_000))

    assert redis_client.llen(history_key(key)) == MAX_EXCHANGES
    assert {len(turn.answer) for turn in history.load(key)} == {MAX_CHARACTERS}
