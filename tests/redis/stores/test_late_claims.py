"""The claim of a late message: written with the answer's end, for one owner, and given up once its owner is lost."""

from __future__ import annotations

from typing import Any

import pytest
import redis

from services.redis.store import ScriptRunner
from services.streams.records import Appended
from services.streams.store import CLAIM_SECONDS, READ_BYTES, stream_keys
from tests.redis.stores.test_stream_store import ID, Store, append, finish, new
from tests.support.servers.processes import FakeClock

FIELDS = {"status": "processing", "content": "问题", "question": "{}", "access": "tag", "delivered": ""}
#: Seconds of the frame.
FRAME = 330.0


@pytest.fixture
def store(runner: ScriptRunner, clock: FakeClock) -> Store:
    return Store(runner, clock)


def opens(store: Store, *, reply: str = "sealed", **changes: Any) -> None:
    store.open(new(fields={**FIELDS, "reply": reply, "late": "1"}, **changes))


def ends(store: Store, index: int = 1, owner: str = "a", epoch: int = 1, **fields: str) -> Appended:
    """Write the end, and return Redis's reply."""
    end = finish(index)
    end.owner, end.epoch, end.fields = owner, epoch, {**end.fields, **fields}
    (reply,) = store.write([end])
    assert isinstance(reply, Appended)
    return reply


def delivered(client: redis.Redis) -> str:
    return str(client.hget(stream_keys(ID).hash, "delivered"))


@pytest.mark.every_redis
def test_the_end_after_the_frame_claims_the_message(store: Store, clock: FakeClock, redis_client: redis.Redis) -> None:
    """A poll ended the frame: the owner gets the claim with what the frame shows, in the step that ends the stream."""
    opens(store)
    store.write([append("一")])
    clock.advance(FRAME)
    store.read(ID)
    store.write([append("二", index=1)])

    reply = ends(store, 2)

    assert (reply.outcome, reply.cause, reply.shown) == ("ok", "frame", "一")
    assert delivered(redis_client) == f"claimed {clock():.3f} frame a"


def test_an_end_sent_again_has_the_same_claim(store: Store, clock: FakeClock, redis_client: redis.Redis) -> None:
    """The first reply was lost, so nothing was sent: the same owner still has to send the message."""
    opens(store)
    store.write([append("一")])
    clock.advance(FRAME)
    store.read(ID)

    first = ends(store)
    claim = delivered(redis_client)
    clock.advance(2.0)
    second = ends(store)

    assert first == second
    assert second.cause == "frame"
    assert delivered(redis_client) == claim


def test_a_deadline_that_no_poll_saw_ends_the_frame(store: Store, clock: FakeClock) -> None:
    """What was seen last is unknown. A poll that comes after all shows an ended frame, without the end's text."""
    opens(store)
    store.write([append("一")])
    clock.advance(FRAME)

    reply = ends(store)
    snapshot = store.read(ID)

    assert (reply.cause, reply.shown) == ("unread", "")
    assert snapshot
    assert (snapshot.frame_over, snapshot.text, snapshot.late) == (True, "一", True)


def test_a_frame_ended_by_its_owner_keeps_what_a_poll_reads(store: Store, clock: FakeClock) -> None:
    """Of a long text it is as much as of any poll."""
    opens(store)
    store.write([append("a" * 30_000)])
    before = store.read(ID)
    clock.advance(FRAME)
    ends(store)
    after = store.read(ID)

    assert before
    assert after
    assert len(after.text) == len(before.text) == READ_BYTES


def test_a_text_larger_than_its_frame_is_claimed_in_time(store: Store, redis_client: redis.Redis) -> None:
    """The owner knows the size, and the claim is written by the step that ends the stream."""
    opens(store)
    store.write([append("一")])

    reply = ends(store, delivered="due")

    assert (reply.cause, reply.shown) == ("overflow", "")
    assert delivered(redis_client).startswith("claimed ")


@pytest.mark.parametrize("reply", ["", "sealed"])
def test_nothing_is_claimed_without_an_address_or_a_need(store: Store, clock: FakeClock, reply: str) -> None:
    """An answer without an address ends as ever, and so does one that ended before its frame."""
    opens(store, reply=reply)
    store.write([append("一")])
    if not reply:
        clock.advance(FRAME)
        store.read(ID)

    assert ends(store) == Appended("ok", 2)


def test_a_cancelled_answer_and_a_replaced_owner_claim_nothing(
    store: Store, clock: FakeClock, redis_client: redis.Redis
) -> None:
    """Only the end that is written counts."""
    opens(store)
    store.write([append("一")])
    clock.advance(FRAME)
    store.read(ID)

    refused = ends(store, owner="b", epoch=2)
    store.cancel(ID)
    cancelled = ends(store)

    assert (refused.outcome, cancelled.outcome, delivered(redis_client)) == ("refused", "closed", "")


def test_the_next_owner_claims_what_a_lost_one_did_not(
    store: Store, clock: FakeClock, redis_client: redis.Redis
) -> None:
    """An owner that is lost before the answer's end leaves no claim; its successor's end has it."""
    opens(store)
    store.write([append("一")])
    clock.advance(FRAME)
    store.read(ID)
    store.takeover(ID, "b")
    clock.advance(store.lease)
    taken = store.takeover(ID, "b")

    reply = ends(store, owner="b", epoch=taken.epoch)

    assert (taken.outcome, reply.cause, reply.shown) == ("taken", "frame", "一")
    assert delivered(redis_client).endswith(" b")


def test_an_outcome_replaces_the_claim_of_its_owner_only(store: Store, redis_client: redis.Redis) -> None:
    """Another owner's outcome changes nothing, and an expired stream is not created again."""
    opens(store)
    ends(store, 0, delivered="due")

    store.delivered(ID, "b", "sent")
    before = delivered(redis_client)
    store.delivered(ID, "a", "sent")
    store.delivered(ID, "a", "failed")
    store.delivered("expired", "a", "sent")

    assert before.startswith("claimed ")
    assert delivered(redis_client) == "sent"
    assert not redis_client.exists(stream_keys("expired").hash)


def test_a_claim_is_lost_once(store: Store, clock: FakeClock, redis_client: redis.Redis) -> None:
    """While its owner may be sending it stays; later exactly one caller learns that it is lost, and nobody sends."""
    opens(store)
    ends(store, 0, delivered="due")

    clock.advance(CLAIM_SECONDS - 1)
    waiting = store.look_at_claim(ID)
    clock.advance(2)
    found = [store.look_at_claim(ID) for _ in range(2)]

    assert (waiting, found) == (("waiting", ""), [("lost", "a"), ("", "")])
    assert delivered(redis_client) == "lost"
    assert store.look_at_claim("unknown") == ("", "")


def test_the_outcome_of_an_owner_that_comes_back_is_too_late(
    store: Store, clock: FakeClock, redis_client: redis.Redis
) -> None:
    """Its message was counted as lost already."""
    opens(store)
    ends(store, 0, delivered="due")
    clock.advance(CLAIM_SECONDS)
    store.look_at_claim(ID)

    store.delivered(ID, "a", "sent")

    assert delivered(redis_client) == "lost"
