"""Assembles the text messages of a WebSocket from its frames, and limits their rate."""

from __future__ import annotations

from collections.abc import Callable

from websockets.frames import CloseCode, Frame, Opcode

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

    def __init__(self, *, clock: Callable[[], float], rate: float = RATE, burst: int = BURST) -> None:
        self._parts: list[bytes | bytearray] = []
        self._clock = clock
        self._rate = rate
        self._burst = float(burst)
        self._left = self._burst
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
        self._left = min(self._burst, self._left + (now - self._counted_at) * self._rate)
        self._counted_at = now
        if self._left < 1:
            raise Violation(TOO_MANY_MESSAGES, "too many messages")
        self._left -= 1
