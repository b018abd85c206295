"""One WebSocket: sends JSON frames from any thread, reads text messages in one thread, sends heartbeats, times out.

The protocol comes from the library `websockets` (its sans-I/O part, no extensions). The bytes go over the connection
of the WSGI request.
"""

from __future__ import annotations

import logging
import math
import secrets
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, cast

from websockets.frames import CloseCode, Frame, Opcode
from websockets.protocol import CLIENT, OPEN, Protocol
from websockets.server import ServerProtocol

from channels.asking import iso_now
from channels.sockets.handshake import (
    PROTOCOL_LOG,
    HandshakeRefused,
    SocketOver,
    answer_handshake,
    over_read,
    raw_socket,
)
from channels.sockets.peer import Closed, Peer
from channels.sockets.wire import SocketWriter, json_fragments, json_frame
from utils.formats.json_slices import is_sliced
from utils.slow_peers import SEND_BUFFER, SEND_SECONDS

#: Token bucket: frames per second a peer may send on average, and in one burst after a silence.
RATE = 50.0
BURST = 500

#: Our close code for a peer that exceeds the rate.
TOO_MANY_MESSAGES = 4429


class Violation(Exception):
    """The peer broke a rule; `code` and `reason` go into the close frame."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{code} {reason}")
        self.code = code
        self.reason = reason


class Inbox:
    """Assembles messages. Their size is limited by the protocol (`max_size`), which sees a frame's length first."""

    def __init__(self, *, clock: Callable[[], float], rate: float = RATE) -> None:
        self._parts: list[bytes | bytearray] = []
        self._clock = clock
        self._rate = rate
        self._left = float(BURST)
        self._counted_at = clock()

    def take(self, frame: Frame) -> str | None:
        """Return the message that this frame completes, None when it completes none.

        Raises:
            Violation: the frame is binary, the text is not UTF-8, or too many frames came. Frames of any kind count,
                because a message of endless empty fragments never reaches the size limit.
        """
        self._count()
        if frame.opcode is Opcode.BINARY:
            raise Violation(CloseCode.UNSUPPORTED_DATA, "text only")
        if frame.opcode not in (Opcode.TEXT, Opcode.CONT):
            return None
        if frame.data:
            self._parts.append(bytes(frame.data))
        return self._message() if frame.fin else None

    def _message(self) -> str:
        parts, self._parts = self._parts, []
        try:
            return b"".join(parts).decode()
        except UnicodeDecodeError as exc:
            raise Violation(CloseCode.INVALID_DATA, "not UTF-8") from exc

    def _count(self) -> None:
        now = self._clock()
        self._left = min(float(BURST), self._left + (now - self._counted_at) * self._rate)
        self._counted_at = now
        if self._left < 1:
            raise Violation(TOO_MANY_MESSAGES, "too many messages")
        self._left -= 1


__all__ = ["Closed", "HandshakeRefused", "Peer", "Socket", "accept", "converse", "finish"]

log = logging.getLogger(__name__)

#: Our close code for a peer that sent nothing for `heartbeat_timeout`.
SILENT = 4408

#: Bytes of the largest message accepted.
MAX_BYTES = 64 * 1024
#: Seconds for sending the reply to the handshake.
ANSWER_SECONDS = 2.0
#: Seconds between two looks whether another thread still writes, after both close frames.
BUSY_SECONDS = 0.02

_READ_BYTES = 16 * 1024
#: Bytes of a close frame's longest reason (RFC 6455, 5.5).
_REASON_BYTES = 123


@dataclass(frozen=True, slots=True)
class SocketTimes:
    """The timeouts of a socket in seconds."""

    #: Silence of the peer after which a heartbeat is sent, and after which the socket is closed.
    heartbeat_interval: float = 30.0
    heartbeat_timeout: float = 120.0
    #: Time in which the peer must accept a byte of the data sent to it.
    send_seconds: float = SEND_SECONDS
    #: Time that the peer has to answer a close frame.
    close_seconds: float = 2.0


class Socket:
    """An open WebSocket."""

    def __init__(
        self,
        sock: socket.socket,
        *,
        early: bytes = b"",
        times: SocketTimes = SocketTimes(),
        max_bytes: int = MAX_BYTES,
        rate: float = RATE,
        protocol: Protocol | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Use `sock` after its handshake. `early` holds bytes already read from the connection.

        `rate` is the number of frames per second that the peer may send on average. `protocol` is the state after the
        handshake of a client; None is a server's.
        """
        #: A random name of this connection.
        self.token = secrets.token_hex(8)
        self.connected_at = time.time()
        #: When bytes were last received, by `clock`.
        self.last_received = clock()
        #: Members of heartbeat frames besides type and timestamp.
        self.heartbeat: Mapping[str, Any] = {}
        self._sock = sock
        self._early = early
        self._clock = clock
        self._times = times
        self._next_beat = self.last_received + times.heartbeat_interval
        # Held briefly, never during a write.
        self._guard = threading.Lock()
        self._protocol = protocol or ServerProtocol(state=OPEN, max_size=max_bytes, logger=PROTOCOL_LOG)
        # Clients mask their frames (RFC 6455, 5.1).
        self._mask = self._protocol.side is CLIENT
        self._wire = SocketWriter(sock, send_seconds=times.send_seconds, clock=clock)
        self._inbox = Inbox(clock=clock, rate=rate)
        self._ignores = False
        #: The heartbeat timeout has passed, but unread bytes may still lie in the kernel.
        self._suspect = False

    @property
    def closing(self) -> bool:
        """Whether a close frame was sent or received, or the connection is lost. Nothing is sent any more then."""
        return self._wire.ending

    @property
    def sent(self) -> int:
        """The number of frames that `send` has written."""
        return self._wire.sent

    def send(self, frame: Mapping[str, Any]) -> bool:
        """Send one JSON message; return False when it was not sent. Messages of several threads are never mixed.

        A text that comes in slices is read while it is sent; the message then has several WebSocket frames.
        """
        if is_sliced(frame):
            return self._wire.send_all(json_fragments(frame, self._mask))
        return self._wire.send(json_frame(frame, self._mask))

    def close(self, code: int, reason: str = "") -> None:
        """Begin the close without waiting for it; the peer has `close_seconds` to answer. Repeated calls do nothing."""
        if self._begin_close(code, reason):
            threading.Thread(target=self._finish_close, name="socket-close", daemon=True).start()

    def run(self, on_text: Callable[[str], None]) -> Closed:
        """Read until the socket ends and pass each message to `on_text`; then shut down the connection.

        Returns how the socket ended.
        """
        try:
            if self._early:
                self._take(self._early, on_text)
            while not self._over():
                data = self._receive(self._wait())
                if data is not None:
                    self._take(data, on_text)
            return self._end_state()
        finally:
            self._wire.lose()
            if self._mask:
                # A client made the connection; on a server gunicorn closes it.
                self._sock.close()

    def _begin_close(self, code: int, reason: str) -> bool:
        """Queue the close frame and ignore further messages; return False when the close had already begun."""
        self._ignores = True
        with self._guard:
            if self.closing or self._protocol.state is not OPEN:
                return False
            self._protocol.send_close(code, reason.encode()[:_REASON_BYTES].decode(errors="ignore"))
            self._wire.begin_close(self._times.close_seconds)
            self._wire.queue(self._protocol.data_to_send())
            return True

    def _finish_close(self) -> None:
        """Send the close frame, then shut down the connection if the peer does not answer within `close_seconds`."""
        self._wire.flush()
        time.sleep(self._times.close_seconds)
        self._wire.lose()

    def _over(self) -> bool:
        return self._wire.lost or self._protocol.reader.eof or (self._both_closed and not self._wire.busy)

    @property
    def _both_closed(self) -> bool:
        return self._protocol.close_sent is not None and self._protocol.close_rcvd is not None

    def _wait(self) -> float:
        """Send a due heartbeat or handle a timeout; return the seconds until the next one."""
        now = self._clock()
        if now - self.last_received >= self._times.heartbeat_timeout:
            if not self._suspect:
                # Perhaps this process was suspended: read once more without waiting before closing.
                self._suspect = True
                return 0.0
            self._end(SILENT, "silent too long")
        if self.closing:
            if now >= self._wire.end:
                self._wire.lose()
            # Once both have closed, only a thread that still writes keeps the connection; it does not wake this one.
            return min(BUSY_SECONDS if self._both_closed else math.inf, self._wire.end - now)
        if now >= self._next_beat:
            self._next_beat = now + self._times.heartbeat_interval
            self._wire.send_if_free(
                json_frame({"type": "heartbeat", "timestamp": iso_now(), **self.heartbeat}, self._mask)
            )
        return min(self._next_beat, self.last_received + self._times.heartbeat_timeout) - now

    def _receive(self, wait: float) -> bytes | None:
        """Return the next bytes, b"" at the end of the connection, None when none came within `wait` seconds."""
        try:
            self._sock.settimeout(max(wait, 0.001))
            return self._sock.recv(_READ_BYTES)
        except TimeoutError:
            return None
        except (OSError, ValueError):
            # ValueError: a TLS connection that another thread has shut down.
            return b""

    def _take(self, data: bytes, on_text: Callable[[str], None]) -> None:
        with self._guard:
            self._protocol.receive_data(data) if data else self._protocol.receive_eof()
            self._wire.queue(self._protocol.data_to_send())
            if self._protocol.state is not OPEN:
                self._wire.begin_close(self._times.close_seconds)
            events = self._protocol.events_received()
        if data:
            self.last_received = self._clock()
            self._suspect = False
            self._next_beat = self.last_received + self._times.heartbeat_interval
        self._wire.flush()
        for event in events:
            self._handle(cast(Frame, event), on_text)

    def _handle(self, frame: Frame, on_text: Callable[[str], None]) -> None:
        if self._ignores:
            return
        try:
            text = self._inbox.take(frame)
            if text is not None:
                on_text(text)
        except Violation as exc:
            self._end(exc.code, exc.reason)
        except Exception:
            log.exception("socket message failed", extra={"socket": self.token})
            self._end(CloseCode.INTERNAL_ERROR)

    def _end(self, code: int, reason: str = "") -> None:
        """Close from the reader's thread, which enforces `close_seconds` itself."""
        if self._begin_close(code, reason):
            self._wire.flush()

    def _end_state(self) -> Closed:
        sent, received = self._protocol.close_sent, self._protocol.close_rcvd
        if received and self._protocol.close_rcvd_then_sent:
            return Closed(received.code, received.reason, by_peer=True, clean=not self._wire.lost)
        if sent:
            return Closed(sent.code, sent.reason, clean=received is not None)
        return Closed(CloseCode.ABNORMAL_CLOSURE, by_peer=not self._wire.stalled)


def accept(environ: Mapping[str, Any], *, subprotocol: str = "", **options: Any) -> Socket:
    """Answer the WebSocket handshake of a WSGI request and return the open WebSocket.

    Args:
        subprotocol: selected when the client offers it.
        options: passed to `Socket`.

    Raises:
        HandshakeRefused: the request is not a valid handshake. Nothing was written; reply with its `status`.
    """
    sock = raw_socket(environ)
    answer = answer_handshake(environ, subprotocol)
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # If the client has already gone, the reader notices.
    with suppress(OSError):
        sock.settimeout(ANSWER_SECONDS)
        sock.sendall(answer)
    return Socket(sock, early=over_read(environ), **options)


def converse(sock: Socket, peer: Peer) -> Closed:
    """Run `peer` on a socket until the socket ends; `peer.closed` is called once, also after an error."""
    closed = Closed(CloseCode.ABNORMAL_CLOSURE)
    try:
        _open(sock, peer)
        closed = sock.run(peer.received)
    finally:
        _closed(sock, peer, closed)
    return closed


def finish() -> SocketOver:
    """Return the response of a view whose socket has ended."""
    return SocketOver()


def _open(sock: Socket, peer: Peer) -> None:
    try:
        peer.opened()
    except Exception:
        log.exception("socket could not be opened", extra={"socket": sock.token})
        sock.close(CloseCode.INTERNAL_ERROR)


def _closed(sock: Socket, peer: Peer, closed: Closed) -> None:
    try:
        peer.closed(closed)
    except Exception:
        log.exception("socket's end failed", extra={"socket": sock.token})
