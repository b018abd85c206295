"""What was said in a conversation, for providers that keep none."""

from __future__ import annotations

import pytest
import redis

from services.answers.conversation_store import ConversationStore
from services.answers.history_store import MAX_CHARACTERS, MAX_TURNS, HistoryStore, history_key
from services.models import Question, Turn
from services.redis.store import ScriptRunner

NOW = 1_700_000_000.0
QUESTION = Question("?", "wecom", "default", "zhangsan")


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def conversations(runner: ScriptRunner) -> ConversationStore:
    return ConversationStore(runner, secret=b"secret", ttl=100.0)


@pytest.fixture
def key(conversations: ConversationStore) -> str:
    return conversations.key("app", QUESTION)


@pytest.fixture
def history(runner: ScriptRunner, clock: Clock) -> HistoryStore:
    return HistoryStore(runner, ttl=100.0, max_tokens=20, max_seconds=60.0, clock=clock)


def test_turns_come_back_in_their_order(history: HistoryStore, key: str, redis_client: redis.Redis) -> None:
    """Each as it was said, the oldest first, in a list with a life."""
    history.add(key, "0", "s1", Turn("你好", "您好\n"))
    history.add(key, "0", "s2", Turn("谢谢 😀", "不客气"))

    assert history.load(key) == (Turn("你好", "您好\n"), Turn("谢谢 😀", "不客气"))
    assert 0 < redis_client.pttl(history_key(key)) <= 100_000


def test_what_is_told_is_bounded_in_tokens(history: HistoryStore, key: str) -> None:
    """The newest turns that fit, whole."""
    for number in range(5):
        history.add(key, "0", f"s{number}", Turn(f"问题{number}", "三个字"))

    assert history.load(key) == tuple(Turn(f"问题{number}", "三个字") for number in (2, 3, 4))


@pytest.mark.parametrize(
    ("turn", "told"),
    [
        pytest.param(Turn("问", "答" * 30), Turn("问", "答" * 18 + "…"), id="long-answer"),
        pytest.param(Turn("问" * 30, "答"), Turn("问" * 18 + "…", "答"), id="long-question"),
        pytest.param(Turn("问" * 30, "答" * 30), Turn("问" * 9 + "…", "答" * 9 + "…"), id="both-long"),
        pytest.param(Turn("ask", "word " * 30), Turn("ask", ("word " * 30)[:75] + "…"), id="narrow-letters"),
        pytest.param(Turn("ask", "n" * 200 + "宽" * 30), Turn("ask", "n" * 75 + "…"), id="mixed"),
    ],
)
def test_the_last_turn_is_told_as_far_as_it_fits(history: HistoryStore, key: str, turn: Turn, told: Turn) -> None:
    """What one asks about most is what was said last: too long a turn is cut, not left out."""
    history.add(key, "0", "s1", Turn("早", "早"))
    history.add(key, "0", "s2", turn)

    assert history.load(key) == (told,)


def test_what_is_old_is_not_told(history: HistoryStore, key: str, clock: Clock) -> None:
    """A turn's age counts, not the conversation's."""
    history.add(key, "0", "s1", Turn("早", "早"))
    clock.now += 50
    history.add(key, "0", "s2", Turn("在吗", "在"))
    clock.now += 20

    assert history.load(key) == (Turn("在吗", "在"),)


def test_an_answer_written_by_two_owners_is_one_turn(history: HistoryStore, key: str) -> None:
    """The last one counts; another stream's turn with an id that begins alike stays."""
    history.add(key, "0", "s1", Turn("问", "答"))
    history.add(key, "0", "s12", Turn("问", "半"))
    history.add(key, "0", "s12", Turn("问", "全"))

    assert history.load(key) == (Turn("问", "答"), Turn("问", "全"))


def test_starting_anew_ends_the_history(
    history: HistoryStore, key: str, conversations: ConversationStore, runner: ScriptRunner
) -> None:
    """Also for the answer that was under way: it belongs to what is over."""
    history.add(key, "0", "s1", Turn("问", "答"))

    runner.run([conversations.reset_call(key, "command")])
    history.add(key, "0", "s2", Turn("还", "在"))

    assert history.load(key) == ()


def test_the_list_is_bounded(runner: ScriptRunner, key: str, redis_client: redis.Redis) -> None:
    """In turns, and in the characters of each."""
    history = HistoryStore(runner, ttl=100.0, max_tokens=10**9)
    for number in range(MAX_TURNS + 3):
        history.add(key, "0", f"s{number}", Turn("问" * 10_000, "答" * 10_000))

    assert redis_client.llen(history_key(key)) == MAX_TURNS
    assert {len(turn.answer) for turn in history.load(key)} == {MAX_CHARACTERS}
