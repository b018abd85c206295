"""Bodies that never end, and what is no HTTP: each has its bound and its answer."""

from __future__ import annotations

import io
import json
import socket
from typing import Any

import gevent
import pytest
from gunicorn.http import errors

from server.requests import BODY_RATE, BodyBroken, BodyTooSlow, BoundedBody, refuse, status_of


class Drip:
    """A body of which a byte comes now and then."""

    def __init__(self, pause: float, count: int = 1000) -> None:
        self._pause = pause
        self._left = count

    def read(self, size: int | None = None) -> bytes:
        gevent.sleep(self._pause)
        self._left -= 1
        return b"x" if self._left >= 0 else b""

    def readline(self, size: int | None = None) -> bytes:
        return self.read(size)


def test_a_body_is_what_was_sent() -> None:
    """However it is read: at once, in parts, by lines."""
    content = b"one\ntwo\n" + bytes(3 * BODY_RATE)

    assert BoundedBody(io.BytesIO(content)).read() == content
    assert BoundedBody(io.BytesIO(content)).read(len(content) + 7) == content
    assert BoundedBody(io.BytesIO(b"one\ntwo\nthree")).readlines() == [b"one\n", b"two\n", b"three"]
    body = BoundedBody(io.BytesIO(content))
    assert (body.read(3), body.readline(), body.read(4), body.read(0)) == (b"one", b"\n", b"two\n", b"")


@pytest.mark.parametrize("read", ["read", "readlines"])
def test_a_body_that_drips_is_given_up(read: str) -> None:
    """No single pause is too long; all of them together are."""
    with pytest.raises(BodyTooSlow):
        getattr(BoundedBody(Drip(0.02), seconds=0.2), read)()


def test_a_body_that_says_nothing_is_given_up() -> None:
    """In the middle of a wait."""
    with gevent.Timeout(20.0), pytest.raises(BodyTooSlow):
        BoundedBody(Drip(60.0), seconds=0.2).read(10)


def test_a_long_body_has_more_time() -> None:
    """What has come already counts in its favour."""
    assert BoundedBody(Drip(0.02, count=40), seconds=0.1, rate=10.0).read() == b"x" * 40


class Malformed(io.BytesIO):
    """A body that the parser refuses."""

    failed = True

    def read(self, size: int | None = None) -> bytes:
        raise errors.InvalidChunkSize(b"secret")

    readline = read


@pytest.mark.parametrize("read", ["read", "readline", "readlines"])
def test_a_malformed_body_is_the_clients_fault(read: str, caplog: pytest.LogCaptureFixture) -> None:
    """An OSError, as of a client that is gone; it is logged by its kind, and the connection is not used again."""
    body = BoundedBody(Malformed())

    with pytest.raises(BodyBroken):
        getattr(body, read)()

    assert body.failed
    assert [vars(record)["cause"] for record in caplog.records] == ["InvalidChunkSize"]
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
def test_what_is_no_request_gets_the_envelope(error: Exception, status: int, caplog: pytest.LogCaptureFixture) -> None:
    """And no word of the parser's, in the answer or in the log."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        refuse(ours, error)
        ours.shutdown(socket.SHUT_WR)
        head, _, body = theirs.makefile("rb").read().partition(b"\r\n\r\n")

    assert status_of(error) == status
    assert head.startswith(f"HTTP/1.1 {status} ".encode())
    assert b"Connection: close" in head
    said: dict[str, Any] = json.loads(body)
    assert set(said) == {"code", "message", "data"}
    assert b"secret" not in body
    assert status == 500 or "secret" not in caplog.text
