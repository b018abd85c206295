"""The load generator: requests are sent when they are due, replies are counted once, and a wrong reply fails."""

from __future__ import annotations

import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from bench.load.generator import Generator, Job, LoadFailed, Outcome

pytestmark = pytest.mark.full

HEAD = b"HTTP/1.1 200 OK\r\nServer: gunicorn\r\nContent-Length: %d\r\n\r\n"


def reply(body: bytes) -> bytes:
    return HEAD % len(body) + body


def requests(count: int) -> list[bytes]:
    return [b"POST /%03d HTTP/1.1\r\nContent-Length: 0\r\n\r\n" % number for number in range(count)]


def send(job: Job) -> Outcome:
    with Generator() as load:
        return load.run(job)


class Server(socketserver.ThreadingTCPServer):
    """Answers each request with the pieces that `answer` yields for it; without pieces it closes the connection."""

    daemon_threads, block_on_close, request_queue_size = True, False, 64

    def __init__(self, answer: Callable[[bytes], Iterator[bytes]]) -> None:
        super().__init__(("127.0.0.1", 0), socketserver.BaseRequestHandler)
        self._answer = answer
        self.port: int = self.server_address[1]
        #: The requests in the order of arrival, and the number of connections.
        self.received: list[bytes] = []
        self.connections = 0
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def finish_request(self, request: Any, client_address: Any) -> None:
        self.connections += 1
        with suppress(OSError):
            while received := request.recv(4096):
                self.received.append(received)
                pieces = list(self._answer(received))
                for piece in pieces:
                    request.sendall(piece)
                    # So that the other end reads each piece separately.
                    time.sleep(0.02 if len(pieces) > 1 else 0)
                if not pieces:
                    return

    def server_close(self) -> None:
        self.shutdown()
        super().server_close()


def echo(request: bytes) -> Iterator[bytes]:
    """Answer with the request's number."""
    yield reply(request[6:9])


def test_each_request_of_a_job_without_seconds_is_sent_once() -> None:
    """Every request is sent once, and each reply is stored under its request's index."""
    with Server(echo) as server:
        outcome = send(Job([server.port], requests(20), connections=3, samples=20))

    assert sorted(server.received) == requests(20)
    assert outcome.bodies == {number: b"%03d" % number for number in range(20)}
    assert len(outcome.delays) == 20
    assert server.connections == 3
    assert outcome.received == 20 * len(reply(b"000"))


def test_requests_are_repeated_for_the_seconds_of_the_job() -> None:
    """The requests are sent in a loop until the seconds are over; only first replies are samples."""
    with Server(echo) as server:
        outcome = send(Job([server.port], requests(2), 0.3, connections=2, samples=5))

    assert len(outcome.delays) == len(server.received) > 2
    assert set(server.received) == set(requests(2))
    assert outcome.bodies == {number: b"%03d" % (number % 2) for number in range(min(5, len(server.received)))}
    assert outcome.seconds >= 0.3


def test_a_rate_is_kept() -> None:
    """Twenty a second for half a second are ten requests, none of them sent before it is due."""
    with Server(echo) as server:
        outcome = send(Job([server.port], requests(5), 0.5, connections=2, rate=20.0))

    assert len(outcome.delays) == 10
    assert outcome.seconds >= 9 / 20


def test_a_delay_counts_from_the_due_time() -> None:
    """With a slow server, the delay includes the time a request waits for a connection."""

    def slow(request: bytes) -> Iterator[bytes]:
        time.sleep(0.05)
        yield reply(b"late")

    with Server(slow) as server:
        outcome = send(Job([server.port], requests(8), connections=1, rate=1000.0))

    assert outcome.delays[-1] >= 8 * 0.05 - 7 / 1000


def test_a_reply_in_pieces_is_one_reply() -> None:
    """A reply that arrives in several reads, cut in its head or its body, counts once."""

    def drip(request: bytes) -> Iterator[bytes]:
        whole = reply(b"x" * 1000)
        yield from (whole[:12], whole[12:80], whole[80:500], whole[500:])

    with Server(drip) as server:
        outcome = send(Job([server.port], requests(2), connections=1, samples=2))

    assert outcome.bodies == {0: b"x" * 1000, 1: b"x" * 1000}


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 2\r\n\r\nno", "500 Internal"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "without a length"),
        (b"", "closed a connection"),
    ],
)
def test_a_wrong_reply_fails_the_job(answer: bytes, words: str) -> None:
    """A status other than 200, a reply without a length and a closed connection raise an error."""
    with Server(lambda request: iter([answer] if answer else [])) as server, pytest.raises(LoadFailed, match=words):
        send(Job([server.port], requests(4), connections=2))


def test_a_job_without_replies_fails() -> None:
    """If no reply arrives within the job's timeout, the job fails."""
    hold = threading.Event()

    def silent(request: bytes) -> Iterator[bytes]:
        hold.wait(30.0)
        yield reply(b"too late")

    with Server(silent) as server, pytest.raises(LoadFailed, match="no reply"):
        send(Job([server.port], requests(2), connections=1, timeout=0.1))
    hold.set()


def test_connections_stay_open_from_job_to_job() -> None:
    """The second job uses the connections of the first."""
    with Server(echo) as server, Generator() as load:
        first = load.run(Job([server.port], requests(6), connections=2, samples=6))
        again = load.run(Job([server.port], requests(6), connections=2, samples=6))

    assert first.bodies == again.bodies == {number: b"%03d" % number for number in range(6)}
    assert server.connections == 2


def test_the_job_after_a_failed_one_has_new_connections() -> None:
    """A failed job closes its connections; the next job to the same server succeeds."""
    answers = iter([b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"])

    with Server(lambda request: iter([next(answers, reply(b"fine"))])) as server, Generator() as load:
        with pytest.raises(LoadFailed, match="503 Busy"):
            load.run(Job([server.port], requests(1), connections=1))
        outcome = load.run(Job([server.port], requests(1), connections=1, samples=1))

    assert outcome.bodies == {0: b"fine"}


def test_connections_are_spread_over_ports() -> None:
    """A job for two servers sends half of its requests to each, where each reply comes before the next request."""
    with Server(echo) as one, Server(echo) as two:
        outcome = send(Job([one.port, two.port], requests(8), connections=2, rate=5.0))

    assert len(outcome.delays) == 8
    assert (len(one.received), len(two.received), one.connections, two.connections) == (4, 4, 2, 2)
