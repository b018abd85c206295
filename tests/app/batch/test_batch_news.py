"""Batch tasks told on sockets: at once, when they change, to the end; one look for all, and nobody holds up others."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests

from channels.realtime.batch_news import BatchNews, Follower
from channels.realtime.channel import RealtimeChannel, RealtimeOptions
from channels.sockets.peer import Closed
from config.texts import Texts
from demo.mocks.dify.server import MockDify
from services.batches.records import Item, Task
from services.errors import BatchUnknown, StoreUnavailable
from services.identity.callers import Caller
from services.realtime.tasks import MOST_TASKS
from tests.app.channels.test_realtime import TestGateway, TestLimiter, TestSocket
from tests.support.batches.twin import BatchesTwin
from tests.support.replicas import AppServer, dify_settings, replicas, settings_for
from tests.support.servers.processes import wait_until
from tests.support.sockets.realtime_desk import NOW, Desk, detect
from tests.support.sockets.visitor import visit

#: Seconds in which something must have come: wide, for a busy machine.
WIDE = 30.0
OWNER = "user:E1001"
KEY = "not-a-real-key"


@dataclass
class Board(BatchesTwin):
    """Batches whose looks are counted."""

    looks: list[frozenset[str]] = field(default_factory=list)

    def look_up(self, task_ids: Collection[str]) -> list[Task]:
        self.looks.append(frozenset(task_ids))
        self._reach()
        return [self.get(task_id, self._tasks[task_id].owner) for task_id in task_ids if task_id in self._tasks]

    def adds(self, *texts: str, owner: str = OWNER) -> str:
        return self.submit(owner=owner, name="FAQ", texts=texts or ("一", "二"))[0].task_id

    def answers(self, task_id: str, index: int, status: Any = "completed") -> None:
        self.answer(task_id, Item(index, "x", status))

    def loses(self, task_id: str) -> None:
        del self._tasks[task_id]


class Ear:
    """Somebody who is told, and may be slow to listen."""

    def __init__(self) -> None:
        self.told: queue.Queue[tuple[str, Task | None]] = queue.Queue()
        self.listens = threading.Event()
        self.listens.set()
        self.here = True

    def __call__(self, task_id: str, task: Task | None) -> bool:
        assert self.listens.wait(WIDE)
        self.told.put((task_id, task))
        return self.here

    def hears(self) -> tuple[str, int] | None:
        """Return status and count of what is done of the next that is told."""
        _, task = self.told.get(timeout=WIDE)
        return (task.status, task.done) if task else None


@pytest.fixture
def board() -> Board:
    return Board()


@pytest.fixture
def news(board: Board) -> Iterator[BatchNews]:
    news = BatchNews(board, interval=0.01)
    news.start()
    yield news
    news.stop()


@pytest.fixture
def follows(news: BatchNews) -> Iterator[Callable[[Ear], Follower]]:
    """Make followers, all gone after the test."""
    made: list[Follower] = []

    def follow(ear: Ear) -> Follower:
        made.append(news.follower(OWNER, ear))
        return made[-1]

    yield follow
    for one in made:
        one.close()


def looked(board: Board, times: int = 2) -> None:
    """Wait until so many more looks are over."""
    before = len(board.looks)
    wait_until(lambda: len(board.looks) > before + times, WIDE)


# Following


def test_a_task_is_told_from_now_to_its_end(board: Board, follows: Callable[[Ear], Follower]) -> None:
    """At once, whenever its counts change and not in between, and its end is the last."""
    ear, task_id = Ear(), board.adds()
    follower = follows(ear)

    follower.follow(task_id)
    assert ear.hears() == ("pending", 0)
    looked(board)
    board.answers(task_id, 0)
    assert ear.hears() == ("running", 1)
    board.pause(task_id, OWNER)
    assert ear.hears() == ("paused", 1)
    board.answers(task_id, 1, "failed")

    assert ear.hears() == ("completed", 2)
    assert follower.task_ids == ()
    assert ear.told.empty()


def test_nobody_is_looked_after_who_follows_nothing(board: Board, follows: Callable[[Ear], Follower]) -> None:
    """No query before the first, none after the last, and again for the next."""
    follower = follows(ear := Ear())
    assert board.looks == []
    task_id = board.adds()
    follower.follow(task_id)
    looked(board)

    follower.forget(task_id)
    wait_until(lambda: not follower._news._wanted.is_set(), WIDE)
    quiet = len(board.looks)
    board.answers(task_id, 0)
    follower.follow(task_id)

    assert [ear.hears(), ear.hears()] == [("pending", 0), ("running", 1)]
    looked(board)
    assert all(look == {task_id} for look in board.looks[quiet:])


def test_one_look_is_for_all(board: Board, follows: Callable[[Ear], Follower]) -> None:
    """Two tasks, three who follow: both in each query, and each is told its own."""
    first, second = board.adds(), board.adds()
    ears = [Ear(), Ear(), Ear()]
    for ear, task_id in zip(ears, (first, second, second), strict=True):
        follows(ear).follow(task_id)
        assert ear.hears() == ("pending", 0)
    looked(board)
    assert board.looks[-1] == {first, second}

    board.answers(second, 0)

    assert [ear.hears() for ear in ears[1:]] == [("running", 1)] * 2
    assert ears[0].told.empty()


def test_a_slow_reader_holds_up_nobody_and_gets_the_latest(board: Board, follows: Callable[[Ear], Follower]) -> None:
    """What was between is not told."""
    task_id = board.adds("一", "二", "三", "四")
    slow, quick = Ear(), Ear()
    for ear in (slow, quick):
        follows(ear).follow(task_id)
        assert ear.hears() == ("pending", 0)
    slow.listens.clear()

    for index in range(3):
        board.answers(task_id, index)
        assert quick.hears() == ("running", index + 1)
    slow.listens.set()

    heard = [slow.hears()]
    while heard[-1] != ("running", 3):
        heard.append(slow.hears())
    assert len(heard) <= 2


def test_a_task_of_somebody_else_is_unknown(board: Board, follows: Callable[[Ear], Follower]) -> None:
    """As one that never was, and one whose owner is asked for while the database is away is nobody's."""
    follower = follows(Ear())
    with pytest.raises(BatchUnknown):
        follower.follow(board.adds(owner="user:other"))
    with pytest.raises(BatchUnknown):
        follower.follow("3f0c1c9e-5d5b-4c43-9d0a-2f6f6d1f2a34")
    board.away = True
    with pytest.raises(StoreUnavailable):
        follower.follow("3f0c1c9e-5d5b-4c43-9d0a-2f6f6d1f2a34")

    assert follower.task_ids == ()


def test_an_outage_is_waited_out(
    board: Board, follows: Callable[[Ear], Follower], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is told meanwhile, and what changed is told after it."""
    monkeypatch.setattr("channels.realtime.batch_news.PAUSE", 0.01)
    ear, task_id = Ear(), board.adds()
    follows(ear).follow(task_id)
    ear.hears()
    board.away = True
    looked(board)

    board.away = False
    board.answers(task_id, 0)

    assert ear.hears() == ("running", 1)


def test_a_task_that_is_removed_is_told_to_be_gone(board: Board, follows: Callable[[Ear], Follower]) -> None:
    """Once."""
    ear, task_id = Ear(), board.adds()
    follower = follows(ear)
    follower.follow(task_id)
    ear.hears()

    board.loses(task_id)

    assert ear.hears() is None
    assert follower.task_ids == ()


def test_whoever_does_not_listen_any_more_is_told_nothing(board: Board, follows: Callable[[Ear], Follower]) -> None:
    """The socket is closing: its subscriptions go with it."""
    ear, task_id = Ear(), board.adds()
    ear.here = False
    follower = follows(ear)

    follower.follow(task_id)

    ear.hears()
    wait_until(lambda: follower not in follower._news._followers, WIDE)


# The session


@pytest.fixture
def desk() -> Desk:
    return Desk()


def task_of(board: Board, task_id: str) -> Task:
    return board.get(task_id, OWNER)


def test_a_subscription_is_acknowledged_and_then_told(desk: Desk, board: Board) -> None:
    """R43: progress is a number, the counts are an object."""
    task_id = board.adds("一", "二", "三")
    board.answers(task_id, 0)

    acked = desk.sends({"type": "subscribe", "task_id": task_id})
    told = desk.does(desk.session.progressed(task_of(board, task_id)))

    assert acked == [{"type": "ack", "received_type": "subscribe", "session_id": "s1"}]
    counts = {"total": 3, "completed": 1, "failed": 0, "cancelled": 0, "running": 0, "pending": 2}
    assert told == [
        {
            **{"type": "batch_progress", "task_id": task_id, "progress": 33.3, "status": "running"},
            **{"message": "已处理 1/3 个问题", "counts": counts, "timestamp": NOW, "session_id": "s1"},
        }
    ]


def test_a_failed_task_ends_with_an_error(desk: Desk, board: Board) -> None:
    """BATCH_TASK_FAILED after its last progress; then nothing more of it."""
    task_id = board.adds("一")
    board.answers(task_id, 0, "failed")
    desk.sends({"type": "subscribe", "task_id": task_id})

    progress, error = desk.does(desk.session.progressed(task_of(board, task_id)))

    assert (progress["status"], progress["progress"]) == ("failed", 100.0)
    assert (error["code"], error["task_id"]) == ("BATCH_TASK_FAILED", task_id)
    assert desk.session.progressed(task_of(board, task_id)) == []


def test_what_is_not_subscribed_to_is_not_told(desk: Desk, board: Board) -> None:
    """Never asked for, or not any more: also what was on its way."""
    task_id = board.adds()
    assert desk.session.progressed(task_of(board, task_id)) == []
    desk.sends({"type": "subscribe", "task_id": task_id})

    desk.sends({"type": "unsubscribe", "task_id": task_id})

    assert desk.session.progressed(task_of(board, task_id)) == []
    assert desk.session.unfollowed(task_id, "batch_task_not_found") == []


def test_a_subscription_is_the_connections(desk: Desk, board: Board) -> None:
    """It outlives its session, `stop` and a pause; its frames have the session of the moment."""
    task_id = board.adds()
    desk.sends({"type": "subscribe", "task_id": task_id})
    desk.controls("stop")
    desk.controls("pause", session_id="s2")

    (frame,) = desk.does(desk.session.progressed(task_of(board, task_id)))

    assert (frame["type"], frame["session_id"]) == ("batch_progress", "s2")


def test_a_connection_follows_so_many_tasks(desk: Desk) -> None:
    """One more is refused; one of them may be said again."""
    for number in range(MOST_TASKS):
        assert len(desk.sends({"type": "subscribe", "task_id": f"t{number}"})) == 1

    (_, error) = desk.sends({"type": "subscribe", "task_id": "one-more"})

    assert (error["code"], error["task_id"]) == ("TOO_MANY_SUBSCRIPTIONS", "one-more")
    assert len(desk.sends({"type": "subscribe", "task_id": "t0"})) == 1
    desk.sends({"type": "unsubscribe", "task_id": "t0"})
    assert len(desk.sends({"type": "subscribe", "task_id": "one-more"})) == 1


# The endpoint


def endpoint_with(news: BatchNews | None, socket: TestSocket) -> RealtimeChannel:
    return RealtimeChannel(
        socket,
        Caller(OWNER, "sealed-token"),
        "c1",
        gateway=TestGateway(),
        limiter=TestLimiter(),
        options=RealtimeOptions(detect, Texts("zh")),
        news=news,
    )


def sends(endpoint: RealtimeChannel, kind: str, task_id: str) -> None:
    endpoint.received(f'{{"type": "{kind}", "task_id": "{task_id}"}}')


def test_a_task_goes_through_the_endpoint(board: Board, news: BatchNews) -> None:
    """The ack, how it is, its end; nothing after that, and no busy socket for it."""
    socket, task_id = TestSocket(), board.adds("一")
    endpoint = endpoint_with(news, socket)
    sends(endpoint, "subscribe", task_id)
    wait_until(lambda: len(socket.sent) == 2, WIDE)
    assert not endpoint.busy

    board.answers(task_id, 0)

    wait_until(lambda: len(socket.sent) == 3, WIDE)
    assert [frame.get("status", frame["type"]) for frame in socket.sent] == ["ack", "pending", "completed"]
    endpoint.closed(Closed(1000, by_peer=True, clean=True))


@pytest.mark.parametrize(
    ("what", "code"),
    [("others", "BATCH_TASK_NOT_FOUND"), ("away", "SERVICE_UNAVAILABLE"), ("nothing", "UNSUPPORTED")],
)
def test_what_cannot_be_followed_is_named(what: str, code: str, board: Board, news: BatchNews) -> None:
    """Another's task, an outage, a service without batches: the code and the task."""
    socket, task_id = TestSocket(), board.adds(owner="user:other")
    board.away = what == "away"
    endpoint = endpoint_with(None if what == "nothing" else news, socket)

    sends(endpoint, "subscribe", task_id)
    sends(endpoint, "unsubscribe", task_id)

    assert [frame.get("code", frame["type"]) for frame in socket.sent] == ["ack", code, "ack"]
    assert socket.sent[1]["task_id"] == task_id
    endpoint.closed(Closed(1000, by_peer=True, clean=True))


def test_a_socket_that_is_gone_is_followed_no_more(board: Board, news: BatchNews) -> None:
    """Its subscriptions end with it."""
    socket = TestSocket()
    endpoint = endpoint_with(news, socket)
    sends(endpoint, "subscribe", board.adds())
    wait_until(lambda: len(socket.sent) == 2, WIDE)

    endpoint.closed(Closed(1006, by_peer=False, clean=False))

    assert not news._followers


def test_a_key_follows_its_tasks_where_none_is_needed(redis_url: str, tmp_path: Path) -> None:
    """Under WEBSOCKET_AUTH=none a key shown in a header or by a page counts; without it the task is unknown."""
    own = {"WEBSOCKET_AUTH": "none", "API_KEYS": KEY, "DATABASE_PATH": str(tmp_path / "laibao.db")}
    with AppServer(redis_url, **own) as app_server:
        body, headers = {"name": "FAQ", "texts": ["营业时间"]}, {"Authorization": f"Bearer {KEY}"}
        reply = requests.post(f"{app_server.url}/api/batch/tasks", json=body, headers=headers, timeout=WIDE)
        subscription = {"type": "subscribe", "task_id": reply.json()["data"]["task_id"]}

        for by_page in (False, True):
            with visit(app_server.url, "realtime", key=KEY, by_page=by_page) as owner:
                owner.says(subscription)
                owner.until({"type": "batch_progress", "status": "completed"})
        with visit(app_server.url, "realtime") as nobody:
            nobody.says(subscription)
            nobody.until({"type": "error", "code": "BATCH_TASK_NOT_FOUND"})


@pytest.mark.full
@pytest.mark.scenario
def test_a_task_is_followed_at_any_replica(redis_url: str, tmp_path: Path) -> None:
    """Submitted at one, told at the other, from its start to its end; each frame is one of the published ones."""
    with MockDify(delay=0.02) as dify:
        own = {"DATABASE_PATH": str(tmp_path / "laibao.db"), "WEBSOCKET_AUTH": "none", "BATCH_MAX_CONCURRENT": "1"}
        env = settings_for(redis_url, **dify_settings(dify.base_url), **own)
        with replicas(2, env, tmp_path) as (one, other):
            body = {"name": "FAQ", "texts": ["营业时间"] * 8}
            reply = requests.post(f"{one.url}/api/batch/tasks", json=body, timeout=WIDE).json()
            task_id = reply["data"]["task_id"]
            with visit(other.url, "realtime") as visitor:
                visitor.says({"type": "subscribe", "task_id": task_id})
                visitor.until({"type": "batch_progress", "status": "completed"})
                visitor.says({"type": "subscribe", "task_id": "3f0c1c9e-5d5b-4c43-9d0a-2f6f6d1f2a34"})
                visitor.until({"type": "error", "code": "BATCH_TASK_NOT_FOUND"})

    told = [frame for frame in visitor.frames if frame["type"] == "batch_progress"]
    assert told[-1]["progress"] == 100.0
    assert told[-1]["counts"] == {**dict.fromkeys(told[0]["counts"], 0), "total": 8, "completed": 8}
    done = [frame["counts"]["completed"] for frame in told]
    assert done == sorted(done)
    assert len(told) >= 2
