"""Writes the frames of a WebSocket one after the other, each completely and within a time limit."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from math import inf
from typing import Any

from websockets.frames import Frame, Opcode

from utils.formats.json_slices import json_pieces

#: Seconds one message may take in total, also when the peer keeps reading slowly.
FRAME_SECONDS = 300.0
#: Maximum seconds of one wait to write; then the sender checks its deadlines again, as `begin_close` may shorten them.
LOOK_SECONDS = 1.0

_PONG = bytes([0x80 | Opcode.PONG])


class SocketWriter:
    """Sends the frames of several threads over one socket, and the protocol's control frames between them.

    The reader shares the socket and sets another timeout before each read. A TimeoutError therefore only means: check
    your own deadline.
    """

    def __init__(
        self,
        sock: socket.socket,
        *,
        send_seconds: float,
        clock: Callable[[], float],
        frame_seconds: float = FRAME_SECONDS,
    ) -> None:
        """Close the connection when the peer accepts no byte for `send_seconds`, like `server.sockets` for replies."""
        self._sock = sock
        self._send_seconds = send_seconds
        self._frame_seconds = frame_seconds
        self._clock = clock
        self._writing = threading.Lock()
        self._queueing = threading.Lock()
        self._queue: list[bytes] = []
        #: Messages of senders that were written.
        self.sent = 0
        #: Once finite: no sender's frame is accepted any more, and writing stops at this time (by `clock`).
        self.end = inf
        #: The connection is broken or shut down.
        self.lost = False
        #: The connection was given up because the peer did not read.
        self.stalled = False

    @property
    def ending(self) -> bool:
        return self.lost or self.end < inf

    @property
    def busy(self) -> bool:
        """Whether a frame is being written or is queued."""
        return bool(self._queue) or self._writing.locked()

    def begin_close(self, seconds: float) -> None:
        """Accept no more frames from senders, and stop writing after `seconds`."""
        self.end = min(self.end, self._clock() + seconds)

    def send(self, frame: bytes) -> bool:
        """Write a frame after those of other senders; return False when it was not completely written."""
        return self.send_all((frame,))

    def send_all(self, frames: Iterable[bytes]) -> bool:
        """Write the frames of one message; return False when some were not written.

        Each frame is requested after the one before it is written. A message that has begun is finished before a close
        frame if time allows, because clients reject a close frame inside a message. If the iterator raises, the
        connection is shut down.
        """
        try:
            with self._writing:
                sent = self._put_all(frames)
                self.sent += sent
        finally:
            self.flush()
        return sent

    def send_if_free(self, frame: bytes) -> None:
        """Write a frame unless another one is being written; used for heartbeats, which matter only in silence."""
        if self._writing.acquire(blocking=False):
            try:
                self.ending or self._put(frame)
            finally:
                self._writing.release()
            self.flush()

    def queue(self, frames: Iterable[bytes]) -> None:
        """Queue the protocol's frames for `flush`; b"" ends our side. Only the last pong is kept (RFC 6455, 5.5.3)."""
        with self._queueing:
            for frame in frames:
                if frame[:1] == _PONG and self._queue and self._queue[-1][:1] == _PONG:
                    self._queue.pop()
                self._queue.append(frame)

    def flush(self) -> None:
        """Write the queued frames. If another thread is writing, that thread flushes afterwards."""
        while self._queue and self._writing.acquire(blocking=False):
            try:
                while self._queue:
                    self._put(self._next())
            finally:
                self._writing.release()

    def lose(self) -> None:
        """Shut down the connection, which wakes its reader and writer; nothing is written any more."""
        self.lost = True
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def _next(self) -> bytes:
        with self._queueing:
            return self._queue.pop(0)

    def _put_all(self, frames: Iterable[bytes]) -> bool:
        began = self._clock()
        try:
            if self.ending:
                return False
            for frame in frames:
                if not self._put(frame, began):
                    return False
                # Control frames may stand between the fragments of a message.
                while self._queue and self._queue[0][:1] == _PONG:
                    self._put(self._next())
        except BaseException:
            self.lose()
            raise
        return True

    def _put(self, frame: bytes, began: float | None = None) -> bool:
        """Write a frame; on failure shut down the connection, since nothing can follow half a frame."""
        if self.lost:
            return False
        try:
            self._write(memoryview(frame), began) if frame else self._sock.shutdown(socket.SHUT_WR)
        except OSError:
            self.lose()
        return not self.lost

    def _write(self, rest: memoryview, began: float | None) -> None:
        moved = self._clock()
        began = moved if began is None else began
        while rest:
            left = min(moved + self._send_seconds, began + self._frame_seconds, self.end) - self._clock()
            if left <= 0:
                self.stalled = True
                raise TimeoutError
            self._sock.settimeout(min(left, LOOK_SECONDS))
            with suppress(TimeoutError):
                if sent := self._sock.send(rest):
                    rest, moved = rest[sent:], self._clock()


def json_frame(frame: Mapping[str, Any], mask: bool) -> bytes:
    """Return a message as one WebSocket frame; clients `mask` theirs."""
    # A client's JSON may contain half of a surrogate pair, which UTF-8 cannot encode.
    words = json.dumps(frame, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")
    return Frame(Opcode.TEXT, words).serialize(mask=mask)


def json_fragments(frame: Mapping[str, Any], mask: bool) -> Iterator[bytes]:
    """Yield the WebSocket frames of one message (RFC 6455, 5.4); each is built when it is requested."""
    opcode, words = Opcode.TEXT, b""
    for piece in json_pieces(frame):
        if words:
            yield Frame(opcode, words, fin=False).serialize(mask=mask)
            opcode = Opcode.CONT
        words = piece
    yield Frame(opcode, words).serialize(mask=mask)
