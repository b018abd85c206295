"""One WebSocket: JSON frames out from any thread, text messages in by one reader, heartbeats, and always an end.

The protocol is the library websockets', without its I/O and without extensions; the bytes go over the connection that
the server took the request from.
"""

from __future__ import annotations

import json
import logging
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, cast

from websockets.frames import CloseCode, Frame, Opcode
from websockets.protocol import OPEN
from websockets.server import ServerProtocol

from channels.sockets.handshake import (
    PROTOCOL_LOG,
    HandshakeRefused,
    SocketOver,
    answer_handshake,
    over_read,
    raw_socket,
)
from channels.sockets.inbox import Inbox, Violation
from channels.sockets.peer import Closed, Peer
from channels.sockets.wire import SocketWriter
from utils.formats.json_slices import is_sliced, json_pieces

__all__ = ["Closed", "HandshakeRefused", "Peer", "Socket", "accept", "converse", "finish"]

log = logging.getLogger(__name__)

#: Our own close code for a peer that has been silent too long.
SILENT = 4408

#: Bytes of the largest message taken.
MAX_BYTES = 64 * 1024
#: Seconds the peer may take for its part of the close.
CLOSE_SECONDS = 2.0
#: Bytes that may lie in the kernel for a peer that does not read (Linux doubles it): left alone they grow to megabytes.
SEND_BUFFER = 128 * 1024

_READ_BYTES = 16 * 1024
#: Bytes of a close frame's longest reason (RFC 6455, 5.5).
_REASON_BYTES = 123


class Socket:
    """An open WebSocket."""

    def __init__(
        self,
        sock: socket.socket,
        *,
        early: bytes = b"",
        heartbeat_interval: float = 30.0,
        heartbeat_timeout: float = 120.0,
        send_seconds: float = 30.0,
        max_bytes: int = MAX_BYTES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Speak over `sock`, on which the handshake is done; times are seconds. `early` was read from it already."""
        #: This connection's own random name.
        self.token = secrets.token_hex(8)
        self.connected_at = time.time()
        #: When bytes came last, monotonic.
        self.last_received = clock()
        #: What heartbeats say besides their type and time.
        self.heartbeat: Mapping[str, Any] = {}
        self._sock = sock
        self._early = early
        self._clock = clock
        self._heartbeat_interval = heartbeat_interval
        self._heartbeat_timeout = heartbeat_timeout
        self._next_beat = self.last_received + heartbeat_interval
        # Held for moments only, never over a write.
        self._guard = threading.Lock()
        self._protocol = ServerProtocol(state=OPEN, max_size=max_bytes, logger=PROTOCOL_LOG)
        self._wire = SocketWriter(sock, send_seconds=send_seconds, clock=clock)
        self._inbox = Inbox(clock=clock)
        self._deaf = False
        #: It has been silent too long, unless there is something to be read.
        self._suspect = False

    @property
    def closing(self) -> bool:
        """Whether a close was sent or received, or the connection is lost: nothing is sent any more."""
        return self._wire.ending

    @property
    def sent(self) -> int:
        """How many frames `send` has sent."""
        return self._wire.sent

    def send(self, frame: Mapping[str, Any]) -> bool:
        """Send one JSON frame whole, after those of other threads; return False when it was not sent.

        A text in it that comes in slices is read while it is sent, and the message has several WebSocket frames.
        """
        return self._wire.send_all(_fragments(frame)) if is_sliced(frame) else self._wire.send(_text(frame))

    def close(self, code: int, reason: str = "") -> None:
        """Say goodbye once and return at once; the peer has `CLOSE_SECONDS` for its part."""
        if self._part(code, reason):
            threading.Thread(target=self._see_off, name="socket-close", daemon=True).start()

    def run(self, on_text: Callable[[str], None]) -> Closed:
        """Read until the end, give each message to `on_text`, shut the connection down and say how it ended."""
        try:
            if self._early:
                self._take(self._early, on_text)
            while not self._over():
                data = self._receive(self._wait())
                if data is not None:
                    self._take(data, on_text)
            return self._verdict()
        finally:
            self._wire.lose()

    def _part(self, code: int, reason: str) -> bool:
        """Begin the close and hear nothing more; return False when it had begun."""
        self._deaf = True
        with self._guard:
            if self.closing or self._protocol.state is not OPEN:
                return False
            self._protocol.send_close(code, reason.encode()[:_REASON_BYTES].decode(errors="ignore"))
            self._wire.part(CLOSE_SECONDS)
            self._wire.queue(self._protocol.data_to_send())
            return True

    def _see_off(self) -> None:
        """Send the close frame, and end the reader's wait for a peer that does not answer it."""
        self._wire.flush()
        time.sleep(CLOSE_SECONDS)
        self._wire.lose()

    def _over(self) -> bool:
        both = self._protocol.close_sent is not None and self._protocol.close_rcvd is not None
        return self._wire.lost or self._protocol.reader.eof or (both and not self._wire.busy)

    def _wait(self) -> float:
        """Do what the clock asks for, and return the seconds until it asks again."""
        now = self._clock()
        if now - self.last_received >= self._heartbeat_timeout:
            if not self._suspect:
                # Perhaps it was this process that stood still: one look at what lies there.
                self._suspect = True
                return 0.0
            self._end(SILENT, "silent too long")
        if self.closing:
            if now >= self._wire.end:
                self._wire.lose()
            return self._wire.end - now
        if now >= self._next_beat:
            self._next_beat = now + self._heartbeat_interval
            self._wire.send_if_free(_text({"type": "heartbeat", "timestamp": _now(), **self.heartbeat}))
        return min(self._next_beat, self.last_received + self._heartbeat_timeout) - now

    def _receive(self, wait: float) -> bytes | None:
        """Return what comes next, b"" at the end, None when nothing came in time."""
        try:
            self._sock.settimeout(max(wait, 0.001))
            return self._sock.recv(_READ_BYTES)
        except TimeoutError:
            return None
        except OSError:
            return b""

    def _take(self, data: bytes, on_text: Callable[[str], None]) -> None:
        with self._guard:
            self._protocol.receive_data(data) if data else self._protocol.receive_eof()
            self._wire.queue(self._protocol.data_to_send())
            if self._protocol.state is not OPEN:
                self._wire.part(CLOSE_SECONDS)
            events = self._protocol.events_received()
        if data:
            self.last_received = self._clock()
            self._suspect = False
            self._next_beat = self.last_received + self._heartbeat_interval
        self._wire.flush()
        for event in events:
            self._hear(cast(Frame, event), on_text)

    def _hear(self, frame: Frame, on_text: Callable[[str], None]) -> None:
        if self._deaf:
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
        """Close from the reader's own thread: it sees to the time itself."""
        if self._part(code, reason):
            self._wire.flush()

    def _verdict(self) -> Closed:
        sent, received = self._protocol.close_sent, self._protocol.close_rcvd
        if received and self._protocol.close_rcvd_then_sent:
            return Closed(received.code, received.reason, by_peer=True, clean=not self._wire.lost)
        if sent:
            return Closed(sent.code, sent.reason, clean=received is not None)
        return Closed(CloseCode.ABNORMAL_CLOSURE, by_peer=not self._wire.stalled)


def accept(environ: Mapping[str, Any], *, subprotocol: str = "", **options: Any) -> Socket:
    """Do the server's part of the handshake on the socket of a WSGI request, and return the open WebSocket.

    Args:
        subprotocol: selected when the client offers it.
        options: what `Socket` takes.

    Raises:
        HandshakeRefused: the request is no proper handshake; nothing was written, its `status` is the fitting one.
    """
    sock = raw_socket(environ)
    answer = answer_handshake(environ, subprotocol)
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # Gone already: the reader will see it.
    with suppress(OSError):
        sock.settimeout(CLOSE_SECONDS)
        sock.sendall(answer)
    return Socket(sock, early=over_read(environ), **options)


def converse(sock: Socket, peer: Peer) -> Closed:
    """Let `peer` speak over a socket until its end; whatever goes wrong, it is told of the end once."""
    closed = Closed(CloseCode.ABNORMAL_CLOSURE)
    try:
        _open(sock, peer)
        closed = sock.run(peer.received)
    finally:
        _tell(sock, peer, closed)
    return closed


def finish() -> SocketOver:
    """Return what a view answers when its socket is over."""
    return SocketOver()


def _open(sock: Socket, peer: Peer) -> None:
    try:
        peer.opened()
    except Exception:
        log.exception("socket could not be opened", extra={"socket": sock.token})
        sock.close(CloseCode.INTERNAL_ERROR)


def _tell(sock: Socket, peer: Peer, closed: Closed) -> None:
    try:
        peer.closed(closed)
    except Exception:
        log.exception("socket's end failed", extra={"socket": sock.token})


def _text(frame: Mapping[str, Any]) -> bytes:
    # A client's JSON may name half a character pair, which no UTF-8 can say.
    words = json.dumps(frame, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")
    return Frame(Opcode.TEXT, words).serialize(mask=False)


def _fragments(frame: Mapping[str, Any]) -> Iterator[bytes]:
    """Yield the WebSocket frames of one message (RFC 6455, 5.4), each made when it is asked for."""
    opcode, words = Opcode.TEXT, b""
    for piece in json_pieces(frame):
        if words:
            yield Frame(opcode, words, fin=False).serialize(mask=False)
            opcode = Opcode.CONT
        words = piece
    yield Frame(opcode, words).serialize(mask=False)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
