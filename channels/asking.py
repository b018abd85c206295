"""What every channel uses to put a question, and the bounds of what clients send."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Protocol

from channels.sockets.answer_queue import StreamSource
from services.models import Question
from services.streams.records import Snapshot

#: Characters of a question at sockets and over HTTP, and of a client's own id.
MAX_CONTENT = 10_000
MAX_ID = 64
#: The largest cursor taken: more chunks than any stream may have.
MAX_CURSOR = 2**31 - 1


class QuestionGateway(StreamSource, Protocol):
    """What is used of the gateway."""

    def ask(self, question: Question) -> Snapshot: ...

    def cancel(self, stream_id: str, *, bot: str, principal: str) -> str: ...


class FindingGateway(QuestionGateway, Protocol):
    """What is used of the gateway where a question that was taken before is looked for first."""

    def find(self, question: Question) -> Snapshot | None: ...

    def person(self, question: Question) -> str: ...


class QuestionLimiter(Protocol):
    """Counts the questions of a person."""

    def question(self, principal: str, client_id: str) -> bool: ...


def iso_now() -> str:
    """Return the time as ISO 8601 in UTC, with milliseconds and Z."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
