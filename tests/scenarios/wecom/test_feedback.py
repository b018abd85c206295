"""Ratings over two replicas with MariaDB: parties are away, a replica is killed, events come again and out of order."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from config.texts import ZH
from demo.mocks.dify.error_replies import MockErrorReply
from demo.mocks.dify.server import MockDify
from demo.wecom.feedback import rates
from demo.wecom.simulator import Bubble, WeComUser
from tests.support.replicas import dify_settings, replicas, settings_for, wecom_user
from tests.support.servers.processes import MariaServer, RedisServer, wait_until

pytestmark = [pytest.mark.scenario, pytest.mark.full, pytest.mark.timeout(400)]

AT = 1_700_000_000
#: Seconds until a living replica has delivered what a killed one had claimed, with much to spare.
TIMEOUT = 120.0
AWAY = MockErrorReply.html(502, "Bad Gateway")


@pytest.fixture
def maria() -> Iterator[MariaServer]:
    """A server of its own: the test freezes it."""
    with MariaServer() as server:
        server.fresh_database("feedback")
        yield server


def rows(maria: MariaServer) -> list[tuple[Any, ...]]:
    """Return rating, words and reasons of each row; none where there is no table yet."""
    if not maria.execute("SHOW TABLES FROM feedback LIKE 'laibao_feedback'"):
        return []
    return list(maria.execute("SELECT rating, content, reasons FROM feedback.laibao_feedback"))


def answered(user: WeComUser) -> Bubble:
    bubble = user.says("年假怎么申请")
    user.sees_finish(bubble, every=0.1)
    return bubble


def test_the_last_state_of_a_rating_survives_outages_and_a_kill(maria: MariaServer, tmp_path: Path) -> None:
    """One row and one state at Dify, whatever replica takes the event and whatever happens before its delivery."""
    with RedisServer(aof=True) as redis, MockDify() as dify:
        sql = {"MYSQL_HOST": "127.0.0.1", "MYSQL_PORT": str(maria.port), "MYSQL_DATABASE": "feedback"}
        env = settings_for(redis.url(), **dify_settings(dify.base_url), **sql, BATCH_ENABLED="false")

        def states() -> list[tuple[str | None, str]]:
            return [(rating, content) for _, rating, content in list(dify.ratings)]

        with (
            replicas(2, env, tmp_path) as (one, other),
            wecom_user([one.url]) as here,
            wecom_user([other.url]) as there,
        ):
            bubble = answered(here)
            rates(there, bubble, "accurate", at=AT, msgid="e1")
            wait_until(lambda: states() == [("like", "")] and rows(maria) == [("like", None, None)], TIMEOUT)

            # Neither SQL nor Dify answers when the event comes: its reply is at once, and then its replica is killed.
            dify.outage = AWAY
            maria.pause()
            rates(here, bubble, "inaccurate", "请更具体一点", [2], at=AT + 10, msgid="e2")
            one.kill()
            rates(there, bubble, "accurate", at=AT + 5, msgid="late")
            maria.resume()
            wait_until(lambda: rows(maria) == [("dislike", "请更具体一点", "2")], TIMEOUT)
            assert states() == [("like", "")]

            dify.outage = None
            words = f"请更具体一点\n{ZH['feedback_reason_2']}"
            wait_until(lambda: states()[1:] == [("dislike", words)], TIMEOUT)

            for event in (("accurate", AT, "e1"), ("inaccurate", AT + 10, "e2")):
                rates(there, bubble, event[0], at=event[1], msgid=event[2])
            rates(there, bubble, "withdrawn", at=AT + 20, msgid="e3")
            wait_until(lambda: rows(maria) == [(None, None, None)] and states()[2:] == [(None, "")], TIMEOUT)
            log = other.log

    assert "请更具体" not in log
    assert '"feedback lost"' not in log


def test_a_rating_while_redis_hangs_is_delivered_after_it(tmp_path: Path) -> None:
    """The event is answered in time, and WeCom does not send it again."""
    with RedisServer() as redis, MockDify() as dify:
        env = settings_for(redis.url(), **dify_settings(dify.base_url), BATCH_ENABLED="false")
        with replicas(2, env, tmp_path) as (one, other), wecom_user([one.url, other.url]) as person:
            bubble = answered(person)
            redis.pause()
            rates(person, bubble, "accurate", at=AT, msgid="e1")
            redis.resume()
            wait_until(lambda: [rating for _, rating, _ in list(dify.ratings)] == ["like"], TIMEOUT)
            log = one.log + other.log

    assert '"outcome": "kept"' in log
