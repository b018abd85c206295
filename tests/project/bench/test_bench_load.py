"""The load generator: each request is sent when it is due, each reply is counted once, and no fault goes unseen."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import TracebackType
from typing import Self

import pytest

from bench.load.generator import Job, LoadFailed, generator, send

pytestmark = pytest.mark.full

HEAD = b"HTTP/1.1 200 OK\r\nServer: gunicorn\r\nContent-Length: %d\r\n\r\n"


def reply(body: bytes) -> bytes:
    return HEAD % len(body) + body


def requests(count: int) -> list[bytes]:
    return [b"POST /%03d HTTP/1.1\r\nContent-Length: 0\r\n\r\n" % number for number in range(count)]


class Server:
    """Answers each request on a connection with the pieces that `answer` has for it; no pieces hang up."""

    def __init__(self, answer: Callable[[bytes], Iterator[bytes]]) -> None:
        self._answer = answer
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        #: Every request, as they came, and how many connections there were.
        self.seen: list[bytes] = []
        self.connections = 0

    def __enter__(self) -> Self:
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.connections += 1
                threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, connection: socket.socket) -> None:
        connection.settimeout(30.0)
        with suppress(OSError), connection:
            while request := connection.recv(4096):
                self.seen.append(request)
                pieces = list(self._answer(request))
                for piece in pieces:
                    connection.sendall(piece)
                    # The next one is a read of its own at the other end.
                    time.sleep(0.02 if len(pieces) > 1 else 0)
                if not pieces:
                    return


def echo(request: bytes) -> Iterator[bytes]:
    """Answer with the request's number."""
    yield reply(request[6:9])


def test_each_request_of_a_job_without_seconds_is_sent_once() -> None:
    """All are sent, none twice, and each reply is kept in its request's place."""
    with Server(echo) as server:
        outcome = send(Job(server.port, requests(20), connections=3, samples=20))

    assert sorted(server.seen) == requests(20)
    assert outcome.bodies == {number: b"%03d" % number for number in range(20)}
    assert len(outcome.delays) == 20
    assert server.connections == 3
    assert outcome.received == 20 * len(reply(b"000"))


def test_requests_begin_again_while_there_is_time() -> None:
    """A closed loop goes on for its seconds, whatever the number of requests; only first replies are samples."""
    with Server(echo) as server:
        outcome = send(Job(server.port, requests(2), 0.3, connections=2, samples=5))

    assert len(outcome.delays) == len(server.seen) > 2
    assert set(server.seen) == set(requests(2))
    assert outcome.bodies == {number: b"%03d" % (number % 2) for number in range(min(5, len(server.seen)))}
    assert outcome.seconds >= 0.3


def test_a_pace_is_kept() -> None:
    """So many requests as its seconds have room for are sent, none of them before it is due."""
    with Server(echo) as server:
        outcome = send(Job(server.port, requests(5), 0.5, connections=2, rate=20.0))

    assert len(outcome.delays) == 10
    assert outcome.seconds >= 9 / 20


def test_a_delay_counts_from_when_the_request_was_due() -> None:
    """A server that is behind is not asked less: who waits for a connection waits for the server."""

    def slow(request: bytes) -> Iterator[bytes]:
        time.sleep(0.05)
        yield reply(b"late")

    with Server(slow) as server:
        outcome = send(Job(server.port, requests(8), connections=1, rate=1000.0))

    assert outcome.delays[-1] >= 8 * 0.05 - 7 / 1000


def test_a_reply_in_pieces_is_one() -> None:
    """A cut in the head, or in the body, makes no reply of its own."""

    def drip(request: bytes) -> Iterator[bytes]:
        whole = reply(b"x" * 1000)
        yield from (whole[:12], whole[12:80], whole[80:500], whole[500:])

    with Server(drip) as server:
        outcome = send(Job(server.port, requests(2), connections=1, samples=2))

    assert outcome.bodies == {0: b"x" * 1000, 1: b"x" * 1000}


def test_a_request_that_is_hung_up_on_is_sent_again_and_counted() -> None:
    """The same request goes over a new connection; one reply is counted for it."""
    refused: list[bytes] = []

    def once(request: bytes) -> Iterator[bytes]:
        if request in refused:
            yield from echo(request)
        refused.append(request)

    with Server(once) as server:
        outcome = send(Job(server.port, requests(3), connections=1, samples=3))

    assert outcome.reconnects == 3
    assert outcome.bodies == {0: b"000", 1: b"001", 2: b"002"}
    assert len(outcome.delays) == 3


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 2\r\n\r\nno", "500 Internal"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "without a length"),
        (b"", "keeps hanging up"),
    ],
)
def test_a_reply_that_does_not_count_fails_the_job(answer: bytes, words: str) -> None:
    """Neither errors nor replies whose end nobody knows become a fast server's figures."""
    with Server(lambda request: iter([answer] if answer else [])) as server, pytest.raises(LoadFailed, match=words):
        send(Job(server.port, requests(4), connections=2))


def test_a_server_that_says_nothing_fails_the_job() -> None:
    """A request without a reply is waited for as long as the job has patience."""
    hold = threading.Event()

    def silent(request: bytes) -> Iterator[bytes]:
        hold.wait(30.0)
        yield reply(b"too late")

    with Server(silent) as server, pytest.raises(LoadFailed, match="no reply"):
        send(Job(server.port, requests(2), connections=1, patience=0.1))
    hold.set()


def test_connections_stay_open_from_job_to_job() -> None:
    """Rounds in turns cost no server a new connection."""
    with Server(echo) as server, generator() as load:
        first = load.run(Job(server.port, requests(6), connections=2, samples=6))
        again = load.run(Job(server.port, requests(6), connections=2, samples=6))

    assert first.bodies == again.bodies == {number: b"%03d" % number for number in range(6)}
    assert server.connections == 2


def test_a_failed_job_does_not_spoil_the_next() -> None:
    """The process says what failed and goes on, with new connections."""
    answers = iter([b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"])

    with Server(lambda request: iter([next(answers, reply(b"fine"))])) as server, generator() as load:
        with pytest.raises(LoadFailed, match="503 Busy"):
            load.run(Job(server.port, requests(1), connections=1))
        outcome = load.run(Job(server.port, requests(1), connections=1, samples=1))

    assert outcome.bodies == {0: b"fine"}
