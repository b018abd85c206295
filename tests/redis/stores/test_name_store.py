"""Users' names, for callbacks, which may not ask the user directory."""

from __future__ import annotations

import pytest
import redis

from services.errors import StoreUnavailable
from services.identity import name_store
from services.identity.name_store import FRESH, TTL, NameStore
from services.models import Question
from services.redis.store import ScriptRunner, connect
from tests.support.servers.processes import FakeClock, free_port

ZHANGSAN = Question("?", "wecom", "default", "zhangsan")
KEY = "dify_user_name:default:zhangsan"


def test_a_name_is_known_to_every_replica(runner: ScriptRunner, redis_client: redis.Redis) -> None:
    """It expires, and belongs to a bot's user."""
    NameStore(runner).note(ZHANGSAN, "张三")

    other = NameStore(runner)
    assert other.name(ZHANGSAN) == "张三"
    assert other.name(Question("?", "wecom", "hr", "zhangsan")) == ""
    assert TTL - 60 < redis_client.ttl(KEY) <= TTL


def test_an_unchanged_name_is_written_once_an_hour(
    runner: ScriptRunner, redis_client: redis.Redis, clock: FakeClock
) -> None:
    """A changed one is written at once."""
    names = NameStore(runner, clock=clock)
    names.note(ZHANGSAN, "张三")
    redis_client.delete(KEY)

    names.note(ZHANGSAN, "张三")
    seen = [names.name(ZHANGSAN)]
    names.note(ZHANGSAN, "章三")
    seen.append(names.name(ZHANGSAN))
    redis_client.delete(KEY)
    clock.advance(FRESH + 1)
    names.note(ZHANGSAN, "章三")
    seen.append(names.name(ZHANGSAN))

    assert seen == ["", "章三", "章三"]


def test_a_user_without_a_name_costs_nothing(runner: ScriptRunner, redis_client: redis.Redis) -> None:
    """Without directory and user table no name is known."""
    NameStore(runner).note(ZHANGSAN, "")

    assert not redis_client.exists(KEY)


def test_the_process_remembers_a_bounded_number(
    runner: ScriptRunner, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The user whose name was written longest ago is forgotten, and written again."""
    monkeypatch.setattr(name_store, "MOST_KNOWN", 1)
    names = NameStore(runner)
    names.note(ZHANGSAN, "张三")
    names.note(Question("?", "wecom", "default", "lisi"), "李四")
    redis_client.delete(KEY)

    names.note(ZHANGSAN, "张三")

    assert names.name(ZHANGSAN) == "张三"


def test_an_outage_costs_no_question() -> None:
    """Only reading fails."""
    client = connect(f"redis://127.0.0.1:{free_port()}/0", pool_size=1)
    names = NameStore(ScriptRunner(client))

    names.note(ZHANGSAN, "张三")

    with pytest.raises(StoreUnavailable):
        names.name(ZHANGSAN)
    client.close()
