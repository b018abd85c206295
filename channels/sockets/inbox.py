"""What comes in on a WebSocket: whole text messages out of frames, and no more of them than is fair."""

from __future__ import annotations

from collections.abc import Callable

from websockets.frames import CloseCode, Frame, Opcode

#: Frames a second that a peer may send all the time, and how many at once after a silence.
RATE = 50.0
BURST = 500

#: Our own close code for a peer that sends too many messages.
TOO_MANY_MESSAGES = 4429


class Violation(Exception):
    """The peer sent what it must not; `code` and `reason` are for the close frame."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{code} {reason}")
        self.code = code
        self.reason = reason


class Inbox:
    """Puts messages together. Their size is the protocol's business (`max_size`), who sees a frame's length first."""

    def __init__(self, *, clock: Callable[[], float], rate: float = RATE, burst: int = BURST) -> None:
        self._parts: list[bytes | bytearray] = []
        self._clock = clock
        self._rate = rate
        self._burst = float(burst)
        self._left = self._burst
        self._counted_at = clock()

    def take(self, frame: Frame) -> str | None:
        """Return the text that is complete with this frame, None when there is none.

        Raises:
            Violation: The frame is binary, the text is no UTF-8, or there were too many frames of any kind: empty parts
                of a message that never ends have no size.
        """
        self._count()
        if frame.opcode is Opcode.BINARY:
            raise Violation(CloseCode.UNSUPPORTED_DATA, "text only")
        if frame.opcode not in (Opcode.TEXT, Opcode.CONT):
            return None
        if frame.data:
            self._parts.append(bytes(frame.data))
        return self._whole() if frame.fin else None

    def _whole(self) -> str:
        parts, self._parts = self._parts, []
        try:
            return b"".join(parts).decode()
        except UnicodeDecodeError as exc:
            raise Violation(CloseCode.INVALID_DATA, "not UTF-8") from exc

    def _count(self) -> None:
        now = self._clock()
        self._left = min(self._burst, self._left + (now - self._counted_at) * self._rate)
        self._counted_at = now
        if self._left < 1:
            raise Violation(TOO_MANY_MESSAGES, "too many messages")
        self._left -= 1
