"""Ratings in Redis: the last one of a person wins, an event counts once, the queue is bounded and outlives workers."""

from __future__ import annotations

from typing import Any

import pytest
import redis

from services.feedback.rating_store import KEPT_SECONDS, LEASE, MOST_PEOPLE, QUEUE, RatingStore, note_call
from services.feedback.records import Outcome, Rating
from services.redis.store import ScriptRunner
from services.streams.records import NewStream
from services.streams.store import StreamStore, stream_keys

NOW = 1_700_000_000
ID = "s1"


@pytest.fixture
def store(runner: ScriptRunner) -> RatingStore:
    return RatingStore(runner, now=str(NOW))


def adds(store: RatingStore, person: str = "p1", at: int = NOW, event: str = "", stream_id: str = ID) -> Outcome:
    """Add a rating whose sealed text is its event's id."""
    return store.add(stream_id, person, Rating("like", at=at, event_id=event), f"sealed {event}")


def kept(store: RatingStore, stream_id: str = ID) -> dict[str, str]:
    """Return each person's sealed rating."""
    ratings = store.load(stream_id)
    return {one.person: one.sealed for one in ratings.people} if ratings else {}


def test_the_last_rating_of_a_person_wins_whatever_order_they_come_in(store: RatingStore) -> None:
    """An earlier event that comes later changes nothing; of one second the one that comes last counts."""
    outcomes = [adds(store, at=NOW + at, event=event) for at, event in ((5, "b"), (1, "a"), (5, "c"), (9, "d"))]

    assert outcomes == ["taken", "stale", "taken", "taken"]
    assert kept(store) == {"p1": "sealed d"}


def test_an_event_that_comes_again_changes_nothing(store: RatingStore) -> None:
    """Neither at once nor after later ones, and a delivered answer is not queued again."""
    for number in range(3):
        assert adds(store, at=NOW + number, event=f"e{number}") == "taken"
    store.settle(ID, 3, saved=True, sent=True, delay=0.0)

    replayed = [adds(store, at=NOW + number, event=f"e{number}") for number in (2, 0, 1)]

    assert replayed == ["known"] * 3
    assert kept(store) == {"p1": "sealed e2"}
    assert store.claim().waiting == 0


def test_people_of_a_chat_have_a_rating_each(store: RatingStore) -> None:
    """Each keeps the own one, and all are one entry of the queue."""
    assert [adds(store, person, event=person) for person in ("p1", "p2")] == ["taken", "taken"]

    assert kept(store) == {"p1": "sealed p1", "p2": "sealed p2"}
    assert store.claim().waiting == 1


def test_an_event_of_the_future_does_not_win_for_ever(store: RatingStore) -> None:
    """A time far ahead of Redis's clock, or none, counts as now."""
    assert [adds(store, at=at, event=str(at)) for at in (NOW + 10**6, 0, NOW + 1)] == ["taken"] * 3

    assert kept(store) == {"p1": f"sealed {NOW + 1}"}


def test_a_full_queue_refuses_further_answers(runner: ScriptRunner) -> None:
    """Ratings of an answer that waits already are taken: it keeps its one entry."""
    store = RatingStore(runner, most_waiting=2, now=str(NOW))

    outcomes = [adds(store, event=stream_id, stream_id=stream_id) for stream_id in ("a", "b", "c")]

    assert outcomes == ["taken", "taken", "full"]
    assert adds(store, "p2", event="x", stream_id="a") == "taken"
    assert kept(store, "c") == {}


def test_the_people_of_an_answer_are_bounded(store: RatingStore, redis_client: redis.Redis) -> None:
    """One more than `MOST_PEOPLE` is refused; who rated before may change the rating."""
    adds(store, event="a")
    redis_client.hset(f"{{dify_feedback}}:{ID}", "people", MOST_PEOPLE)

    assert (adds(store, "p2", event="b"), adds(store, event="c")) == ("full", "taken")


def test_a_claim_lapses_with_its_worker(store: RatingStore) -> None:
    """A worker that is killed leaves the answer claimed: another one gets it after `LEASE` seconds."""
    adds(store, event="a")
    assert store.claim().stream_id == ID

    assert store.claim().stream_id == ""
    store.now = str(NOW + LEASE + 1)
    assert store.claim().stream_id == ID


def test_a_rating_during_a_delivery_is_delivered_too(store: RatingStore) -> None:
    """The worker settles what it has loaded; the answer is due again at once, without a further try being counted."""
    adds(store, event="a")
    store.claim()
    adds(store, at=NOW + 1, event="b")

    assert not store.settle(ID, 1, saved=True, sent=True, delay=300.0)

    again, ratings = store.claim(), store.load(ID)
    assert again.stream_id == ID
    assert ratings
    assert (ratings.seq, ratings.saved, ratings.sent, ratings.tries) == (2, 1, 1, 0)


def test_a_slow_worker_that_was_overtaken_has_the_last_state_told_again(store: RatingStore) -> None:
    """Its call to the provider may have come after that of the worker with the later rating."""
    adds(store, event="a")
    adds(store, at=NOW + 1, event="b")
    store.settle(ID, 2, saved=True, sent=True, delay=0.0)
    assert store.claim().stream_id == ""

    assert not store.settle(ID, 1, saved=True, sent=True, delay=300.0)

    assert store.claim().stream_id == ID
    ratings = store.load(ID)
    assert ratings
    assert (ratings.saved, ratings.sent) == (2, 0)


def test_an_entry_whose_ratings_have_expired_leaves_the_queue(store: RatingStore, redis_client: redis.Redis) -> None:
    """Nothing is left that could be delivered."""
    adds(store, event="a")
    redis_client.delete(f"{{dify_feedback}}:{ID}")

    assert store.load(ID) is None
    assert store.settle(ID, 0, saved=True, sent=True, delay=0.0)
    assert redis_client.zcard(QUEUE) == 0


def test_every_key_expires(store: RatingStore, runner: ScriptRunner, redis_client: redis.Redis) -> None:
    """Ratings live longer than the note of their answer."""
    opens(runner, asks="1")
    RatingStore(runner).find(ID)
    adds(store, event="a")

    note, ratings = redis_client.ttl(f"{{dify_stream:{ID}}}:answer"), redis_client.ttl(f"{{dify_feedback}}:{ID}")

    assert 0 < note <= KEPT_SECONDS < ratings


def opens(runner: ScriptRunner, **fields: str) -> None:
    asker = '{"bot": "default", "channel": "wecom", "user": "zhangsan"}'
    given: dict[str, Any] = {"status": "processing", "access": "tag", "asks": "0", "asker": asker, **fields}
    StreamStore(runner).open(NewStream(ID, "a", given))


def test_an_answer_is_known_after_its_stream_has_expired(runner: ScriptRunner, redis_client: redis.Redis) -> None:
    """With the ids of its end; the user record's code is the provider's user."""
    answered = RatingStore(runner)
    opens(runner, asks="1")
    running = answered.find(ID)
    ended = {"status": "completed", "message_id": "m1", "provider": "dify", "user_info": '{"user_code": "E1"}'}
    for name, value in ended.items():
        redis_client.hset(stream_keys(ID).hash, name, value)
    runner.run([note_call(ID)])
    redis_client.delete(stream_keys(ID).hash)

    found = answered.find(ID)

    assert running
    assert (running.status, running.message_id, running.user) == ("processing", "", "zhangsan")
    assert found
    assert (found.asked, found.status, found.message_id, found.user) == (True, "completed", "m1", "E1")


@pytest.mark.parametrize("fields", [{}, {"asks": "1", "asker": ""}])
def test_a_sentence_of_ours_is_not_noted(
    runner: ScriptRunner, redis_client: redis.Redis, fields: dict[str, str]
) -> None:
    """A stream without a request to a provider, or of a channel without ratings, leaves nothing behind."""
    opens(runner, **fields)

    found = RatingStore(runner).find(ID)

    assert found
    assert not found.asked
    assert redis_client.exists(f"{{dify_stream:{ID}}}:answer") == 0
