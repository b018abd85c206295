"""The way out of a WebSocket: one frame after the other, each whole, and none waited for without end."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from math import inf

from websockets.frames import Opcode

#: Seconds one message may take, however steadily the peer takes a byte now and then.
FRAME_SECONDS = 300.0
#: Seconds after which a waiting sender looks at its clock: the end may have come nearer.
LOOK_SECONDS = 1.0

_PONG = bytes([0x80 | Opcode.PONG])


class SocketWriter:
    """Sends frames of several threads over one socket, and what the protocol itself has to say between them.

    The socket's timeout is shared with the reader, who sets its own before each read: a TimeoutError says nothing but
    that it is time to look at one's own clock.
    """

    def __init__(
        self,
        sock: socket.socket,
        *,
        send_seconds: float,
        clock: Callable[[], float],
        frame_seconds: float = FRAME_SECONDS,
    ) -> None:
        """Wait at most `send_seconds` for the peer to take at least one more byte."""
        self._sock = sock
        self._send_seconds = send_seconds
        self._frame_seconds = frame_seconds
        self._clock = clock
        self._writing = threading.Lock()
        self._queueing = threading.Lock()
        self._queue: list[bytes] = []
        #: Frames of senders that were written.
        self.sent = 0
        #: No frame of a sender is taken any more; at this time (monotonic) everything ends.
        self.end = inf
        #: The connection is unusable or shut down.
        self.lost = False
        #: It was given up on, because the peer did not take what was sent.
        self.stalled = False

    @property
    def ending(self) -> bool:
        return self.lost or self.end < inf

    @property
    def busy(self) -> bool:
        """Whether something is being written or waits for its turn."""
        return bool(self._queue) or self._writing.locked()

    def part(self, seconds: float) -> None:
        """Take no more frames from senders, and be over within so many seconds."""
        self.end = min(self.end, self._clock() + seconds)

    def send(self, frame: bytes) -> bool:
        """Write a whole frame after those that came before it; return False when it was not (all) written."""
        return self.send_all((frame,))

    def send_all(self, frames: Iterable[bytes]) -> bool:
        """Write one message's frames, each made when those before it are written; return False when some were not.

        A message that has begun is finished before a close, if its time allows: a close frame inside of it would be an
        error to clients. When its frames cannot be made, the connection is lost.
        """
        try:
            with self._writing:
                sent = self._put_all(frames)
                self.sent += sent
        finally:
            self.flush()
        return sent

    def send_if_free(self, frame: bytes) -> None:
        """Write a frame, unless another one is being written: for what is only worth saying into silence."""
        if self._writing.acquire(blocking=False):
            try:
                self.ending or self._put(frame)
            finally:
                self._writing.release()
            self.flush()

    def queue(self, frames: Iterable[bytes]) -> None:
        """Keep what the protocol says for `flush`; b"" ends our side. Of pongs the last is enough (RFC 6455, 5.5.3)."""
        with self._queueing:
            for frame in frames:
                if frame[:1] == _PONG and self._queue and self._queue[-1][:1] == _PONG:
                    self._queue.pop()
                self._queue.append(frame)

    def flush(self) -> None:
        """Write what is queued. Who finds a frame being written leaves it to that frame's sender."""
        while self._queue and self._writing.acquire(blocking=False):
            try:
                self._put_queue()
            finally:
                self._writing.release()

    def lose(self) -> None:
        """Shut the connection down, which wakes whoever waits for it; nothing is written any more."""
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
                self._put_pongs()
        except BaseException:
            self.lose()
            raise
        return True

    def _put(self, frame: bytes, began: float | None = None) -> bool:
        """Write a frame or lose the connection: after half a frame nothing can follow."""
        if self.lost:
            return False
        try:
            self._write(memoryview(frame), began) if frame else self._sock.shutdown(socket.SHUT_WR)
        except OSError:
            self.lose()
        return not self.lost

    def _put_pongs(self) -> None:
        """Write what may stand between the frames of a message."""
        while self._queue and self._queue[0][:1] == _PONG:
            self._put(self._next())

    def _put_queue(self) -> None:
        while self._queue:
            self._put(self._next())

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
