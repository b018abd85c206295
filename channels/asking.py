"""The part of the gateway and of the rate limiter that channels use, and limits on questions."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Protocol

from services.attachments import SentFile
from services.identity.callers import Caller
from services.models import Question
from services.streams.following import Update
from services.streams.long_text import FullAnswer
from services.streams.records import Snapshot

#: Maximum characters of a question (sockets, inputs over HTTP), and of an id chosen by the client.
MAX_CONTENT = 10_000
MAX_ID = 64
#: Files of one question, as of one message of WeCom, and the form of their ids.
MAX_FILES = 10
FILE_ID = r"[0-9a-f]{32}"
#: The largest cursor accepted; no stream may have so many chunks.
MAX_CURSOR = 2**31 - 1


class FollowedStream(Protocol):
    """A reader of one stream, as `services.streams.following.Following` is."""

    def next(self, timeout: float) -> Update | None: ...

    def full_answer(self) -> FullAnswer: ...


class StreamSource(Protocol):
    """The gateway, as readers use it."""

    def follow(
        self, stream_id: str, cursor: int = 0, *, bot: str, principal: str, text: bool = True
    ) -> FollowedStream: ...


class QuestionGateway(StreamSource, Protocol):
    """The gateway, as channels use it to ask and cancel."""

    def ask(self, question: Question) -> Snapshot: ...

    def cancel(self, stream_id: str, *, bot: str, principal: str) -> str: ...


class FindingGateway(QuestionGateway, Protocol):
    """The gateway, for channels that also look up questions asked before, and that send files with a question."""

    def ask(self, question: Question, *, media: Sequence[SentFile] = ()) -> Snapshot: ...

    def find(self, question: Question) -> Snapshot | None: ...

    def person(self, question: Question) -> str: ...


class UploadedFiles(Protocol):
    """Finds the files that a caller has uploaded for a question, as `services.files.uploads.FileUploads` does."""

    def claim(self, principal: str, file_ids: Sequence[str]) -> Sequence[SentFile]: ...


class QuestionLimiter(Protocol):
    """Counts a person's questions; False means that the limit is reached."""

    def question(self, principal: str, client_id: str) -> bool: ...


def on_behalf_of(caller: Caller, end_user: str, address: str) -> tuple[Caller, str]:
    """Return the caller for one of its own users, and the address by which its questions are counted.

    For an end user the address is "", so that the questions of other end users behind it do not count. A caller without
    an end user, and a person, keep the address.
    """
    asker = caller.on_behalf_of(end_user.strip())
    return asker, address if asker == caller else ""


def iso(seconds: float) -> str:
    """Return seconds since 1970 as ISO 8601 in UTC with milliseconds and Z."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def iso_now() -> str:
    return iso(time.time())
