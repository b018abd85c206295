"""The OpenAI endpoint over real replicas: a repeated request joins its answer anywhere, also after a kill."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import redis

from demo.mocks.dify.server import MockDify
from tests.scenarios.stage.people import at_once
from tests.support.openai_program import OpenAIProgram, assistant, error_of, read, user
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


def test_an_answer_is_joined_on_another_replica_after_a_kill(pair: tuple[Replica, Replica], dify: MockDify) -> None:
    """The client's connection breaks with its replica; the same request gets the whole answer from the other one."""
    one, other = (OpenAIProgram(replica.url, KEY) for replica in pair)
    with one.begins(SLOW, headers=HEADERS) as events:
        next(events), next(events)
        pair[0].kill()

        joined = other.streams(SLOW, headers=HEADERS)

    assert (joined.content, joined.finish, joined.done) == (dify.expected_answer(SLOW), "stop", True)
    assert len(dify.requests) == 1


@pytest.mark.full
def test_a_request_at_once_on_both_replicas_is_asked_once(pair: tuple[Replica, Replica], dify: MockDify) -> None:
    """The session is decided by whoever comes first, so that all repetitions are one question."""
    programs = [OpenAIProgram(replica.url, KEY) for replica in pair]
    talk = [user("甲？"), assistant(programs[0].content("甲？")), user("乙？")]

    replies = at_once([partial(programs[number % 2].content, *talk, headers=HEADERS) for number in range(12)])

    assert len(set(replies)) == 1
    assert len(dify.requests) == 2
    assert dify.requests[-1].body["conversation_id"]
    assert error_of(programs[1].asks("丙？", headers=HEADERS))[:2] == (409, "idempotency_key_reuse")


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


@pytest.mark.full
def test_a_leaving_replica_ends_its_stream_with_an_error(pair: tuple[Replica, Replica], dify: MockDify) -> None:
    """After `DRAIN_SECONDS`; the client repeats its request with the same key elsewhere."""
    one, other = (OpenAIProgram(replica.url, KEY) for replica in pair)
    dify.slow = 0.5
    with one.begins(SLOW, headers=HEADERS) as events:
        next(events), next(events)
        pair[0].signal(signal.SIGTERM)
        broken = read(events)

    assert (broken.error["code"], broken.done) == ("draining", False)
    dify.slow = 0.01
    assert other.streams(SLOW, headers=HEADERS).content == dify.expected_answer(SLOW)
