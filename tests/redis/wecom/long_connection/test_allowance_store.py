"""WeCom's limits of 30 messages a minute and 1,000 an hour to a chat are counted over all replicas."""

from __future__ import annotations

import pytest
import redis

from services.redis.store import ScriptRunner
from services.wecom.long_connection.allowance_store import AllowanceStore

NOW = 1_700_000_000
KEYS = {"default": b"k" * 32, "second": b"k" * 32}


def at(runner: ScriptRunner, seconds: float) -> AllowanceStore:
    """Return the store of any replica, whose scripts run `seconds` after NOW."""
    return AllowanceStore(runner, KEYS, now=str(NOW + seconds))


@pytest.mark.every_redis
def test_the_31st_message_of_a_minute_waits_until_the_first_has_left_the_window(runner: ScriptRunner) -> None:
    """30 messages are counted, also by different replicas; the next one learns the seconds it has to wait."""
    waits = [at(runner, number).message("default", "zhangsan", f"m{number}") for number in range(30)]

    assert waits == [0.0] * 30
    assert at(runner, 30.0).message("default", "zhangsan", "m30") == 32.0
    assert at(runner, 61.9).message("default", "zhangsan", "m30") == pytest.approx(0.1)
    assert at(runner, 62.0).message("default", "zhangsan", "m30") == 0.0
    assert at(runner, 62.0).message("default", "zhangsan", "m31") == 1.0


def test_chats_and_bots_and_uploads_are_counted_apart(runner: ScriptRunner) -> None:
    """A full chat refuses no other chat, no other bot and no upload."""
    for number in range(30):
        assert at(runner, 0.0).message("default", "zhangsan", f"m{number}") == 0.0

    assert at(runner, 0.0).message("default", "zhangsan", "m30") > 0
    assert at(runner, 0.0).message("default", "lisi", "m30") == 0.0
    assert at(runner, 0.0).message("second", "zhangsan", "m30") == 0.0
    assert at(runner, 0.0).upload("default", "m30") == 0.0


def test_the_1001st_message_of_an_hour_waits(runner: ScriptRunner) -> None:
    """20 messages a minute are too many after 50 minutes."""
    for number in range(1000):
        assert at(runner, number * 3.0).message("default", "zhangsan", f"m{number}") == 0.0

    assert at(runner, 3000.0).message("default", "zhangsan", "m1000") == 602.0
    assert at(runner, 3602.0).message("default", "zhangsan", "m1000") == 0.0


def test_a_message_counts_once_at_its_newest_time(runner: ScriptRunner) -> None:
    """A push is counted when it is taken and again when it leaves: it takes the place of one message only."""
    for number in range(30):
        assert at(runner, 0.0).message("default", "zhangsan", f"m{number}") == 0.0

    assert at(runner, 10.0).message("default", "zhangsan", "m0") == 0.0
    assert at(runner, 11.0).message("default", "zhangsan", "m30") == 51.0
    # The 29 others have left the window, and m0 has not.
    assert [at(runner, 62.0).message("default", "zhangsan", f"n{number}") for number in range(30)] == [0.0] * 29 + [
        10.0
    ]


def test_a_refused_message_keeps_its_earlier_count(runner: ScriptRunner, redis_client: redis.Redis) -> None:
    """A queued push that has to wait is still one of the messages of the hour."""
    assert at(runner, 0.0).message("default", "zhangsan", "push") == 0.0
    for number in range(30):
        at(runner, 100.0).message("default", "zhangsan", f"m{number}")

    assert at(runner, 100.0).message("default", "zhangsan", "push") == 62.0
    (key,) = redis_client.keys()
    assert redis_client.zcard(key) == 31


def test_the_keys_name_no_chat_and_expire(runner: ScriptRunner, redis_client: redis.Redis) -> None:
    """Redis has no userid, and nothing of the counts an hour later."""
    at(runner, 0.0).message("default", "zhangsan", "m0")

    (key,) = redis_client.keys()
    assert "zhangsan" not in str(key)
    assert 3_500_000 < redis_client.pttl(key) <= 3_602_000
