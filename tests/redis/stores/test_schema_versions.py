"""Two versions side by side, as during a rollback: a stream of a newer version is read, and left to that version."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import redis

from services.redis.store import ScriptRunner
from services.streams.records import Appended, Chunk, NewStream, Write
from services.streams.store import SCHEMA_VERSION, StreamStore, stream_keys
from tests.redis.streams.test_takeover_manager import QUESTION, Replica

ID = "s"
KEYS = stream_keys(ID)
LEASE, FRAME = 6.0, 330.0
#: Seconds from a suspicion to the takeover of a silent owner's stream.
GRACE = LEASE / 3 + 1
NEWER = str(int(SCHEMA_VERSION) + 1)


def test_a_newer_versions_stream_is_not_taken_over_before_its_deadline(
    runner: ScriptRunner, redis_client: redis.Redis
) -> None:
    """It is read as usual; after the producer's deadline this version takes it over to end it."""
    store, now = StreamStore(runner, lease=LEASE), 1_000.0

    def attempt_after(seconds: float) -> str:
        nonlocal now
        now += seconds
        store.now = str(now)
        return store.takeover(ID, "new").outcome

    store.now = str(now)
    store.open(NewStream(ID, "newer", {"status": "processing"}, frame_seconds=FRAME))
    store.write([Write(ID, 1, "newer", 0, 0, (Chunk("年", "t"),))])
    redis_client.hset(KEYS.hash, mapping={"v": NEWER, "unheard_of": "1"})

    assert [attempt_after(seconds) for seconds in (LEASE, GRACE, FRAME)] == ["newer"] * 3
    snapshot = store.read(ID)
    assert snapshot
    assert (snapshot.text, snapshot.frame_over) == ("年", True)
    assert store.write([Write(ID, 1, "newer", 0, 1, (Chunk("假", "t"),))]) == [Appended("ok", 2)]
    assert attempt_after(store.max_seconds) == "suspect"
    assert attempt_after(GRACE) == "taken"


@pytest.fixture
def replica(any_redis_url: str) -> Iterator[Replica]:
    replica = Replica(any_redis_url)
    yield replica
    replica.close()


def test_a_newer_versions_stream_is_ended_after_its_deadline(replica: Replica, redis_client: redis.Redis) -> None:
    """It keeps its text and gets an error sentence; unknown fields of hash, question and chunks do no harm."""
    question = {**json.loads(QUESTION.to_json()), "unheard_of": 1}
    fields = {"status": "processing", "question": json.dumps(question), "asks": "1"}
    replica.store.open(NewStream(ID, "newer", fields, (Chunk("年假", "t"),), frame_seconds=FRAME))
    chunk = {"content": "年假", "timestamp": "t", "unheard_of": True}
    redis_client.lset(KEYS.messages, 0, json.dumps(chunk, ensure_ascii=False))
    redis_client.hset(KEYS.hash, mapping={"v": NEWER, "lease": "1", "suspect": "1"})
    before = replica.takeovers.attempt(ID)
    redis_client.hset(KEYS.hash, mapping={"deadline": "2", "suspect": "1"})

    after = replica.takeovers.attempt(ID)

    assert (before, after) == ("newer", "taken")
    end = replica.ends()
    assert (end.text, end.status, end.error_code) == ("年假", "error", "answer_timeout")
    assert (replica.provider.asked, replica.provider.recovered) == ([], [])
