"""Pushes in Redis: queued in order, claimed once by the holder, ended once, and expired when nobody could send them."""

from __future__ import annotations

import pytest
import redis

from services.redis.store import ScriptRunner
from services.wecom.long_connection import push_store
from services.wecom.long_connection.lease_store import bot_key
from services.wecom.long_connection.push_store import LOST_SECONDS, QUEUE_SECONDS, NewPush, Push, PushStore
from tests.support.long_connection.leases import hold

NOW = 1_700_000_000
BOT, CHAT = "default", "c" * 32
KEYS = {BOT: b"k" * 32}
CONTENT = bytes(range(256)) * 4096


def at(runner: ScriptRunner, seconds: float = 0.0) -> PushStore:
    """Return the store of any replica, whose scripts run `seconds` after NOW."""
    return PushStore(runner, KEYS, now=str(NOW + seconds))


def new(id: str, chat: str = CHAT, **more: object) -> NewPush:
    return NewPush(id, chat, "owner", "digest", '{"markdown": "提醒"}', **more)  # type: ignore[arg-type]


def found(runner: ScriptRunner, id: str, seconds: float = 0.0) -> Push:
    push = at(runner, seconds).find(BOT, id)
    assert push
    return push


def claim(store: PushStore, push: Push, fence: int, claim: str) -> str:
    return store.claim(BOT, push.chat, push.id, fence=fence, claim=claim)


def with_file(runner: ScriptRunner, id: str) -> NewPush:
    slices = at(runner).put_file(BOT, f"file-{id}", CONTENT)
    assert slices > 2
    return new(id, file=f"file-{id}", slices=slices, size=len(CONTENT))


@pytest.mark.every_redis
def test_a_push_is_queued_claimed_and_sent(runner: ScriptRunner) -> None:
    """The states follow each other; after the end nothing of the message is left, and the state is."""
    store, fence = at(runner), hold(runner, BOT)
    assert store.add(BOT, new("p1")) == "added"
    push = found(runner, "p1")
    assert (push.state, store.payload(push)) == ("queued", '{"markdown": "提醒"}')

    assert (store.due(BOT, 5), store.head(BOT, CHAT)) == ([CHAT], "p1")
    assert claim(store, push, fence, "me") == "claimed"
    assert found(runner, "p1").state == "sending"
    assert store.settle(push, "me", "sent")
    store.next(BOT, CHAT)

    ended = found(runner, "p1")
    assert (ended.state, ended.payload, ended.ended) == ("sent", "", NOW)
    assert (store.due(BOT, 5), store.head(BOT, CHAT)) == ([], "")


def test_a_push_is_claimed_once_and_only_by_the_holder(runner: ScriptRunner) -> None:
    """A former holder's fence claims nothing; a second claim is refused; the first claim's repetition is granted."""
    store, former = at(runner), hold(runner, BOT)
    fence = hold(runner, BOT)
    store.add(BOT, new("p1"))
    push = found(runner, "p1")

    assert claim(store, push, former, "old") == "refused"
    claims = [claim(store, push, fence, one) for one in ("me", "other", "me")]
    assert claims == ["claimed", "refused", "claimed"]
    assert not store.settle(push, "other", "sent")


def test_a_chats_pushes_leave_in_their_order(runner: ScriptRunner) -> None:
    """Only the first one can be claimed, and one that is put back is first again; other chats do not wait."""
    store, fence = at(runner), hold(runner, BOT)
    for id in ("p1", "p2"):
        store.add(BOT, new(id))
    store.add(BOT, new("p3", "d" * 32))
    first, second = found(runner, "p1"), found(runner, "p2")

    assert claim(store, second, fence, "a") == "refused"
    assert claim(store, first, fence, "b") == "claimed"
    assert store.settle(first, "b", "queued")
    assert store.head(BOT, CHAT) == "p1"
    store.next(BOT, CHAT, 30.0)
    assert store.due(BOT, 5) == ["d" * 32]
    assert at(runner, 30.0).due(BOT, 5) == ["d" * 32, CHAT]


def test_a_lost_claim_is_unknown_and_never_sent_again(runner: ScriptRunner) -> None:
    """After the time for an ack the state is unknown, first for readers, then noted; it can be claimed by nobody."""
    store, fence = at(runner), hold(runner, BOT)
    store.add(BOT, new("p1"))
    push = found(runner, "p1")
    assert claim(store, push, fence, "dead") == "claimed"

    assert found(runner, "p1", LOST_SECONDS - 1).state == "sending"
    assert found(runner, "p1", LOST_SECONDS).state == "unknown"
    assert at(runner, LOST_SECONDS).end_overdue(BOT) == {"expired": 0, "unknown": 1}
    assert at(runner, LOST_SECONDS).end_overdue(BOT) == {"expired": 0, "unknown": 0}
    assert claim(store, push, hold(runner, BOT), "successor") == "refused"
    assert not store.settle(push, "dead", "sent")
    assert found(runner, "p1").state == "unknown"


def test_a_push_that_nobody_could_send_expires(runner: ScriptRunner) -> None:
    """After an hour in the queue it is shown as expired, counted once, and not sent by a holder that comes later."""
    store, late = at(runner), at(runner, QUEUE_SECONDS)
    store.add(BOT, new("p1"))
    push = found(runner, "p1")

    assert found(runner, "p1", QUEUE_SECONDS - 1).state == "queued"
    assert found(runner, "p1", QUEUE_SECONDS).state == "expired"
    assert late.end_overdue(BOT) == {"expired": 1, "unknown": 0}
    assert claim(late, push, hold(runner, BOT), "me") == "dropped"
    late.next(BOT, CHAT)
    assert (late.due(BOT, 5), late.end_overdue(BOT)) == ([], {"expired": 0, "unknown": 0})


@pytest.mark.every_redis
def test_waiting_and_ended_pushes_are_listed(runner: ScriptRunner) -> None:
    """Those that wait by their time, then those that ended, the newest first; none with its payload."""
    store, fence = at(runner), hold(runner, BOT)
    for number, id in enumerate(("p1", "p2", "p3", "p4")):
        at(runner, number).add(BOT, new(id))
    for id in ("p1", "p2"):
        push = found(runner, id)
        claim(store, push, fence, id)
        store.settle(push, id, "failed", "93006")

    pushes, waiting = store.listed(BOT, 3)

    assert [(push.id, push.state, push.error) for push in pushes] == [
        ("p3", "queued", ""),
        ("p4", "queued", ""),
        ("p2", "failed", "93006"),
        ("p1", "failed", "93006"),
    ]
    assert ({push.payload for push in pushes}, waiting) == ({""}, 2)
    assert [push.id for push in store.listed(BOT, 1)[0]] == ["p3", "p2"]
    assert [push.state for push in at(runner, QUEUE_SECONDS + 3).listed(BOT, 1)[0]] == ["expired", "failed"]
    assert store.listed("other", 3) == ([], 0)


@pytest.mark.every_redis
def test_a_cancelled_push_leaves_the_queue(runner: ScriptRunner, redis_client: redis.Redis) -> None:
    """Nothing of its message and its file is left; a sender drops it, and the next one of the chat may leave."""
    store, fence = at(runner), hold(runner, BOT)
    store.add(BOT, with_file(runner, "p1"))
    store.add(BOT, new("p2"))
    push = found(runner, "p1")

    assert store.cancel(push)
    assert not store.cancel(push)

    ended = found(runner, "p1")
    assert (ended.state, ended.payload, ended.ended) == ("cancelled", "", NOW)
    assert redis_client.exists(bot_key(BOT, "push_file:file-p1")) == 0
    assert (claim(store, push, fence, "me"), store.head(BOT, CHAT)) == ("dropped", "p2")


def test_a_push_that_is_being_sent_is_not_cancelled(runner: ScriptRunner) -> None:
    """Its message may have left."""
    store, fence = at(runner), hold(runner, BOT)
    store.add(BOT, new("p1"))
    push = found(runner, "p1")
    claim(store, push, fence, "me")

    assert not store.cancel(push)
    assert store.settle(push, "me", "sent")


def test_the_list_of_ended_pushes_is_bounded(
    runner: ScriptRunner, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The newest ones stay, for as long as the last of them."""
    monkeypatch.setattr(push_store, "MOST_ENDED", 2)
    store = at(runner)
    for id in ("p1", "p2", "p3"):
        store.add(BOT, new(id))
        store.cancel(found(runner, id))

    assert [push.id for push in store.listed(BOT, 9)[0]] == ["p3", "p2"]
    assert redis_client.pttl(bot_key(BOT, "push_ended")) > 0


def test_a_full_queue_refuses(runner: ScriptRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of waiting pushes is bounded, and the bytes of their files; an ended one makes room."""
    monkeypatch.setattr(push_store, "MOST_WAITING", 2)
    monkeypatch.setattr(push_store, "MOST_BYTES", len(CONTENT))
    store, fence = at(runner), hold(runner, BOT)

    assert [store.add(BOT, with_file(runner, id)) for id in ("p1", "p2")] == ["added", "full"]
    assert [store.add(BOT, new(id)) for id in ("p3", "p4")] == ["added", "full"]
    push = found(runner, "p1")
    claim(store, push, fence, "me")
    store.settle(push, "me", "sent")
    assert [store.add(BOT, one) for one in (with_file(runner, "p2"), new("p4"))] == ["added", "full"]


def test_a_push_whose_hash_redis_lost_makes_room(runner: ScriptRunner, redis_client: redis.Redis) -> None:
    """Its place in the queue is free after its time; else lost pushes would fill the queue."""
    at(runner).add(BOT, new("p1"))
    redis_client.delete(bot_key(BOT, "push:p1"))

    assert at(runner, QUEUE_SECONDS).end_overdue(BOT) == {"expired": 0, "unknown": 0}
    assert redis_client.zcard(bot_key(BOT, "pushes")) == 0


def test_a_known_id_is_left_as_it_is(runner: ScriptRunner) -> None:
    """A repeated request changes nothing."""
    store = at(runner)

    assert [store.add(BOT, new("p1")), store.add(BOT, new("p1", "d" * 32))] == ["added", "known"]
    assert (found(runner, "p1").chat, store.due(BOT, 5)) == (CHAT, [CHAT])


def test_a_file_is_kept_sealed_until_the_end(runner: ScriptRunner, redis_client: redis.Redis) -> None:
    """Redis has neither its content nor the words of a push in plain; after the end it has no content at all."""
    store, fence = at(runner), hold(runner, BOT)
    store.add(BOT, with_file(runner, "p1"))
    push = found(runner, "p1")

    assert store.content(push) == CONTENT
    stored = [redis_client.hgetall(key) for key in redis_client.keys("*push*") if redis_client.type(key) == "hash"]
    assert "提醒" not in str(stored)
    assert all(redis_client.pttl(key) > 0 for key in redis_client.keys("*push*"))
    claim(store, push, fence, "me")
    store.settle(push, "me", "failed", "93006")
    assert store.content(push) is None
    assert (found(runner, "p1").error, redis_client.exists("{dify_long_connection:default}:push_file:file-p1")) == (
        "93006",
        0,
    )
