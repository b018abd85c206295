"""Sending on a WebSocket: whole messages, in order, from many threads, to clients that read slowly or not at all."""

from __future__ import annotations

import json
import socket
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import pytest
from websockets.frames import Close, Opcode

from channels.sockets import wire
from channels.sockets.socket import Closed
from channels.sockets.wire import SocketWriter
from services.errors import StoreUnavailable
from tests.support.servers.processes import FakeClock, wait_until
from tests.support.sockets.far_end import TIMEOUT, FarEnd, in_thread, tcp_pair
from utils.formats.json_slices import Slices

#: The kernel's buffers of a connection, in bytes; with what is under way they hold less than `PIECE`.
SMALL = 8192
PIECE = 250_000
#: Characters of a frame that no buffer holds.
LONG = "x" * 8 * PIECE


class CountingClock(FakeClock):
    """A clock that counts its calls."""

    calls = 0

    def __call__(self) -> float:
        self.calls += 1
        return super().__call__()


def send_ten(far: FarEnd, sender: int) -> bool:
    return all(far.socket.send({"sender": sender, "n": n, "pad": LONG[:PIECE]}) for n in range(4))


def test_frames_of_many_threads_never_mix() -> None:
    """Each frame arrives whole, and those of one thread in their order, though the client's window is small."""
    with FarEnd(buffer=SMALL) as far:
        jobs = [in_thread(partial(send_ten, far, sender)) for sender in range(8)]
        received: dict[int, list[int]] = defaultdict(list)
        for _ in range(8 * 4):
            frame = far.sees()
            assert frame["pad"] == LONG[:PIECE]
            received[frame["sender"]].append(frame["n"])

        assert [job() for job in jobs] == [True] * 8
        assert received == {sender: list(range(4)) for sender in range(8)}


def test_pings_during_a_long_frame_are_answered_after_it() -> None:
    """Pings during the frame get one pong after it, for the last ping; the reader reads meanwhile."""
    with FarEnd(buffer=SMALL) as far:
        sent = in_thread(lambda: far.socket.send({"long": LONG}))
        far.raw.recv(1, socket.MSG_PEEK)
        for n in range(3):
            far.put(Opcode.PING, b"%d" % n)
        far.says("heard")
        far.heard(1)

        assert far.sees() == {"long": LONG}
        pong = far.frame()
        assert (sent(), pong.opcode, bytes(pong.data)) == (True, Opcode.PONG, b"2")


def sliced(slices: Callable[[], Iterable[str]]) -> dict[str, Any]:
    return {"long": Slices(slices)}


def test_a_text_in_slices_is_one_message() -> None:
    """It is sent as several WebSocket frames; pongs may come between them, other messages may not."""
    with FarEnd(buffer=SMALL) as far:
        sent = in_thread(lambda: far.socket.send(sliced(lambda: ["答" * 1000] * 300)))
        far.raw.recv(1, socket.MSG_PEEK)
        other = in_thread(lambda: far.socket.send({"type": "next"}))
        far.put(Opcode.PING, b"1")
        far.says("heard")
        far.heard(1)

        frames = [far.frame()]
        while not (frames[-1].fin and frames[-1].opcode is not Opcode.PONG):
            frames.append(far.frame())
        text_frames = [frame for frame in frames if frame.opcode is not Opcode.PONG]

        assert [frame.opcode for frame in text_frames] == [Opcode.TEXT, *[Opcode.CONT] * (len(text_frames) - 1)]
        assert json.loads(b"".join(frame.data for frame in text_frames)) == {"long": "答" * 300_000}
        assert max(len(frame.data) for frame in text_frames) < 32 * 1024
        assert len(frames) == len(text_frames) + 1
        assert far.sees() == {"type": "next"}
        assert (sent(), other(), far.socket.sent) == (True, True, 2)


def test_a_text_in_slices_that_fails_closes_the_connection() -> None:
    """The connection is closed without a close frame: a partial message must not look complete."""

    def slices() -> Iterator[str]:
        yield "x" * 100_000
        raise StoreUnavailable("away")

    def send() -> str:
        try:
            return str(far.socket.send(sliced(slices)))
        except StoreUnavailable:
            return "raised"

    with FarEnd() as far:
        sent = in_thread(send)
        assert sent() == "raised"
        assert not far.frame().fin
        assert far.end().code == 1006
        assert not far.socket.send({"type": "next"})


def test_a_close_during_a_text_in_slices_comes_after_it() -> None:
    """Clients treat a close frame within a message as an error, and lose its code."""
    with FarEnd(buffer=SMALL) as far:
        sent = in_thread(lambda: far.socket.send(sliced(lambda: ["x" * 4000] * 100)))
        far.raw.recv(1, socket.MSG_PEEK)
        far.socket.close(1012, "leaving")

        assert far.message() == {"long": "x" * 400_000}
        assert far.close_frame() == Close(1012, "leaving")
        assert sent()


def test_a_text_in_slices_that_is_not_read_ends_with_the_close() -> None:
    """The client has the time of a close to read it; then the connection is closed."""
    with FarEnd(buffer=SMALL, close_seconds=0.05) as far:
        sent = in_thread(lambda: far.socket.send(sliced(lambda: ["x" * 4000] * 500)))
        far.raw.recv(1, socket.MSG_PEEK)
        far.socket.close(1012, "leaving")

        assert not sent()
        assert not far.end().clean


def test_a_close_during_a_long_frame_comes_after_it() -> None:
    """`close` does not wait for the frame, and messages that wait behind it are dropped."""
    with FarEnd(buffer=SMALL) as far:
        sent = in_thread(lambda: far.socket.send({"long": LONG}))
        far.raw.recv(1, socket.MSG_PEEK)
        waiting = in_thread(lambda: far.socket.send({"type": "next"}))
        far.socket.close(1012, "leaving")

        assert far.sees() == {"long": LONG}
        assert far.close_frame() == Close(1012, "leaving")
        far.closes(1012)
        assert far.end() == Closed(1012, "leaving", by_peer=False, clean=True)
        assert (sent(), waiting()) == (True, False)


def test_a_close_that_both_sent_is_over_when_the_writer_is_done() -> None:
    """The thread that wrote the close frame may hold the connection for a moment longer than the client needs."""
    clock = CountingClock()
    with FarEnd(clock=clock, close_seconds=3600.0) as far:
        far.socket.close(1000)
        far.close_frame()
        with far.socket._wire._writing:
            far.closes(1000)
            wait_until(lambda: far.socket._both_closed, TIMEOUT)
            calls_before = clock.calls
            wait_until(lambda: clock.calls > calls_before + 3, TIMEOUT)
        far.socket._wire.flush()

        assert far.end() == Closed(1000, "", by_peer=False, clean=True)


def test_the_clients_close_during_a_long_frame_is_answered_after_it() -> None:
    """The frame had begun, so it is sent completely before the close frame."""
    with FarEnd(buffer=SMALL) as far:
        sent = in_thread(lambda: far.socket.send({"long": LONG}))
        far.raw.recv(1, socket.MSG_PEEK)
        far.closes(1000)

        assert far.sees() == {"long": LONG}
        assert far.close_frame().code == 1000
        assert far.eof()
        far.hangs_up()
        assert far.end() == Closed(1000, "", by_peer=True, clean=True)
        assert sent()


@pytest.fixture
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a blocked sender look at its clock often."""
    monkeypatch.setattr(wire, "LOOK_SECONDS", 0.02)


@pytest.mark.usefixtures("_often")
def test_a_client_that_does_not_read_loses_its_connection() -> None:
    """After `send_seconds` the connection is closed; no close frame can follow a partial frame."""
    clock = FakeClock()
    with FarEnd(buffer=SMALL, clock=clock, heartbeat_interval=1e9, heartbeat_timeout=1e9) as far:
        sent = in_thread(lambda: far.socket.send({"long": LONG}))
        far.raw.recv(1, socket.MSG_PEEK)
        waiting = in_thread(lambda: far.socket.send({"type": "next"}))

        def later() -> bool:
            # Repeated, because the last bytes that fit into a buffer restart the time.
            clock.advance(31.0)
            return far.socket.closing

        wait_until(later, TIMEOUT)

        assert (sent(), waiting()) == (False, False)
        assert far.end() == Closed(1006, "", by_peer=False, clean=False)


def test_a_client_that_does_not_read_does_not_delay_a_close() -> None:
    """`close` returns at once, and a blocked sender fails as soon as the time of the close is over."""
    with FarEnd(buffer=SMALL, close_seconds=0.05) as far:
        sent = in_thread(lambda: far.socket.send({"long": LONG}))
        far.raw.recv(1, socket.MSG_PEEK)
        far.socket.close(1012)

        assert not sent()
        assert far.end() == Closed(1012, "", by_peer=False, clean=False)


def test_a_client_that_vanishes_ends_a_waiting_send() -> None:
    """The send fails at once, not after `send_seconds`."""
    with FarEnd(buffer=SMALL) as far:
        sent = in_thread(lambda: far.socket.send({"long": LONG}))
        far.raw.recv(1, socket.MSG_PEEK)
        far.vanishes()

        assert not sent()
        assert far.end().code == 1006


def test_no_heartbeat_is_queued_behind_a_frame() -> None:
    """A frame that is being sent shows the client that the server is alive; the reader continues."""
    clock = CountingClock()
    with FarEnd(buffer=SMALL, clock=clock, heartbeat_interval=0.01, send_seconds=100.0) as far:
        sent = in_thread(lambda: far.socket.send({"long": LONG}))
        far.raw.recv(1, socket.MSG_PEEK)
        clock.advance(1.0)
        calls_before = clock.calls
        wait_until(lambda: clock.calls > calls_before + 5, TIMEOUT)
        far.says("heard")
        far.heard(1)

        assert far.sees() == {"long": LONG}
        assert sent()


@pytest.mark.parametrize(("frame_seconds", "whole"), [(300.0, True), (50.0, False)])
def test_a_slow_client_has_frame_seconds_while_it_reads(frame_seconds: float, whole: bool) -> None:
    """Some bytes in every `send_seconds` are enough, until `frame_seconds` are over."""
    near, far = tcp_pair(buffer=SMALL)
    clock = FakeClock()
    writer = SocketWriter(near, send_seconds=30.0, frame_seconds=frame_seconds, clock=clock)
    with near, far, far.makefile("rb") as stream:
        sent = in_thread(lambda: writer.send(LONG.encode()))
        pieces = 0
        while pieces < 8 and len(stream.read(PIECE)) == PIECE:
            pieces += 1
            clock.advance(20.0)

        assert sent() is whole
        assert (pieces == 8, writer.stalled) == (whole, not whole)


@pytest.mark.usefixtures("_often")
def test_a_frame_that_is_not_read_fails_after_send_seconds() -> None:
    """The send fails long before `frame_seconds` are over."""
    near, far = tcp_pair(buffer=SMALL)
    clock = FakeClock()
    writer = SocketWriter(near, send_seconds=30.0, frame_seconds=1e9, clock=clock)
    with near, far:
        sent = in_thread(lambda: writer.send(LONG.encode()))

        def later() -> bool:
            clock.advance(31.0)
            return writer.stalled

        wait_until(later, TIMEOUT)
        assert not sent()
        assert writer.lost


@pytest.mark.usefixtures("_often")
def test_a_close_that_is_not_read_ends_in_its_time() -> None:
    """The reader itself may send the close frame, so no other thread could end its wait."""
    near, far = tcp_pair(buffer=SMALL)
    clock = FakeClock()
    writer = SocketWriter(near, send_seconds=30.0, clock=clock)
    with near, far:
        writer.begin_close(2.0)
        writer.queue([LONG.encode()])
        flushed = in_thread(writer.flush)
        clock.advance(3.0)

        flushed()
        assert writer.lost


def test_the_queue_behind_a_stuck_frame_is_bounded() -> None:
    """However many pings arrive meanwhile, one pong is queued."""
    near, far = tcp_pair(buffer=SMALL)
    writer = SocketWriter(near, send_seconds=30.0, clock=FakeClock())
    with near, far:
        sent = in_thread(lambda: writer.send(LONG.encode()))
        wait_until(lambda: writer.busy, TIMEOUT)
        for _ in range(1000):
            writer.queue([b"\x8a\x00"])
            writer.flush()
        writer.queue([b"\x88\x00", b""])

        data = b"".join(iter(lambda: far.recv(1_000_000), b""))
        assert sent()
        assert data == LONG.encode() + b"\x8a\x00\x88\x00"
