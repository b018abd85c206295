"""Requests that wait for an answer: reading a scripted stream, the comments they send, and their end."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from itertools import islice
from typing import Any

import pytest

from channels.following import AnswerWait, Ended, WaitStep
from channels.http_chat.replies import PING, PING_SECONDS, EventStream
from channels.waiting.connection import ClientConnection
from channels.waiting.requests import WaitingRequests
from config.texts import Texts
from services import metrics
from services.errors import StoreUnavailable, StreamUnknown
from services.streams.following import Update
from services.streams.long_text import FullAnswer
from tests.app.channels.test_chat import ended, grown
from tests.support.servers.processes import FakeClock, wait_until

WHOLE = FullAnswer("答案", "completed")


class Script:
    """A stream that returns the given updates one by one, None for a timeout without one, and then only timeouts."""

    def __init__(self, clock: FakeClock, *coming: Update | Exception | None, wholes: tuple[Any, ...] = ()) -> None:
        self._clock = clock
        self._coming = iter(coming)
        self._wholes = iter(wholes)

    def next(self, timeout: float) -> Update | None:
        one = next(self._coming, None)
        if one is None:
            self._clock.now += timeout
        if isinstance(one, Exception):
            raise one
        return one

    def full_answer(self) -> FullAnswer:
        one = next(self._wholes, WHOLE)
        if isinstance(one, Exception):
            raise one
        assert isinstance(one, FullAnswer)
        return one


class World:
    """A fake clock, and a replica that stops when `leaving` is set."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.began = self.clock()
        self.leaving = False
        self.slept = 0.0

    def wait(self, *coming: Update | Exception | None, wholes: tuple[Any, ...] = ()) -> AnswerWait:
        script = Script(self.clock, *coming, wholes=wholes)
        return AnswerWait(script, leaving=lambda: self.leaving, timeout=100.0, clock=self.clock, sleep=self.sleep)

    @property
    def seconds(self) -> float:
        """Seconds since the test began."""
        return self.clock() - self.began

    def sleep(self, seconds: float) -> None:
        self.slept += seconds
        self.clock.now += seconds

    def stream(self, wait: AnswerWait, connection: ClientConnection | None = None) -> Iterator[bytes]:
        return iter(EventStream("s1", 0, wait, connection or ClientConnection({}), Texts("zh"), clock=self.clock))


@pytest.fixture
def world() -> World:
    return World()


def steps_of(wait: AnswerWait) -> list[WaitStep]:
    return list(wait.steps())


# Following a stream


def test_a_wait_yields_all_news_and_then_the_end(world: World) -> None:
    """News come in order, once each, with None for silence, whether `begin` was called before or not."""
    coming = (grown(1, "答"), None, grown(2, "案"), ended(3, sentence="words"))
    expected = [*coming, Ended(WHOLE, "words")]

    begun = world.wait(*coming)
    begun.begin()

    assert steps_of(begun) == expected
    assert steps_of(world.wait(*coming)) == [None, *expected]


def test_an_unknown_stream_is_an_error_at_once(world: World) -> None:
    """`begin` raises the error, before the reply starts."""
    with pytest.raises(StreamUnknown):
        world.wait(None, None, StreamUnknown("s1")).begin()


def test_the_first_read_has_a_timeout(world: World) -> None:
    """If Redis is down the reply starts after the 8 s given to `begin`; updates follow when they come."""
    wait = world.wait(*[None] * 20, grown(1, "答"), ended(2))

    wait.begin(8.0)

    assert world.seconds == 8.0
    assert steps_of(wait)[-3:] == [grown(1, "答"), ended(2), Ended(WHOLE)]


def test_a_wait_without_news_has_a_timeout(world: World) -> None:
    """The timeout counts from the last update."""
    wait = world.wait(*[None] * 90, grown(1, "答"))

    with pytest.raises(StoreUnavailable) as caught:
        steps_of(wait)

    assert caught.value.code == "service_unavailable"
    assert 190.0 <= world.seconds <= 193.0


def test_the_whole_answer_is_waited_for(world: World) -> None:
    """Redis may be down at that moment: it is read again, until the same timeout as that of missing updates."""
    wait = world.wait(ended(1), wholes=(StoreUnavailable(), StoreUnavailable(), WHOLE))

    assert steps_of(wait) == [None, ended(1), None, None, Ended(WHOLE)]
    assert world.slept > 0
    with pytest.raises(StoreUnavailable):
        steps_of(world.wait(ended(1), wholes=(StoreUnavailable(),) * 1000))


def test_a_leaving_replica_ends_the_wait(world: World) -> None:
    """During the answer, and between its end and the reading of the whole text."""
    steps = world.wait(grown(1, "答"), grown(2, "案")).steps()
    assert list(islice(steps, 2)) == [None, grown(1, "答")]
    world.leaving = True
    assert list(steps) == []

    world.leaving = False
    steps = world.wait(ended(1)).steps()
    assert list(islice(steps, 2)) == [None, ended(1)]
    world.leaving = True
    assert list(steps) == []


# Comments during silence


def test_silence_is_broken_by_comments(world: World) -> None:
    """A comment every 15 seconds, counted from the last piece that was sent."""
    stream = world.stream(world.wait(*[None] * 20, grown(1, "答"), *[None] * 31, ended(2)))

    sent_pieces = [piece for piece in stream if piece]

    assert [piece == PING for piece in sent_pieces] == [False, True, False, True, True, False]
    assert PING_SECONDS == 15.0


def test_a_closed_connection_ends_the_reply(world: World) -> None:
    """A closed connection is noticed while nothing is sent, and ends the reply within 5 s."""
    ours, theirs = socket.socketpair()
    with ours:
        connection = ClientConnection({"werkzeug.socket": ours})
        stream = world.stream(world.wait(grown(1, "答"), *[None] * 50), connection)
        assert not connection.gone
        assert not ClientConnection({}).gone
        theirs.sendall(b"GET /next HTTP/1.1\r\n")
        assert not connection.gone
        assert b"start" in next(stream)
        theirs.close()
        ours.recv(100)

        assert connection.gone
        assert all(PING not in piece for piece in stream)
        assert world.seconds < 5.0


# Slots


def test_slots_are_bounded_and_counted() -> None:
    """At most `most` requests wait, and metrics report the number and the limit."""
    waits = WaitingRequests(most=2)
    before, most = sample("wechatlaibao_http_waits"), sample("wechatlaibao_http_waits_max")
    waits.start()

    assert [waits.enter() for _ in range(3)] == [True, True, False]

    assert sample("wechatlaibao_http_waits") == before + 2
    assert sample("wechatlaibao_http_waits_max") == most + 2
    waits.exit()
    assert waits.enter()
    waits.exit()
    waits.exit()
    assert sample("wechatlaibao_http_waits") == before


def test_close_all_waits_for_the_last_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """`close_all` ends the waiting requests and waits for them; `leave` alone ends none."""
    monkeypatch.setattr("channels.waiting.requests.SHOWN_SECONDS", 0.05)
    monkeypatch.setattr("channels.waiting.requests.LAST_SECONDS", 30.0)
    waits = WaitingRequests()
    wait = waits.along(Endless())
    waits.enter()
    gone = threading.Event()

    def follows() -> None:
        list(wait.steps())
        waits.exit()
        gone.set()

    threading.Thread(target=follows, daemon=True).start()
    waits.leave()
    assert not gone.is_set()
    waits.close_all()

    assert waits.count == 0
    wait_until(gone.is_set)
    waits.stop()


def test_an_answer_that_has_just_ended_is_given_before_its_request_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last streams of a replica may end a moment before their clients have the end."""
    monkeypatch.setattr("channels.waiting.requests.SHOWN_SECONDS", 30.0)
    waits = WaitingRequests()
    steps = waits.along(Endless()).steps()
    waits.enter()
    closing = threading.Thread(target=waits.close_all, daemon=True)

    closing.start()
    assert [next(steps) for _ in range(20)] == [None] * 20
    waits.exit()
    closing.join(30)

    assert waits.count == 0


class Endless:
    """A stream that never has updates."""

    def next(self, timeout: float) -> Update | None:
        time.sleep(0.01)
        return None

    def full_answer(self) -> FullAnswer:
        raise NotImplementedError


def sample(name: str) -> float:
    return metrics.REGISTRY.get_sample_value(name) or 0.0
