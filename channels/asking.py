"""The part of the gateway and of the rate limiter that channels use, and limits on what clients send."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Protocol

from channels.sockets.answer_queue import StreamSource
from services.models import Question
from services.streams.records import Snapshot

#: Maximum characters of a question (sockets, inputs over HTTP), and of an id chosen by the client.
MAX_CONTENT = 10_000
MAX_ID = 64
#: The largest cursor accepted; no stream may have so many chunks.
MAX_CURSOR = 2**31 - 1


class QuestionGateway(StreamSource, Protocol):
    """The gateway, as channels use it to ask and cancel."""

    def ask(self, question: Question) -> Snapshot: ...

    def cancel(self, stream_id: str, *, bot: str, principal: str) -> str: ...


class FindingGateway(QuestionGateway, Protocol):
    """The gateway, for channels that also look up questions asked before."""

    def find(self, question: Question) -> Snapshot | None: ...

    def person(self, question: Question) -> str: ...


class QuestionLimiter(Protocol):
    """Counts a person's questions; False means that the limit is reached."""

    def question(self, principal: str, client_id: str) -> bool: ...


def iso_now() -> str:
    """Return the current time in UTC as ISO 8601 with milliseconds and Z."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
