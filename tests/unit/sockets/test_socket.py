"""One WebSocket and a client that may send anything; test_socket_sending.py has clients that read slowly."""

from __future__ import annotations

import json
import logging
import threading
from select import select

import pytest
from websockets.frames import Close, Opcode

from channels.sockets.socket import Closed
from tests.support.servers.processes import FakeClock
from tests.support.sockets.far_end import TIMEOUT, Endpoint, FarEnd, masked


def test_a_frame_is_one_compact_json_text() -> None:
    """Characters beyond ASCII are sent unescaped; a lone surrogate, which UTF-8 cannot encode, becomes "?"."""
    with FarEnd() as far:
        assert far.socket.send({"type": "chat", "content": "你好", "half": "\ud800"})

        assert bytes(far.frame().data).decode() == '{"type":"chat","content":"你好","half":"?"}'
        assert far.socket.sent == 1


def test_messages_arrive_one_by_one() -> None:
    """Several messages in one segment and one in single bytes are each delivered once and whole."""
    with FarEnd() as far:
        far.raw.sendall(masked(Opcode.TEXT, b"one") + masked(Opcode.TEXT, "zwölf".encode()))
        for byte in masked(Opcode.TEXT, b"three"):
            far.raw.sendall(bytes([byte]))

        assert far.heard(3) == ["one", "zwölf", "three"]


def test_a_message_in_fragments_arrives_whole() -> None:
    """A character may be split between fragments; a ping between them is answered at once."""
    with FarEnd() as far:
        far.put(Opcode.TEXT, b"a\xe4\xbd", fin=False)
        far.put(Opcode.CONT, b"", fin=False)
        far.put(Opcode.PING, b"there?")
        pong = far.frame()
        far.put(Opcode.CONT, b"\xa0b")

        assert (pong.opcode, bytes(pong.data)) == (Opcode.PONG, b"there?")
        assert far.heard(1) == ["a你b"]


def test_bytes_read_with_the_request_are_delivered_first() -> None:
    """Bytes that a client sends before the handshake's reply are not lost."""
    half = masked(Opcode.TEXT, b"half of this")
    with FarEnd(early=masked(Opcode.TEXT, b"early") + half[:7]) as far:
        far.raw.sendall(half[7:])

        assert far.heard(2) == ["early", "half of this"]


@pytest.mark.parametrize("close", [Close(1000, "bye"), Close(1005, "")])
def test_a_close_of_the_client_is_answered(close: Close) -> None:
    """The code is echoed, the connection ends, and the endpoint learns which side began; no code is 1005 (RFC 6455)."""
    with FarEnd() as far:
        far.put(Opcode.CLOSE, b"" if close.code == 1005 else close.serialize())

        assert far.close_frame() == close
        assert far.eof()
        assert far.end() == Closed(close.code, close.reason, by_peer=True, clean=True)
        assert far.socket.closing


def test_messages_before_the_clients_close_are_delivered() -> None:
    """A message before the close is delivered; no frame follows the reply to the close."""
    endpoint = Endpoint()
    answered: list[bool] = []
    with FarEnd(endpoint=endpoint) as far:
        endpoint.on_text = lambda text: answered.append(far.socket.send({"echo": text}))
        far.raw.sendall(masked(Opcode.TEXT, b"question") + masked(Opcode.CLOSE, Close(1001, "").serialize()))

        assert far.close_frame().code == 1001
        assert far.eof()
        assert far.end().code == 1001
        assert (endpoint.texts, answered) == (["question"], [False])


def test_a_close_of_the_server_waits_for_the_client() -> None:
    """It sends code and reason, waits for the client's close frame, and neither sends nor delivers more messages."""
    with FarEnd() as far:
        far.socket.close(4409, "replaced")
        far.socket.close(1011, "a second one is nothing")
        sent = far.socket.send({"type": "late"})
        close = far.close_frame()
        far.says("too late")
        far.closes(4409)

        assert (close, sent) == (Close(4409, "replaced"), False)
        assert far.eof()
        assert far.end() == Closed(4409, "replaced", by_peer=False, clean=True)
        assert far.endpoint.texts == []


def test_a_long_reason_is_cut_to_a_close_frames_limit() -> None:
    """A close frame holds 123 bytes of it, cut between characters."""
    with FarEnd() as far:
        far.socket.close(1011, "你" * 100)

        assert far.close_frame() == Close(1011, "你" * 41)


def test_a_client_that_does_not_answer_a_close_is_disconnected() -> None:
    """Its connection is closed, also while the reader waits for a heartbeat that is half a minute away."""
    # By a clock that stands still the time for writing the close frame is never over.
    with FarEnd(clock=FakeClock(), close_seconds=0.05) as far:
        far.socket.close(1012)

        assert far.end() == Closed(1012, "", by_peer=False, clean=False)
        assert far.close_frame().code == 1012
        assert far.eof()


def test_a_client_that_vanishes_is_a_lost_connection() -> None:
    """Reset or ended without a close frame: code 1006, and `send` returns false."""
    with FarEnd() as far:
        far.vanishes()

        assert far.end() == Closed(1006, "", by_peer=True, clean=False)
        assert not far.socket.send({"type": "late"})


def test_a_half_closed_connection_is_closed() -> None:
    """A client that closed its sending side cannot complete a closing handshake."""
    with FarEnd() as far:
        far.hangs_up()

        assert far.end() == Closed(1006, "", by_peer=True, clean=False)
        assert far.eof()


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (masked(Opcode.BINARY, b"\0\1"), 1003),
        (masked(Opcode.BINARY, b"\0\1", fin=False), 1003),
        (masked(Opcode.TEXT, b"\xff"), 1007),
        (masked(Opcode.TEXT, b"\xe4\xbd", fin=False) + masked(Opcode.CONT, b"x"), 1007),
        (masked(Opcode.TEXT, b"x" * 101)[:2], None),
        (masked(Opcode.TEXT, b"x" * 200)[:4], 1009),
        (masked(Opcode.TEXT, b"x" * 60, fin=False) + masked(Opcode.CONT, b"x" * 60, fin=False), 1009),
        (b"\x81\x01x", 1002),
        (masked(Opcode.CONT, b"x"), 1002),
    ],
    ids=["binary", "binary-part", "utf8", "utf8-parts", "short", "long", "long-parts", "unmasked", "lone-part"],
)
def test_an_invalid_frame_closes_the_socket(sent: bytes, code: int | None) -> None:
    """Each has its close code, a long message as soon as its length is known; none is delivered."""
    with FarEnd(max_bytes=100) as far:
        far.raw.sendall(sent)

        if code is None:
            far.raw.sendall(masked(Opcode.TEXT, b"x" * 101)[2:])
            code = 1009
        assert far.close_frame().code == code
        far.hangs_up()
        assert far.end().code == code
        assert far.endpoint.texts == []


def test_a_client_that_sends_too_much_still_gets_the_close_code() -> None:
    """The rest is read and dropped: closing a connection with unread bytes resets it, and the reason is lost."""
    with FarEnd(max_bytes=100) as far:
        far.raw.sendall(masked(Opcode.TEXT, b"x" * 1_000_000))

        assert far.close_frame().code == 1009
        far.hangs_up()
        assert far.eof()
        assert far.end().code == 1009


def test_too_many_messages_close_the_socket() -> None:
    """The limit is 500 messages at once and 50 in each second after; one more closes with 4429."""
    clock = FakeClock()
    with FarEnd(clock=clock) as far:
        far.raw.sendall(masked(Opcode.TEXT, b"x") * 500)
        far.heard(500)
        clock.advance(1.0)
        far.raw.sendall(masked(Opcode.TEXT, b"x") * 50)
        far.heard(550)
        far.says("x")

        assert far.close_frame().code == 4429
        far.closes(4429)
        assert far.end() == Closed(4429, "too many messages", by_peer=False, clean=True)
        assert len(far.endpoint.texts) == 550


@pytest.mark.parametrize("opcode", [Opcode.PING, Opcode.PONG, Opcode.CONT])
def test_frames_without_text_count_too(opcode: Opcode) -> None:
    """Empty fragments never complete a message, and each ping costs a pong."""
    with FarEnd(clock=FakeClock()) as far:
        if opcode is Opcode.CONT:
            far.put(Opcode.TEXT, fin=False)
        far.raw.sendall(masked(opcode, fin=opcode is not Opcode.CONT) * 501)

        while (frame := far.frame()).opcode is Opcode.PONG:
            pass
        assert Close.parse(frame.data).code == 4429


def test_a_silent_client_gets_heartbeats_and_then_4408() -> None:
    """Own heartbeats do not count as activity: 4408 comes after the heartbeat timeout."""
    clock = FakeClock()
    with FarEnd(clock=clock, heartbeat_interval=0.01, heartbeat_timeout=0.05) as far:
        far.socket.heartbeat = {"session_id": "s1"}
        beats = []
        for _ in range(4):
            clock.advance(0.011)
            beats.append(far.sees())
        clock.advance(0.011)

        assert far.close_frame().code == 4408
        far.closes(4408)
        assert far.end() == Closed(4408, "silent too long", by_peer=False, clean=True)
        assert {(beat["type"], beat["session_id"]) for beat in beats} == {("heartbeat", "s1")}
        assert beats[0]["timestamp"].endswith("Z")


def test_a_suspended_process_does_not_close_its_clients() -> None:
    """A process that was suspended reads what its clients sent meanwhile before it judges their silence."""
    clock, sent, endpoint = FakeClock(), threading.Event(), Endpoint()

    def freeze(text: str) -> None:
        if text == "freeze" and sent.wait(30.0):
            clock.advance(1000.0)

    endpoint.on_text = freeze
    with FarEnd(clock=clock, heartbeat_timeout=100.0, endpoint=endpoint) as far:
        far.says("freeze")
        far.heard(1)
        far.says("still here")
        assert select([far.near], [], [], TIMEOUT)[0], "the bytes have arrived"
        sent.set()

        assert far.heard(2) == ["freeze", "still here"]
        assert not far.socket.closing


def test_any_bytes_restart_the_heartbeat_timeout() -> None:
    """Also a ping: a client that sends now and then gets no heartbeats and is not closed."""
    clock = FakeClock()
    with FarEnd(clock=clock, heartbeat_interval=0.03, heartbeat_timeout=0.05) as far:
        for _ in range(5):
            clock.advance(0.02)
            far.put(Opcode.PING)
            assert far.frame().opcode is Opcode.PONG

        far.says("still here")
        assert far.heard(1) == ["still here"]


def test_an_endpoint_that_fails_closes_with_1011(caplog: pytest.LogCaptureFixture) -> None:
    """The log has the traceback, and the next message is not delivered."""
    endpoint = Endpoint()
    endpoint.on_text = lambda text: json.loads(text)
    with FarEnd(endpoint=endpoint) as far:
        far.raw.sendall(masked(Opcode.TEXT, b"no json") * 2)

        assert far.close_frame().code == 1011
        far.closes(1011)
        assert far.end().code == 1011
        assert endpoint.texts == ["no json"]
        assert "JSONDecodeError" in caplog.text


def test_an_endpoint_that_cannot_open_is_closed_once(caplog: pytest.LogCaptureFixture) -> None:
    """Only its `closed` is called, and no message is delivered."""
    endpoint = Endpoint()
    endpoint.on_open = lambda: json.loads("no json")
    with FarEnd(endpoint=endpoint, early=masked(Opcode.TEXT, b"hello")) as far:
        assert far.close_frame().code == 1011
        far.closes(1011)

        assert far.end() == Closed(1011, "", by_peer=False, clean=True)
        assert endpoint.texts == []
        assert "socket could not be opened" in caplog.text


def test_an_endpoint_that_fails_at_the_end_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """The request ends as usual."""

    class Failing(Endpoint):
        def closed(self, closed: Closed) -> None:
            super().closed(closed)
            raise RuntimeError("a bug")

    with FarEnd(endpoint=Failing()) as far:
        far.closes(1000)

        assert far.end().code == 1000
        assert "a bug" in caplog.text


def test_messages_are_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Messages are not logged at any level."""
    caplog.set_level(logging.DEBUG)
    with FarEnd() as far:
        far.says("my secret")
        far.heard(1)
        far.closes(1000)
        far.end()

    assert "my secret" not in caplog.text
