"""The OpenAI endpoint over real replicas: a repeated request joins its answer anywhere, also after a kill."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from demo.mocks.dify.server import MockDify
from tests.support.openai_program import OpenAIProgram, assistant, user
from tests.support.replicas import Replica, dify_settings, replicas, settings_for

pytestmark = pytest.mark.scenario

KEY = "obviously-fake-api-key"
SLOW = "年假怎么申请？ [[slow]]"
HEADERS = {"Idempotency-Key": "k1"}


@pytest.fixture
def dify() -> Iterator[MockDify]:
    """A mock Dify whose slow answers take some seconds."""
    with MockDify(slow=0.1) as dify:
        yield dify


@pytest.fixture
def pair(redis_url: str, dify: MockDify, tmp_path: Path) -> Iterator[tuple[Replica, Replica]]:
    own = dify_settings(dify.base_url, API_KEYS=KEY, STREAM_LEASE="2", DRAIN_SECONDS="2", RATE_LIMIT_USER="off")
    with replicas(2, settings_for(redis_url, **own), tmp_path) as (one, other):
        yield one, other


@pytest.mark.full
def test_earlier_messages_survive_the_owner(pair: tuple[Replica, Replica], dify: MockDify, stored: redis.Redis) -> None:
    """The next owner goes on; the documented field `content` has the question alone."""
    one, other = (OpenAIProgram(replica.url, KEY) for replica in pair)
    talk = [{"role": "system", "content": "Be brief."}, user("甲？"), assistant("甲。"), user(SLOW)]
    with one.begins(*talk, headers=HEADERS) as events:
        next(events)
        pair[0].kill()

        joined = other.streams(*talk, headers=HEADERS)

    assert joined.content == dify.expected_answer(SLOW)
    assert {request.body["query"] for request in dify.requests} == {
        f"System: Be brief.\n\nUser: 甲？\n\nAssistant: 甲。\n\nUser: {SLOW}"
    }
    contents = [stored.hget(key, "content") for key in stored.keys("dify_stream:*")]
    assert contents == [SLOW]
