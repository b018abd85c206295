"""Progress of batch tasks on sockets: frames at every change, one query for all followers, slow clients, outages."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests

from channels.realtime.channel import RealtimeChannel
from channels.realtime.task_updates import Follower, TaskUpdates
from channels.sockets.peer import Closed
from demo.mocks.dify.server import MockDify
from services.batches.records import Item, Task
from services.errors import BatchUnknown, StoreUnavailable
from services.identity.callers import Caller
from services.realtime.session import MOST_TASKS
from tests.app.channels.test_realtime import TestGateway, TestSocket
from tests.support.batches.twin import BatchesTwin
from tests.support.replicas import AppServer, dify_settings, replicas, settings_for
from tests.support.servers.processes import wait_until
from tests.support.sockets.chat_room import Limit
from tests.support.sockets.realtime_desk import NOW, Desk, detect, options_for
from tests.support.sockets.visitor import visit

#: Seconds to wait for a frame or a query: wide, for a busy machine.
WIDE = 30.0
OWNER = "user:E1001"
KEY = "not-a-real-key"


@dataclass
class RecordedBatches(BatchesTwin):
    """Batches that record their queries."""

    queries: list[frozenset[str]] = field(default_factory=list)

    def look_up(self, task_ids: Collection[str]) -> list[Task]:
        self.queries.append(frozenset(task_ids))
        self._reach()
        return [self.get(task_id, self._tasks[task_id].owner) for task_id in task_ids if task_id in self._tasks]

    def adds(self, *texts: str, owner: str = OWNER) -> str:
        return self.submit(owner=owner, name="FAQ", texts=texts or ("一", "二"))[0].task_id

    def answers(self, task_id: str, index: int, status: Any = "completed") -> None:
        self.answer(task_id, Item(index, "x", status))

    def loses(self, task_id: str) -> None:
        del self._tasks[task_id]


class Listener:
    """A follower's callback, which may block."""

    def __init__(self) -> None:
        self.updates: queue.Queue[tuple[str, Task | None]] = queue.Queue()
        self.reads = threading.Event()
        self.reads.set()
        self.open = True

    def __call__(self, task_id: str, task: Task | None) -> bool:
        assert self.reads.wait(WIDE)
        self.updates.put((task_id, task))
        return self.open

    def next_state(self) -> tuple[str, int] | None:
        """Return status and number of finished items of the next update; None for a removed task."""
        _, task = self.updates.get(timeout=WIDE)
        return (task.status, task.done) if task else None


@pytest.fixture
def batches() -> RecordedBatches:
    return RecordedBatches()


@pytest.fixture
def updates(batches: RecordedBatches) -> Iterator[TaskUpdates]:
    updates = TaskUpdates(batches, interval=0.01)
    updates.start()
    yield updates
    updates.stop()


@pytest.fixture
def follows(updates: TaskUpdates) -> Iterator[Callable[[Listener], Follower]]:
    """Return a function that makes followers; all are closed after the test."""
    made: list[Follower] = []

    def follow(listener: Listener) -> Follower:
        made.append(updates.follower(OWNER, listener))
        return made[-1]

    yield follow
    for one in made:
        one.close()


def wait_for_queries(batches: RecordedBatches, times: int = 2) -> None:
    """Wait for so many more queries."""
    before = len(batches.queries)
    wait_until(lambda: len(batches.queries) > before + times, WIDE)


# Following


def test_a_followed_task_is_reported_until_its_end(
    batches: RecordedBatches, follows: Callable[[Listener], Follower]
) -> None:
    """The first update comes at once, others when the counts change, and the end is the last."""
    listener, task_id = Listener(), batches.adds()
    follower = follows(listener)

    follower.follow(task_id)
    assert listener.next_state() == ("pending", 0)
    wait_for_queries(batches)
    batches.answers(task_id, 0)
    assert listener.next_state() == ("running", 1)
    batches.pause(task_id, OWNER)
    assert listener.next_state() == ("paused", 1)
    batches.answers(task_id, 1, "failed")

    assert listener.next_state() == ("completed", 2)
    assert follower.task_ids == ()
    assert listener.updates.empty()


def test_without_followers_there_are_no_queries(
    batches: RecordedBatches, follows: Callable[[Listener], Follower]
) -> None:
    """There are no queries before the first subscription and after the last one's end."""
    follower = follows(listener := Listener())
    assert batches.queries == []
    task_id = batches.adds()
    follower.follow(task_id)
    wait_for_queries(batches)

    follower.forget(task_id)
    wait_until(lambda: not follower._updates._followed.is_set(), WIDE)
    quiet = len(batches.queries)
    batches.answers(task_id, 0)
    follower.follow(task_id)

    assert [listener.next_state(), listener.next_state()] == [("pending", 0), ("running", 1)]
    wait_for_queries(batches)
    assert all(look == {task_id} for look in batches.queries[quiet:])


def test_one_query_serves_all_followers(batches: RecordedBatches, follows: Callable[[Listener], Follower]) -> None:
    """Each query has all followed tasks, and each follower gets its own task's updates."""
    first, second = batches.adds(), batches.adds()
    listeners = [Listener(), Listener(), Listener()]
    for listener, task_id in zip(listeners, (first, second, second), strict=True):
        follows(listener).follow(task_id)
        assert listener.next_state() == ("pending", 0)
    wait_for_queries(batches)
    assert batches.queries[-1] == {first, second}

    batches.answers(second, 0)

    assert [listener.next_state() for listener in listeners[1:]] == [("running", 1)] * 2
    assert listeners[0].updates.empty()


def test_a_slow_follower_delays_no_other_and_gets_the_latest(
    batches: RecordedBatches, follows: Callable[[Listener], Follower]
) -> None:
    """Updates that a slow follower missed are skipped."""
    task_id = batches.adds("一", "二", "三", "四")
    slow, quick = Listener(), Listener()
    for listener in (slow, quick):
        follows(listener).follow(task_id)
        assert listener.next_state() == ("pending", 0)
    slow.reads.clear()

    for index in range(3):
        batches.answers(task_id, index)
        assert quick.next_state() == ("running", index + 1)
    slow.reads.set()

    states = [slow.next_state()]
    while states[-1] != ("running", 3):
        states.append(slow.next_state())
    assert len(states) <= 2


def test_a_task_of_another_owner_is_unknown(batches: RecordedBatches, follows: Callable[[Listener], Follower]) -> None:
    """Another owner's task is the same error as an unknown one; during an outage nothing is followed."""
    follower = follows(Listener())
    with pytest.raises(BatchUnknown):
        follower.follow(batches.adds(owner="user:other"))
    with pytest.raises(BatchUnknown):
        follower.follow("3f0c1c9e-5d5b-4c43-9d0a-2f6f6d1f2a34")
    batches.away = True
    with pytest.raises(StoreUnavailable):
        follower.follow("3f0c1c9e-5d5b-4c43-9d0a-2f6f6d1f2a34")

    assert follower.task_ids == ()


def test_followers_get_changes_after_an_outage(
    batches: RecordedBatches, follows: Callable[[Listener], Follower], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No update comes during an outage; the changes come after it."""
    monkeypatch.setattr("channels.realtime.task_updates.PAUSE", 0.01)
    listener, task_id = Listener(), batches.adds()
    follows(listener).follow(task_id)
    listener.next_state()
    batches.away = True
    wait_for_queries(batches)

    batches.away = False
    batches.answers(task_id, 0)

    assert listener.next_state() == ("running", 1)


def test_followers_of_a_removed_task_are_told_once(
    batches: RecordedBatches, follows: Callable[[Listener], Follower]
) -> None:
    """The callback gets None once, and the subscription ends."""
    listener, task_id = Listener(), batches.adds()
    follower = follows(listener)
    follower.follow(task_id)
    listener.next_state()

    batches.loses(task_id)

    assert listener.next_state() is None
    assert follower.task_ids == ()


def test_a_follower_that_has_ended_gets_no_updates(
    batches: RecordedBatches, follows: Callable[[Listener], Follower]
) -> None:
    """A callback that returns False is called no more: its socket is closing."""
    listener, task_id = Listener(), batches.adds()
    listener.open = False
    follower = follows(listener)

    follower.follow(task_id)

    listener.next_state()
    wait_until(lambda: follower not in follower._updates._followers, WIDE)


# The session


@pytest.fixture
def desk() -> Desk:
    return Desk()


def task_of(batches: RecordedBatches, task_id: str) -> Task:
    return batches.get(task_id, OWNER)


def test_a_subscription_is_acknowledged_and_then_reported(desk: Desk, batches: RecordedBatches) -> None:
    """R43: `progress` is a number, `counts` an object."""
    task_id = batches.adds("一", "二", "三")
    batches.answers(task_id, 0)

    acked = desk.sends({"type": "subscribe", "task_id": task_id})
    frames = desk.does(desk.session.progressed(task_of(batches, task_id)))

    assert acked == [{"type": "ack", "received_type": "subscribe", "session_id": "s1"}]
    counts = {"total": 3, "completed": 1, "failed": 0, "cancelled": 0, "running": 0, "pending": 2}
    assert frames == [
        {
            **{"type": "batch_progress", "task_id": task_id, "progress": 33.3, "status": "running"},
            **{"message": "已处理 1/3 个问题", "counts": counts, "timestamp": NOW, "session_id": "s1"},
        }
    ]


def test_a_failed_task_ends_with_an_error(desk: Desk, batches: RecordedBatches) -> None:
    """BATCH_TASK_FAILED follows the last progress; later updates are dropped."""
    task_id = batches.adds("一")
    batches.answers(task_id, 0, "failed")
    desk.sends({"type": "subscribe", "task_id": task_id})

    progress, error = desk.does(desk.session.progressed(task_of(batches, task_id)))

    assert (progress["status"], progress["progress"]) == ("failed", 100.0)
    assert (error["code"], error["task_id"]) == ("BATCH_TASK_FAILED", task_id)
    assert desk.session.progressed(task_of(batches, task_id)) == []


def test_tasks_without_a_subscription_are_not_reported(desk: Desk, batches: RecordedBatches) -> None:
    """Updates without a subscription are dropped, also those that were queued when it ended."""
    task_id = batches.adds()
    assert desk.session.progressed(task_of(batches, task_id)) == []
    desk.sends({"type": "subscribe", "task_id": task_id})

    desk.sends({"type": "unsubscribe", "task_id": task_id})

    assert desk.session.progressed(task_of(batches, task_id)) == []
    assert desk.session.unfollowed(task_id, "batch_task_not_found") == []


def test_a_subscription_belongs_to_the_connection(desk: Desk, batches: RecordedBatches) -> None:
    """It survives a new session, `stop` and a pause; its frames name the current session."""
    task_id = batches.adds()
    desk.sends({"type": "subscribe", "task_id": task_id})
    desk.controls("stop")
    desk.controls("pause", session_id="s2")

    (frame,) = desk.does(desk.session.progressed(task_of(batches, task_id)))

    assert (frame["type"], frame["session_id"]) == ("batch_progress", "s2")


def test_subscriptions_of_a_connection_are_limited(desk: Desk) -> None:
    """One more is rejected; subscribing again to a followed task is not."""
    for number in range(MOST_TASKS):
        assert len(desk.sends({"type": "subscribe", "task_id": f"t{number}"})) == 1

    (_, error) = desk.sends({"type": "subscribe", "task_id": "one-more"})

    assert (error["code"], error["task_id"]) == ("TOO_MANY_SUBSCRIPTIONS", "one-more")
    assert len(desk.sends({"type": "subscribe", "task_id": "t0"})) == 1
    desk.sends({"type": "unsubscribe", "task_id": "t0"})
    assert len(desk.sends({"type": "subscribe", "task_id": "one-more"})) == 1


# The channel


def endpoint_with(updates: TaskUpdates | None, socket: TestSocket) -> RealtimeChannel:
    return RealtimeChannel(
        socket,
        Caller(OWNER, "sealed-token"),
        "c1",
        gateway=TestGateway(),
        limiter=Limit(),
        options=options_for(detect),
        updates=updates,
    )


def sends(endpoint: RealtimeChannel, kind: str, task_id: str) -> None:
    endpoint.received(f'{{"type": "{kind}", "task_id": "{task_id}"}}')


def test_the_channel_reports_a_task_until_its_end(batches: RecordedBatches, updates: TaskUpdates) -> None:
    """The ack, the current state, the end; a subscription does not make the channel busy."""
    socket, task_id = TestSocket(), batches.adds("一")
    endpoint = endpoint_with(updates, socket)
    sends(endpoint, "subscribe", task_id)
    wait_until(lambda: len(socket.sent) == 2, WIDE)
    assert not endpoint.busy

    batches.answers(task_id, 0)

    wait_until(lambda: len(socket.sent) == 3, WIDE)
    assert [frame.get("status", frame["type"]) for frame in socket.sent] == ["ack", "pending", "completed"]
    endpoint.closed(Closed(1000, by_peer=True, clean=True))


@pytest.mark.parametrize(
    ("what", "code"),
    [("others", "BATCH_TASK_NOT_FOUND"), ("away", "SERVICE_UNAVAILABLE"), ("nothing", "UNSUPPORTED")],
)
def test_a_task_that_cannot_be_followed_is_named(
    what: str, code: str, batches: RecordedBatches, updates: TaskUpdates
) -> None:
    """Another owner's task, an outage, a service without batches: the error has its code and the task's id."""
    socket, task_id = TestSocket(), batches.adds(owner="user:other")
    batches.away = what == "away"
    endpoint = endpoint_with(None if what == "nothing" else updates, socket)

    sends(endpoint, "subscribe", task_id)
    sends(endpoint, "unsubscribe", task_id)

    assert [frame.get("code", frame["type"]) for frame in socket.sent] == ["ack", code, "ack"]
    assert socket.sent[1]["task_id"] == task_id
    endpoint.closed(Closed(1000, by_peer=True, clean=True))


def test_a_closed_socket_follows_no_tasks(batches: RecordedBatches, updates: TaskUpdates) -> None:
    """Closing the socket ends its subscriptions."""
    socket = TestSocket()
    endpoint = endpoint_with(updates, socket)
    sends(endpoint, "subscribe", batches.adds())
    wait_until(lambda: len(socket.sent) == 2, WIDE)

    endpoint.closed(Closed(1006, by_peer=False, clean=False))

    assert not updates._followers


def test_a_key_follows_its_tasks_in_mode_none(redis_url: str, tmp_path: Path) -> None:
    """With WEBSOCKET_AUTH=none a key in a header or from a page still identifies the owner of tasks."""
    own = {"WEBSOCKET_AUTH": "none", "API_KEYS": KEY, "DATABASE_PATH": str(tmp_path / "laibao.db")}
    with AppServer(redis_url, **own) as app_server:
        body, headers = {"name": "FAQ", "texts": ["营业时间"]}, {"Authorization": f"Bearer {KEY}"}
        reply = requests.post(f"{app_server.url}/api/batch/tasks", json=body, headers=headers, timeout=WIDE)
        subscription = {"type": "subscribe", "task_id": reply.json()["data"]["task_id"]}

        for by_page in (False, True):
            with visit(app_server.url, "realtime", key=KEY, by_page=by_page) as owner:
                owner.says(subscription)
                owner.until({"type": "batch_progress", "status": "completed"})
        with visit(app_server.url, "realtime") as anonymous:
            anonymous.says(subscription)
            anonymous.until({"type": "error", "code": "BATCH_TASK_NOT_FOUND"})


@pytest.mark.full
@pytest.mark.scenario
def test_a_task_is_followed_on_any_replica(redis_url: str, tmp_path: Path) -> None:
    """A task submitted to one replica is followed on another; every frame matches a published schema."""
    with MockDify(delay=0.02) as dify:
        own = {"DATABASE_PATH": str(tmp_path / "laibao.db"), "WEBSOCKET_AUTH": "none", "BATCH_MAX_CONCURRENT": "1"}
        env = settings_for(redis_url, **dify_settings(dify.base_url), **own)
        with replicas(2, env, tmp_path) as (one, other):
            body = {"name": "FAQ", "texts": ["营业时间"] * 8}
            reply = requests.post(f"{one.url}/api/batch/tasks", json=body, timeout=WIDE).json()
            task_id = reply["data"]["task_id"]
            with visit(other.url, "realtime") as client:
                client.says({"type": "subscribe", "task_id": task_id})
                client.until({"type": "batch_progress", "status": "completed"})
                client.says({"type": "subscribe", "task_id": "3f0c1c9e-5d5b-4c43-9d0a-2f6f6d1f2a34"})
                client.until({"type": "error", "code": "BATCH_TASK_NOT_FOUND"})

    frames = [frame for frame in client.frames if frame["type"] == "batch_progress"]
    assert frames[-1]["progress"] == 100.0
    assert frames[-1]["counts"] == {**dict.fromkeys(frames[0]["counts"], 0), "total": 8, "completed": 8}
    done = [frame["counts"]["completed"] for frame in frames]
    assert done == sorted(done)
    assert len(frames) >= 2
