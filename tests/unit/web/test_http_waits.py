"""Requests that wait for an answer: their way along a stream that says what the test says, and their end."""

from __future__ import annotations

import errno
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from typing import Any

import pytest

from channels.http_chat.line import PIECE_BYTES, ClientConnection
from channels.http_chat.stream import PING, PING_SECONDS, EventStream
from channels.http_chat.waits import AnswerWait, Ended, WaitingRequests, WaitStep
from config.texts import Texts
from services import metrics
from services.errors import StoreUnavailable, StreamUnknown
from services.streams.following import News
from services.streams.records import Whole
from tests.app.channels.test_chat import ended, grown
from tests.support.servers.processes import FakeClock, wait_until

WHOLE = Whole("答案", "completed")


class Script:
    """A stream that says one thing after the other, None for nothing within the time; after that nothing any more."""

    def __init__(self, clock: FakeClock, *coming: News | Exception | None, wholes: tuple[Any, ...] = ()) -> None:
        self._clock = clock
        self._coming = iter(coming)
        self._wholes = iter(wholes)

    def next(self, timeout: float) -> News | None:
        one = next(self._coming, None)
        if one is None:
            self._clock.now += timeout
        if isinstance(one, Exception):
            raise one
        return one

    def whole(self) -> Whole:
        one = next(self._wholes, WHOLE)
        if isinstance(one, Exception):
            raise one
        assert isinstance(one, Whole)
        return one


class World:
    """A clock, and a replica that leaves when the test says so."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.began = self.clock()
        self.leaving = False
        self.slept = 0.0

    def wait(self, *coming: News | Exception | None, wholes: tuple[Any, ...] = ()) -> AnswerWait:
        script = Script(self.clock, *coming, wholes=wholes)
        return AnswerWait(script, leaving=lambda: self.leaving, timeout=100.0, clock=self.clock, sleep=self.sleep)

    @property
    def seconds(self) -> float:
        """How many have passed."""
        return self.clock() - self.began

    def sleep(self, seconds: float) -> None:
        self.slept += seconds
        self.clock.now += seconds

    def stream(self, wait: AnswerWait, line: ClientConnection | None = None) -> Iterator[bytes]:
        return iter(EventStream("s1", 0, wait, line or ClientConnection({}), Texts("zh"), clock=self.clock))


@pytest.fixture
def world() -> World:
    return World()


def told(wait: AnswerWait) -> list[WaitStep]:
    return list(wait.steps())


# The way along a stream


def test_all_news_are_told_and_then_the_end(world: World) -> None:
    """In their order, silence included, each once, whether it was looked at beforehand or not."""
    coming = (grown(1, "答"), None, grown(2, "案"), ended(3, sentence="words"))
    expected = [*coming, Ended(WHOLE, "words")]

    looked = world.wait(*coming)
    looked.begin()

    assert told(looked) == expected
    assert told(world.wait(*coming)) == [None, *expected]


def test_what_nobody_may_see_is_told_at_once(world: World) -> None:
    """Before there is a reply."""
    with pytest.raises(StreamUnknown):
        world.wait(None, None, StreamUnknown("s1")).begin()


def test_the_first_look_has_an_end(world: World) -> None:
    """While Redis is away the reply begins after some seconds, and what there is comes later."""
    wait = world.wait(*[None] * 20, grown(1, "答"), ended(2))

    wait.begin(8.0)

    assert world.seconds == 8.0
    assert told(wait)[-3:] == [grown(1, "答"), ended(2), Ended(WHOLE)]


def test_without_any_news_nobody_waits_for_ever(world: World) -> None:
    """The patience counts from the last news on."""
    wait = world.wait(*[None] * 90, grown(1, "答"))

    with pytest.raises(StoreUnavailable) as caught:
        told(wait)

    assert caught.value.code == "service_unavailable"
    assert 190.0 <= world.seconds <= 193.0


def test_the_whole_answer_is_waited_for(world: World) -> None:
    """Redis may be away just then."""
    wait = world.wait(ended(1), wholes=(StoreUnavailable(), StoreUnavailable(), WHOLE))

    assert told(wait) == [None, ended(1), None, None, Ended(WHOLE)]
    assert world.slept > 0


def test_a_whole_that_never_comes_is_given_up(world: World) -> None:
    """After the same patience."""
    with pytest.raises(StoreUnavailable):
        told(world.wait(ended(1), wholes=(StoreUnavailable(),) * 1000))


def test_a_leaving_replica_ends_the_way(world: World) -> None:
    """In mid-answer, and also between its end and its whole."""
    steps = world.wait(grown(1, "答"), grown(2, "案")).steps()
    assert list(islice(steps, 2)) == [None, grown(1, "答")]
    world.leaving = True
    assert list(steps) == []

    world.leaving = False
    steps = world.wait(ended(1)).steps()
    assert list(islice(steps, 2)) == [None, ended(1)]
    world.leaving = True
    assert list(steps) == []


# Signs of life


def test_silence_is_broken_by_comments(world: World) -> None:
    """Every 15 seconds, counted from whatever was said last."""
    stream = world.stream(world.wait(*[None] * 20, grown(1, "答"), *[None] * 31, ended(2)))

    said = [piece for piece in stream if piece]

    assert [piece == PING for piece in said] == [False, True, False, True, True, False]
    assert PING_SECONDS == 15.0


def test_nothing_is_said_to_who_has_gone(world: World) -> None:
    """A client's end is seen while nothing is sent; the reply ends there, and its place is free."""
    ours, theirs = socket.socketpair()
    with ours:
        line = ClientConnection({"werkzeug.socket": ours})
        stream = world.stream(world.wait(grown(1, "答"), *[None] * 50), line)
        assert not line.gone
        theirs.sendall(b"GET /next HTTP/1.1\r\n")
        assert not line.gone
        assert b"start" in next(stream)
        theirs.close()
        ours.recv(100)

        assert line.gone
        assert all(PING not in piece for piece in stream)
        assert world.seconds < 5.0


# Readers


def test_a_reader_that_stops_gets_no_more_than_its_connection_holds() -> None:
    """What was not read waits at its source, not in memory; who reads nothing for too long is cut off."""
    ours, theirs = pair(8 * 1024)
    ours.setblocking(False)
    sent: list[int] = []

    def sends(line: ClientConnection) -> None:
        for piece in line.paced(b"x" * 50_000_000):
            # Never more than can be sent without waiting.
            sent.append(ours.send(piece))
            assert sent[-1] == len(piece) <= PIECE_BYTES

    with ours, theirs:
        with pytest.raises(BrokenPipeError) as caught:
            sends(ClientConnection({"gunicorn.socket": ours}, send_seconds=0.3))

        assert caught.value.errno == errno.EPIPE
        assert sum(sent) < 2_000_000
        assert drained(theirs) == sum(sent)


def test_a_reader_that_is_slow_gets_everything() -> None:
    """As long as it reads at all."""
    ours, theirs = pair(8 * 1024)
    data = bytes(range(256)) * 8000
    got: list[bytes] = []

    def reads() -> None:
        with suppress(OSError):
            while piece := theirs.recv(4096):
                got.append(piece)

    with ours, theirs:
        reader = threading.Thread(target=reads, daemon=True)
        reader.start()
        for piece in ClientConnection({"gunicorn.socket": ours}, send_seconds=20.0).paced(data):
            ours.sendall(piece)
        ours.shutdown(socket.SHUT_WR)
        reader.join(20.0)

    assert b"".join(got) == data


def test_where_the_server_shows_no_connection_all_is_sent() -> None:
    """As under a test's client."""
    line = ClientConnection({})

    assert b"".join(line.paced(b"x" * 100_000)) == b"x" * 100_000
    assert not line.gone


def pair(window: int) -> tuple[socket.socket, socket.socket]:
    """Return two ends of a TCP connection; the second takes so much into its kernel."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        theirs = socket.socket()
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
        theirs.connect(server.getsockname())
        return server.accept()[0], theirs


def drained(sock: socket.socket) -> int:
    return sum(len(piece) for piece in iter(lambda: sock.recv(65536), b""))


# Places


def test_places_are_bounded_and_counted() -> None:
    """So many and no more, and metrics say how many."""
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


def test_closing_waits_for_the_last_to_go() -> None:
    """Those who wait hear of it, and are seen off; leaving alone ends nobody."""
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


class Endless:
    """A stream of which nothing is heard."""

    def next(self, timeout: float) -> News | None:
        time.sleep(0.01)
        return None

    def whole(self) -> Whole:
        raise NotImplementedError


def sample(name: str) -> float:
    return metrics.REGISTRY.get_sample_value(name) or 0.0
