"""Long waits for a peer, which one thread looks after; short ones are in test_http_service and test_dify_service."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import pytest

from services.errors import ProviderError
from services.http import connections as http_connections
from services.http import patience as http_patience
from services.http.connections import Call
from services.http.patience import watch
from services.http.service import HTTPService
from tests.support.servers.processes import wait_until
from tests.support.servers.raw_server import RawServer, self_signed
from utils.deadline import Deadline

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"
OF_A_LENGTH = b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\nhello"
#: Seconds that count as a long wait here, and what is waited.
LONG, PATIENCE = 0.1, 0.4


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_connections, "LONG", LONG)
    monkeypatch.setattr(http_patience, "LOOK", 0.05)


def second_read(url: str, deadline: Deadline) -> tuple[ProviderError, float]:
    """Return how the read ends that follows the first bytes, and after how many seconds."""
    http = HTTPService()
    try:
        with http.exchange("GET", url, deadline=deadline, patience=30.0, headers={}) as exchange:
            assert exchange.read(30.0) == b"hello"
            began = time.monotonic()
            with pytest.raises(ProviderError) as caught:
                exchange.read(PATIENCE)
            return caught.value, time.monotonic() - began
    finally:
        http.close()


@pytest.mark.parametrize("reply", [CHUNKED, OF_A_LENGTH], ids=["chunks", "length"])
@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
def test_a_long_silence_ends_a_read(
    reply: bytes, secure: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not before its time; it counts as silence, not as an end or a broken line, and nothing is looked after then."""
    tls, trusted = self_signed(tmp_path) if secure else (None, "")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(trusted))
    with RawServer(reply, hang=True, tls=tls) as peer:
        error, seconds = second_read(peer.url, Deadline(600.0))

    assert error.code == "provider_timeout"
    assert PATIENCE <= seconds < 20.0
    assert len(watch) == 0


def test_the_total_time_ends_a_long_read() -> None:
    with RawServer(CHUNKED, hang=True) as peer:
        error, seconds = second_read(peer.url, Deadline(PATIENCE))

    assert error.code == "answer_timeout"
    assert seconds < 20.0


def test_what_a_reader_does_between_its_reads_is_no_silence_of_its_peer() -> None:
    """An answer may wait for Redis for longer than its provider may be silent."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        call = Call(Deadline(600.0))
        call.attach(ours)
        for _ in range(2):
            call.patience(PATIENCE)
            theirs.sendall(b"more")
            assert ours.recv(10) == b"more"
            call.read()
            time.sleep(2 * PATIENCE)
        assert not call.late
        call.detach()


def test_a_connection_that_was_given_back_is_nobodys_business() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        call = Call(Deadline(600.0))
        call.attach(ours)
        call.patience(PATIENCE)
        call.detach()
        call.give_up(time.monotonic() + 600.0)

        theirs.sendall(b"for the next")
        assert ours.recv(20) == b"for the next"


def test_a_hundred_long_reads_set_the_sockets_timeout_once() -> None:
    """Each time would be a timer made, started and stopped; a short wait has one, and ends on time."""
    ours, theirs = socket.socketpair()
    with ours, theirs, Counted(ours.detach()) as counted:
        call = Call(Deadline(600.0))
        call.attach(counted)
        for _ in range(100):
            call.patience(PATIENCE)
            call.read()
        assert counted.timeouts == [None]

        call.patience(LONG / 2)
        assert counted.timeouts == [None, LONG / 2]
        wait_until(lambda: len(watch) == 0)
        call.detach()


class Broken:
    """Cannot be ended."""

    def __init__(self) -> None:
        self.asked = 0

    def give_up(self, now: float) -> None:
        self.asked += 1
        raise RuntimeError("no")


def test_one_that_cannot_be_ended_keeps_nobody_elses_wait_from_its_end(caplog: pytest.LogCaptureFixture) -> None:
    broken = Broken()
    watch.add(broken)
    try:
        wait_until(lambda: broken.asked > 1)
        with RawServer(CHUNKED, hang=True) as peer:
            error, _ = second_read(peer.url, Deadline(600.0))
    finally:
        watch.discard(broken)

    assert error.code == "provider_timeout"
    assert "a read could not be ended" in caplog.messages


class Counted(socket.socket):
    """Notes the timeouts that it is given."""

    def __init__(self, number: int) -> None:
        super().__init__(fileno=number)
        self.timeouts: list[float | None] = []

    def settimeout(self, value: float | None) -> None:
        self.timeouts.append(value)
        super().settimeout(value)
