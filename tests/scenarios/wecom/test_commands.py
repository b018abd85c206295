"""Commands over two processes: the answer runs on one, the command arrives at the other, and one of them is killed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from config.texts import ZH
from demo.mocks.dify.server import MockDify
from demo.mocks.group_robot import MockGroupRobot
from tests.support.replicas import dify_settings, replicas, settings_for, wecom_user
from tests.support.servers.processes import RedisServer, wait_until

pytestmark = [pytest.mark.scenario, pytest.mark.full]


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


def test_retry_and_human_survive_the_replica_that_answered(redis: RedisServer, tmp_path: Path) -> None:
    """After `kill -9` of one replica the other one asks the question again, and hands it over, each once."""
    with MockDify() as dify, MockGroupRobot() as robot:
        env = settings_for(redis.url(), **dify_settings(dify.base_url), HANDOFF_WEBHOOK=robot.url)
        with (
            replicas(2, env, tmp_path) as (one, other),
            wecom_user([one.url]) as here,
            wecom_user([other.url]) as there,
        ):
            first = here.sees_finish(here.says("年假怎么申请"), every=0.1)
            called = here.says("/human", "human-1")
            wait_until(lambda: len(robot.messages) == 1, timeout=30.0)
            one.kill()

            bubble = there.says("/retry", "retry-1")
            again = there.sees_finish(bubble, every=0.1)
            redelivered = [there.says("/human", "human-1"), there.says("/retry", "retry-1")]
            there.says("/human", "human-2")
            wait_until(lambda: len(robot.messages) == 2, timeout=30.0)

        assert first == again == redelivered[1].content
        assert redelivered[0].content == called.content == ZH["human_notified"]
        assert robot.requests == 2
        assert [request.body["query"] for request in dify.requests] == ["年假怎么申请"] * 2
