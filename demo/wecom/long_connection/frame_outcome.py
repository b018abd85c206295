"""What becomes of a bot's frame: the ack, and the rules that the frame breaks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from demo.wecom.long_connection.commands import ErrorCode
from demo.wecom.violation import RuleViolation


class FrameOutcome(NamedTuple):
    """The ack of a frame, and the rules that the frame breaks."""

    errcode: int = ErrorCode.OK
    body: Mapping[str, Any] | None = None
    broken: tuple[RuleViolation, ...] = ()


class RejectedFrame(Exception):
    """The frame has no effect. `broken` are the rules that it breaks, which may be none."""

    def __init__(self, errcode: int, broken: Iterable[RuleViolation] = ()) -> None:
        super().__init__(errcode)
        self.outcome = FrameOutcome(errcode, None, tuple(broken))


def breaks(rule: str, text: str, errcode: int = ErrorCode.INVALID_PARAMETER) -> RejectedFrame:
    """Return the refusal of a frame that breaks one rule."""
    return RejectedFrame(errcode, [RuleViolation(rule, text)])
