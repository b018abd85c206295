"""Polls that share round trips: their number, their results, and their errors."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, cast

import pytest

from services.errors import StoreUnavailable
from services.streams.polls import MAX_TOGETHER, SharedReads, _Poll, _Queue
from services.streams.records import Snapshot
from services.streams.store import StreamStore
from tests.support.servers.processes import wait_until


class Store:
    """A store whose requests block until the test releases them."""

    def __init__(self) -> None:
        self.requests: list[list[str]] = []
        self.gate = threading.Event()
        self.error: BaseException | None = None

    def home(self, stream_id: str) -> str:
        return stream_id.partition(":")[0]

    def snapshots(self, stream_ids: Sequence[str]) -> list[Snapshot | StoreUnavailable | None]:
        self.requests.append(list(stream_ids))
        assert self.gate.wait(60)
        if self.error:
            raise self.error
        answers: dict[str, Any] = {"gone": None, "away": StoreUnavailable("its node is away")}
        return [answers.get(one.rpartition(":")[2], Snapshot(one, "processing", text=one)) for one in stream_ids]


@pytest.fixture
def store() -> Store:
    return Store()


def shared(store: Store, timeout: float = 60.0) -> SharedReads:
    return SharedReads(cast(StreamStore, store), timeout=timeout)


@contextmanager
def polls(reads: SharedReads, store: Store, *stream_ids: str) -> Iterator[list[Any]]:
    """Poll each stream in its own thread, in this order; yield the results once all polls are queued."""
    got: list[Any] = [None] * len(stream_ids)

    def arrived() -> int:
        """Count the polls, but only once no leader is about to take further ones along."""
        waiting = [poll for queue in list(reads._queues.values()) for poll in list(queue.waiting)]
        return 0 if any(poll.leads for poll in waiting) else len(waiting) + sum(map(len, store.requests))

    def poll(index: int) -> None:
        try:
            got[index] = reads.read(stream_ids[index])
        except BaseException as exc:
            got[index] = exc

    threads = [threading.Thread(target=poll, args=(index,)) for index in range(len(stream_ids))]
    before = arrived()
    for index, thread in enumerate(threads):
        thread.start()
        wait_until(lambda index=index: got[index] is not None or arrived() > before + index, 30.0)  # type: ignore[misc]
    yield got
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()


def test_polls_during_a_request_share_the_next_one(store: Store) -> None:
    """All polls that arrive during a request go with the next one, and each gets its own result."""
    reads = shared(store)
    names = [f":{number}" for number in range(20)]
    with polls(reads, store, *names) as got:
        wait_until(lambda: len(reads._queues[""].waiting) == 19)
        store.gate.set()

    assert [sorted(ids) for ids in store.requests] == [[":0"], sorted(names[1:])]
    assert [snapshot.text for snapshot in got] == names


def test_a_request_has_a_maximum_number_of_polls(store: Store) -> None:
    """Polls beyond the limit go with the next request."""
    reads = shared(store)
    with polls(reads, store, *(f":{number}" for number in range(MAX_TOGETHER + 10))):
        wait_until(lambda: len(reads._queues[""].waiting) == MAX_TOGETHER + 9)
        store.gate.set()

    assert [len(ids) for ids in store.requests] == [1, MAX_TOGETHER, 9]


def test_each_node_of_a_cluster_gets_its_own_request(store: Store) -> None:
    """Polls of one node of a Redis Cluster do not wait for another node."""
    reads = shared(store)
    with polls(reads, store, "a:1", "b:1"):
        wait_until(lambda: len(store.requests) == 2)
        store.gate.set()

    assert sorted(store.requests) == [["a:1"], ["b:1"]]


def test_each_poll_gets_its_own_error(store: Store) -> None:
    """A missing stream, or one whose node is away, does not affect the others."""
    store.gate.set()
    with polls(shared(store), store, ":gone", ":away", ":one") as got:
        pass

    assert got[0] is None
    assert isinstance(got[1], StoreUnavailable)
    assert got[2].text == ":one"


def test_an_outage_fails_every_poll_of_the_request(store: Store) -> None:
    """The next poll sends a new request."""
    store.error = StoreUnavailable("away")
    reads = shared(store)
    with polls(reads, store, ":0", ":1", ":2") as got:
        store.gate.set()
    assert [type(one) for one in got] == [StoreUnavailable] * 3

    store.error = None
    assert reads.read(":0") is not None


def test_a_leader_that_is_killed_leaves_no_poll_waiting(store: Store) -> None:
    """The other polls of its request get an error, and a new leader serves later ones."""
    reads = shared(store)
    store.error = SystemExit("ended")
    with polls(reads, store, ":0") as first:
        wait_until(lambda: len(store.requests) == 1)
        with polls(reads, store, ":1", ":2") as later:
            wait_until(lambda: len(reads._queues[""].waiting) == 2)
            store.gate.set()
            wait_until(lambda: isinstance(first[0], SystemExit))

    assert isinstance(later[0], SystemExit)
    assert isinstance(later[1], StoreUnavailable)
    store.error = None
    assert reads.read(":3") is not None


def test_a_poll_that_is_not_sent_times_out(store: Store) -> None:
    """A poll that times out leaves the queue, and is not sent."""
    reads = shared(store, timeout=0.2)
    with polls(reads, store, ":0", ":1") as got:
        wait_until(lambda: got[1] is not None)
        assert isinstance(got[1], StoreUnavailable)
        store.gate.set()

    assert store.requests == [[":0"]]
    assert got[0].text == ":0"
    assert reads.read(":1") is not None


class TwoWaits:
    """In place of a poll's lock: the first wait is in vain, and the reply comes during the second."""

    def __init__(self) -> None:
        self.waits: list[float] = []

    def acquire(self, *, timeout: float) -> bool:
        self.waits.append(timeout)
        return len(self.waits) == 2


def test_a_poll_that_is_sent_waits_for_its_reply(store: Store) -> None:
    """The timeout covers only the wait before the request; the store bounds the request itself."""
    lock = TwoWaits()

    shared(store, timeout=1.5)._wait(_Queue(), _Poll(":1", cast(threading.Lock, lock)))

    assert lock.waits == [1.5, 1.5]


def test_a_thousand_polls_of_many_threads_get_their_own_results(store: Store) -> None:
    """No result is mixed up or lost, and no poll stays queued."""
    store.gate.set()
    reads = shared(store)
    names = [f"{number % 3}:{number}" for number in range(1000)]

    with ThreadPoolExecutor(16) as pool:
        got = list(pool.map(reads.read, names))

    assert [one.text if one else None for one in got] == names
    assert not any(queue.waiting or queue.led for queue in reads._queues.values())


def test_a_poll_that_leads_at_the_moment_of_its_timeout_leads_in_order(store: Store) -> None:
    """Its lock is locked, as that of every leader: a queue without a leader would serve no later poll."""
    reads, queue = shared(store, timeout=0.001), _Queue(led=True)
    poll = _Poll(":0")
    poll.ready.acquire()
    queue.waiting.append(poll)

    with reads._lock:
        waiting = threading.Thread(target=reads._wait, args=(queue, poll))
        waiting.start()
        # Its timeout is over, unless this machine is very busy: then the test shows less.
        waiting.join(0.2)
        poll.leads = True
        poll.ready.release()
    waiting.join(60)
    store.gate.set()
    reads._lead(queue)

    assert (store.requests, queue.led) == ([[":0"]], False)
