"""Request bodies with a time limit, and error replies to malformed HTTP."""

from __future__ import annotations

import io
import json
import socket
from typing import Any

import gevent
import pytest
from gunicorn.http import errors

from server.requests import BODY_RATE, BodyBroken, BodyTooSlow, BoundedBody, refuse, status_of
from services import metrics
from tests.support.servers.processes import FakeClock


class Drip:
    """A body that returns one byte every `pause` seconds, `count` bytes in total; each moves the clock by 3 s."""

    def __init__(self, pause: float, count: int = 1000) -> None:
        self._pause = pause
        self._left = count
        self.clock = FakeClock()

    def read(self, size: int | None = None) -> bytes:
        gevent.sleep(self._pause)
        self.clock.advance(3.0)
        self._left -= 1
        return b"x" if self._left >= 0 else b""

    def readline(self, size: int | None = None) -> bytes:
        return self.read(size)


def test_a_body_is_read_as_it_was_sent() -> None:
    """It may be read at once, in parts, or by lines."""
    content = b"one\ntwo\n" + bytes(3 * BODY_RATE)

    assert BoundedBody(io.BytesIO(content)).read() == content
    assert BoundedBody(io.BytesIO(content)).read(len(content) + 7) == content
    assert BoundedBody(io.BytesIO(b"one\ntwo\nthree")).readlines() == [b"one\n", b"two\n", b"three"]
    body = BoundedBody(io.BytesIO(content))
    assert (body.read(3), body.readline(), body.read(4), body.read(0)) == (b"one", b"\n", b"two\n", b"")


@pytest.mark.parametrize("read", ["read", "readlines"])
def test_a_body_that_arrives_too_slowly_times_out(read: str) -> None:
    """The limit is for all reads together, not for a single pause."""
    body = Drip(0.01)

    with pytest.raises(BodyTooSlow):
        getattr(BoundedBody(body, seconds=20.0, clock=body.clock), read)()


def test_a_silent_body_times_out_during_a_read() -> None:
    """A blocked read is interrupted."""
    with gevent.Timeout(20.0), pytest.raises(BodyTooSlow):
        BoundedBody(Drip(60.0), seconds=0.05).read(10)


def test_received_bytes_extend_the_time_of_a_body() -> None:
    """Each `rate` bytes received add a second to the limit: at four seconds for each, 30 s are allowed."""
    body = Drip(0.01, count=10)

    assert BoundedBody(body, seconds=20.0, rate=0.25, clock=body.clock).read() == b"x" * 10


class Withheld:
    """A body of which all but the last byte arrives at once; every further read takes 3 s, and returns nothing new."""

    def __init__(self, size: int) -> None:
        self._left = size - 1
        self.clock = FakeClock()

    def read(self, size: int) -> bytes:
        if not self._left:
            self.clock.advance(3.0)
            return b"x"
        taken = min(size, self._left)
        self._left -= taken
        return bytes(taken)


def test_a_withheld_byte_ends_the_largest_body_within_two_minutes() -> None:
    """30 s, and a second for each 512 KiB that have arrived; the refusal is counted."""
    body = Withheld(31_000_000)
    slow = metrics.CONNECTIONS_REFUSED.labels("slow")._value
    before, began = slow.get(), body.clock()

    with pytest.raises(BodyTooSlow):
        BoundedBody(body, clock=body.clock).read()

    assert 90.0 <= body.clock() - began <= 93.0
    assert slow.get() == before + 1


class Malformed(io.BytesIO):
    """A body in which the parser finds an error."""

    failed = True

    def read(self, size: int | None = None) -> bytes:
        raise errors.InvalidChunkSize(b"secret")

    readline = read


@pytest.mark.parametrize("read", ["read", "readline", "readlines"])
def test_a_malformed_body_raises_body_broken(read: str, caplog: pytest.LogCaptureFixture) -> None:
    """One line logs the kind of error without its text; `failed` stops the reuse of the connection."""
    body = BoundedBody(Malformed())

    with pytest.raises(BodyBroken):
        getattr(body, read)()

    assert body.failed
    logged = [record for record in caplog.records if record.name == "server.requests"]
    assert [vars(record)["cause"] for record in logged] == ["InvalidChunkSize"]
    assert "secret" not in caplog.text


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.InvalidRequestLine("GET /?key=secret"), 400),
        (errors.InvalidHeader("Authorization: Bearer secret"), 400),
        (errors.LimitRequestLine(5000, 4094), 414),
        (errors.LimitRequestHeaders("secret"), 431),
        (errors.ExpectationFailed("secret"), 417),
        (errors.UnsupportedTransferCoding("secret"), 501),
        (errors.InvalidResponseHeader("secret"), 500),
        (ValueError("secret"), 500),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
def test_an_unreadable_request_gets_a_rest_error(
    error: Exception, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    """The parser's message, which may quote a secret, is neither in the reply nor, with 4xx, in the log."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        refuse(ours, error)
        ours.shutdown(socket.SHUT_WR)
        head, _, body = theirs.makefile("rb").read().partition(b"\r\n\r\n")

    assert status_of(error) == status
    assert head.startswith(f"HTTP/1.1 {status} ".encode())
    assert b"Connection: close" in head
    reply: dict[str, Any] = json.loads(body)
    assert set(reply) == {"code", "message", "data"}
    assert b"secret" not in body
    assert status == 500 or "secret" not in caplog.text
