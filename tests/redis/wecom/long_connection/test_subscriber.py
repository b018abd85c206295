"""One subscription per bot over all replicas: handover, reconnects, evictions and failures."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from demo.wecom.long_connection.faults import Fault
from demo.wecom.long_connection.server import LongConnectionServer
from services.metrics import BOT_EVICTIONS
from services.wecom.long_connection.lease_store import LEASE, HeldLease, lease_key
from services.wecom.long_connection.link import Link
from services.wecom.long_connection.protocol import NOT_SUBSCRIBED, SEND, SUBSCRIBE, WRONG_SECRET
from tests.support.long_connection.bots import BOT_ID, bot_server
from tests.support.long_connection.subscribed import BOT, SubscribedReplica
from tests.support.servers.processes import RedisServer, redis_client_for, wait_until

#: Seconds within which a replica sees a free lease and subscribes; wide, for a busy machine.
SOON = 30.0
PUSH = {"chatid": "zhangsan", "chat_type": 1, "msgtype": "markdown", "markdown": {"content": "你好"}}

#: Starts one more replica, with options of `SubscribedReplica`.
Start = Callable[..., SubscribedReplica]


@pytest.fixture
def wecom() -> Iterator[LongConnectionServer]:
    with bot_server() as wecom:
        yield wecom


@pytest.fixture
def start(redis_url: str, wecom: LongConnectionServer) -> Iterator[Start]:
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(SubscribedReplica(redis_url, wecom, **options))


def subscriptions(wecom: LongConnectionServer) -> list[int]:
    return wecom.bots[BOT_ID].subscriptions


def wait_subscribed(wecom: LongConnectionServer, count: int = 1) -> None:
    """Wait for the bot's subscription number `count`."""
    wecom.wait_until(lambda: len(subscriptions(wecom)) >= count and wecom.subscribed(BOT_ID) > 0, SOON)


def wait_ready(holder: SubscribedReplica, *others: SubscribedReplica) -> None:
    """Wait until the holder's connection is served, and another replica would take its lease; any may be the holder.

    One that is lost before its threads have begun is served by none, and is not among the replica's links.
    """
    wait_until(lambda: any(replica.links for replica in (holder, *others)), SOON)
    wait_until(lambda: holder.lease.subscribed and holder.lease.has_successor, SOON)


def test_one_of_three_replicas_subscribes(start: Start, wecom: LongConnectionServer) -> None:
    """The others look at the lease and open no connection."""
    replicas = [start() for _ in range(3)]
    wait_subscribed(wecom)
    wait_ready(*replicas)

    assert (subscriptions(wecom), len(wecom.connections)) == ([1], 1)
    wait_until(lambda: sum(len(replica.links) for replica in replicas) == 1)


def test_a_sender_that_failed_is_started_again(
    redis_url: str, wecom: LongConnectionServer, caplog: pytest.LogCaptureFixture
) -> None:
    """A connection may last for weeks: without a sender, nobody would get an answer over it."""
    calls: list[Link] = []

    def serve(link: Link) -> None:
        calls.append(link)
        if len(calls) == 1:
            raise ValueError("unexpected")

    replica = SubscribedReplica(redis_url, wecom)
    replica.connections._subscribers[0]._serve = (serve,)
    with replica:
        wait_until(lambda: len(calls) == 2, SOON)

    assert calls[0] is calls[1]
    assert "long connection: sender failed" in caplog.messages


def test_a_handover_drops_nothing(start: Start, wecom: LongConnectionServer) -> None:
    """The successor subscribes while the old connection receives; every message arrives at one of the two."""
    first = start()
    wait_subscribed(wecom)
    second = start()
    wait_ready(first)
    over, sent = threading.Event(), []
    alice = wecom.user("zhangsan")

    def write() -> None:
        while not over.wait(0.01):
            sent.append(alice.asks("年假怎么申请").msgid)

    writer = threading.Thread(target=write)
    writer.start()
    first.connections.hand_over(SOON)
    wait_subscribed(wecom, 2)
    over.set()
    writer.join()

    wait_until(lambda: len(first.arrived) + len(second.arrived) >= len(sent), SOON)
    assert sorted([*first.arrived, *second.arrived]) == sorted(sent)
    assert (wecom.dropped, first.lease.evicted, first.link().reason) == ([], "", "evicted")
    assert second.link().fence > first.link().fence


def test_a_successor_that_cannot_subscribe_leaves_it_to_the_next(start: Start, wecom: LongConnectionServer) -> None:
    """It gives the lease back, and the old connection stays open meanwhile."""
    first = start()
    wait_subscribed(wecom)
    start()
    start()
    wait_ready(first)
    wecom.faults.add(Fault(SUBSCRIBE, errcode=6000, times=1))

    first.connections.hand_over(SOON)

    wait_subscribed(wecom, 2)
    assert first.link().reason == "evicted"
    assert wecom.dropped == []


def test_a_single_replica_gives_the_lease_back(start: Start, wecom: LongConnectionServer) -> None:
    """Without a successor it closes at once, and the next start subscribes at once."""
    first = start()
    wait_subscribed(wecom)
    wait_until(lambda: first.links and first.lease.subscribed)

    first.connections.hand_over(SOON)

    assert (first.link().reason, first.lease.is_held) == ("ended", False)
    second = start()
    wait_subscribed(wecom, 2)
    assert second.link()


def test_two_replicas_that_leave_at_once_do_not_hand_over_to_each_other(
    start: Start, wecom: LongConnectionServer
) -> None:
    """The one that waited takes no lease any more."""
    first, second = start(ready_for=1.0), start(ready_for=1.0)
    wait_subscribed(wecom)
    wait_ready(first, second)

    second.connections.leave()
    first.connections.leave()
    first.connections.hand_over(SOON)
    second.connections.hand_over(SOON)

    assert (len(subscriptions(wecom)), first.lease.is_held) == (1, False)


def test_a_lost_connection_is_opened_again_under_the_same_lease(start: Start, wecom: LongConnectionServer) -> None:
    """At once, and the replica that waits does not take over."""
    first = start()
    wait_subscribed(wecom)
    second = start()
    wait_ready(first)

    wecom.disconnect()

    wait_subscribed(wecom, 2)
    assert (first.link(1).fence, second.links) == (first.link().fence, [])


def evictions(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """Return the lines about an eviction, which is counted, then logged, after the lease has it."""
    return [record for record in caplog.records if "another program" in record.getMessage()]


def test_a_foreign_eviction_stops_the_bot_until_it_is_resumed(
    start: Start, wecom: LongConnectionServer, caplog: pytest.LogCaptureFixture
) -> None:
    """No replica subscribes again, one ERROR line and one count say so, and `resume` ends it."""
    first = start()
    wait_subscribed(wecom)
    second = start()
    wait_ready(first)
    before = BOT_EVICTIONS.labels(BOT)._value.get()

    wecom.evict(BOT_ID)

    wait_until(lambda: first.lease.evicted == "evicted", SOON)
    wait_until(lambda: first.lease.has_successor, SOON)
    assert not first.leases.take(BOT, "x")
    assert subscriptions(wecom) == [1]
    (line,) = wait_until(lambda: evictions(caplog))
    assert line.levelno == logging.ERROR
    assert BOT_EVICTIONS.labels(BOT)._value.get() == before + 1

    third = start()
    wait_until(lambda: third.lease.evicted == "evicted")
    first.leases.resume(BOT)
    wait_subscribed(wecom, 2)
    wait_until(lambda: len([*first.links, *second.links, *third.links]) == 2)


def test_an_evicted_bot_is_subscribed_again_after_its_time(
    start: Start, wecom: LongConnectionServer, caplog: pytest.LogCaptureFixture
) -> None:
    """WECHAT_WS_RETRY is that time."""
    first = start(retry=0.2)
    wait_subscribed(wecom)
    wait_until(lambda: first.lease.subscribed)

    wecom.evict(BOT_ID)

    wait_subscribed(wecom, 2)
    assert "another program runs this bot" in caplog.text
    wait_until(lambda: first.lease.evicted == "")


def test_a_subscription_that_is_lost_twice_is_an_eviction(start: Start, wecom: LongConnectionServer) -> None:
    """The first 846609 reconnects; the second one in a row means that another program has subscribed."""
    replica = start()
    wait_subscribed(wecom)
    wecom.faults.add(Fault(SEND, errcode=NOT_SUBSCRIBED))

    replica.link().request(SEND, PUSH)
    wait_subscribed(wecom, 2)
    assert replica.lease.evicted == ""
    replica.link(1).request(SEND, PUSH)

    wait_until(lambda: replica.lease.evicted == "unsubscribed")


def test_wrong_credentials_are_tried_once(start: Start, wecom: LongConnectionServer) -> None:
    """The replica keeps the lease, says why in it, and gives it back when it leaves."""
    first = start(secret="another secret")
    wait_until(lambda: first.lease.problem == str(WRONG_SECRET), SOON)
    holder = first.lease.holder
    second = start(secret="another secret")
    wait_until(lambda: second.lease.has_successor, SOON)

    assert (first.lease.holder, first.lease.is_held, first.lease.subscribed) == (holder, True, False)
    assert len(wecom.frames) == 1

    first.connections.hand_over(SOON)
    second.connections.leave()
    assert first.links == []
    start()
    wait_subscribed(wecom)
    wait_until(lambda: first.lease.problem == "", SOON)


def test_a_server_that_refuses_is_tried_again(start: Start, wecom: LongConnectionServer) -> None:
    """Each replica pauses after its own failure; the first that succeeds keeps the lease."""
    wecom.refuse_status = 503
    first = start()
    start()
    wait_until(lambda: first.lease.problem == "handshake_failed", SOON)

    wecom.refuse_status = 0

    wait_subscribed(wecom)
    wait_until(lambda: first.lease.subscribed and not first.lease.problem, SOON)
    assert len(wecom.connections) == 1


def test_pauses_between_attempts_grow(redis_url: str, wecom: LongConnectionServer) -> None:
    """The first failure has no pause, each further one up to twice the one before, thirty seconds at most."""
    (subscriber,) = SubscribedReplica(redis_url, wecom).connections._subscribers

    pauses = [subscriber._next_pause() for _ in range(8)]

    assert pauses[0] == 0
    for pause, longest in zip(pauses[1:], (2, 4, 8, 16, 30, 30, 30), strict=True):
        assert longest / 2 <= pause <= longest


@pytest.mark.full
@pytest.mark.timeout(120)
def test_a_subscription_without_an_ack_is_tried_again(start: Start, wecom: LongConnectionServer) -> None:
    """The connection is dropped after the timeout of an ack, and the next one is used."""
    wecom.faults.add(Fault(SUBSCRIBE, lost=True, times=1))
    first = start()

    wait_subscribed(wecom)

    wait_until(lambda: first.lease.subscribed)
    wait_until(lambda: len(wecom.connections) == 1, SOON)


def test_a_holder_that_lost_its_lease_unknowingly_does_not_subscribe_again(
    start: Start, redis_url: str, wecom: LongConnectionServer
) -> None:
    """Its connection ends before it knows of the newer holder; a reconnect would evict that one."""
    first = start()
    wait_subscribed(wecom)
    wait_until(lambda: first.lease.subscribed)
    link, fence = first.link(), first.lease.fence + 1
    # In one step: between two the holder could renew its lease.
    with redis_client_for(redis_url) as client:
        client.hset(lease_key(BOT), mapping={"holder": "another", "fence": fence, "looked": 0})

    wecom.disconnect()

    wait_until(link.lost.is_set)
    wait_until(lambda: first.lease.looked > 0, SOON)
    assert (first.lease.fence, subscriptions(wecom)) == (fence, [1])


def test_a_holder_that_was_paused_before_it_subscribed_stops_no_bot(
    start: Start, redis_url: str, wecom: LongConnectionServer, caplog: pytest.LogCaptureFixture
) -> None:
    """It evicts its successor, which subscribes again once: a second eviction is another program's."""
    paused, resumed = threading.Event(), threading.Event()
    first = SubscribedReplica(redis_url, wecom)
    subscriber = first.connections._subscribers[0]
    connected, subscribe = subscriber._connected, subscriber._subscribe
    held: list[HeldLease] = []

    def connects(lease: HeldLease) -> Link | None:
        held.append(lease)
        return connected(lease)

    def pauses(link: Link) -> None:
        # A process that is paused does not renew its lease either.
        with held[-1]._calling:
            paused.set()
            resumed.wait(2 * SOON)
        subscribe(link)

    subscriber._connected = connects  # type: ignore[method-assign]
    subscriber._subscribe = pauses  # type: ignore[method-assign]
    with first:
        assert paused.wait(SOON)
        first.leases.give_back(BOT, first.lease.holder, first.lease.fence)
        second = start()
        wait_subscribed(wecom)
        wait_until(lambda: second.links and second.lease.subscribed, SOON)
        resumed.set()

        wait_subscribed(wecom, 3)
        assert second.link(1).fence == second.link().fence
        alice = wecom.user("zhangsan").asks("年假怎么申请")
        wait_until(lambda: second.arrived == [alice.msgid], SOON)
        wait_until(lambda: len(wecom.connections) == 1, SOON)
        assert (second.lease.evicted, first.arrived) == ("", [])

        wecom.evict(BOT_ID)
        wait_until(lambda: second.lease.evicted == "evicted", SOON)
    assert len(wait_until(lambda: evictions(caplog))) == 1


@pytest.mark.full
@pytest.mark.timeout(120)
def test_an_outage_of_redis_moves_no_connection(wecom: LongConnectionServer) -> None:
    """The holder keeps its connection while Redis is away, and its lease when Redis is back."""
    with (
        RedisServer(aof=True) as server,
        SubscribedReplica(server.url(), wecom) as first,
        SubscribedReplica(server.url(), wecom) as second,
    ):
        wait_subscribed(wecom)
        wait_until(lambda: first.links or second.links)
        holder = first if first.links else second
        wait_ready(holder)
        fence = holder.lease.fence

        server.stop()
        wecom.user("zhangsan").asks("年假怎么申请")
        wait_until(lambda: len(holder.arrived) == 1)
        # Until the lease has ended by Redis's clock.
        assert not holder.link().lost.wait(LEASE)
        server.restart()

        wait_ready(holder)
        assert (holder.lease.fence, subscriptions(wecom)) == (fence, [1])


@pytest.mark.timeout(120)
def test_a_redis_that_lost_the_lease_moves_no_connection(wecom: LongConnectionServer) -> None:
    """The holder writes it again before another replica takes it."""
    with (
        RedisServer() as server,
        SubscribedReplica(server.url(), wecom) as first,
        SubscribedReplica(server.url(), wecom) as second,
    ):
        wait_subscribed(wecom)
        wait_until(lambda: first.links or second.links)
        holder = first if first.links else second
        wait_ready(holder)
        fence = holder.lease.fence

        with server.client() as client:
            client.flushall()

        wait_until(lambda: holder.lease.fence == fence and holder.lease.subscribed, SOON)
        wait_ready(holder)
        assert (holder.lease.fence, subscriptions(wecom)) == (fence, [1])
