"""The events of an answer beside those of the provider, its handlers, and how usage and sources are stored."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from services.attachments import AnswerFile
from services.errors import Unrecoverable
from services.models import Complete, Delta, Identity, ProviderEvent, ProviderIds, Question, Replacement, Usage
from services.streams.owned_stream import OwnedStream
from utils.citations import typed_source

#: The number of sources kept with an answer, and their bytes as JSON.
MAX_SOURCES = 20
SOURCES_BYTES = 64 * 1024
#: Bytes of JSON kept of the provider's other fields.
METADATA_BYTES = 8 * 1024

#: Maximal characters of a second answer that are held back: the default limit of an answer in bytes.
MAX_HELD = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Waiting:
    """The question waits for earlier questions of its conversation, or stopped waiting."""

    waiting: bool


@dataclass(frozen=True, slots=True)
class AppChosen:
    """The app that answers, by the name that a rule has of it; the next write stores it."""

    name: str


@dataclass(frozen=True, slots=True)
class Asking:
    """The provider is about to be asked; the receiver must store this before it continues."""

    #: The number of this request to the provider, counted over all owners.
    asks: int = 1
    #: Why an earlier owner's answer could not be recovered; "" for the first request.
    cause: str = ""
    #: The provider's name.
    provider: str = ""
    #: How often the conversation had been reset before this request; "" if unknown.
    resets: str = ""
    #: The provider's conversation id; "" for a new conversation.
    conversation_id: str = ""
    #: The name that the question begins with in a shared group; "" elsewhere.
    speaker: str = ""
    #: The ids of the run, where it goes on with a person's answer to a form, and that form, sealed.
    ids: ProviderIds = field(default_factory=ProviderIds)
    form: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Resumed:
    """The result of looking up an answer at the provider."""

    outcome: Literal["extended", "replaced", "unchanged", "lost"]
    #: Why the answer is lost.
    cause: str = ""
    #: Why it was looked up: `owner_lost` or `stream_broken`.
    reason: str = "owner_lost"


class LateDelivery(Protocol):
    """Sends late messages: text that a frame could not carry, after the answer's end."""

    def overflows(self, question: Question, stream: OwnedStream, code: str) -> bool:
        """Return whether an answer that ends with this error code ("" for none) is larger than its frame."""

    def deliver(self, question: Question, stream: OwnedStream) -> str:
        """Send the late message of a stream whose end claimed it; store and return the outcome. Never raises."""


class AnswerFiles(Protocol):
    """Keeps the pictures and files of one answer."""

    def attached(self, files: tuple[AnswerFile, ...]) -> None:
        """Note files that the provider sent; an empty tuple discards the earlier ones."""

    def grew(self, text: str) -> None:
        """Note that the text grew by `text`."""

    def collect(self) -> None:
        """Wait, for seconds at most, until the files of the complete answer are stored. Never raises."""


@dataclass(frozen=True, slots=True)
class AskedBack:
    """The answer ends with forms that wait for the person."""

    #: The choices of its only form as `OfferedChoices` in JSON, "" where there are several.
    choices: str = ""


@dataclass(frozen=True, slots=True)
class StepNote:
    """The step to name while there is no text, "" for none; never part of the text."""

    title: str
    #: Whether it is worth a write of its own; else it goes along with the stream's next one.
    soon: bool = False


@dataclass(frozen=True, slots=True)
class Suggested:
    """The questions suggested after the answer, one per line; never part of the text."""

    lines: str


@dataclass(frozen=True, slots=True)
class Uploaded:
    """Files of the question were taken in; the receiver must store a new id before it continues."""

    #: The provider's ids of all files so far, as in `Question.files`; none of files within the question.
    files: tuple[str, ...]
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Reserved:
    """The quotas of the question have changed; the receiver must store this before it continues."""

    #: The stream's field `quotas`.
    quotas: str


AnswerEvent = (
    ProviderEvent
    | Identity
    | AppChosen
    | Reserved
    | Waiting
    | Asking
    | Resumed
    | Uploaded
    | AskedBack
    | StepNote
    | Suggested
)


def difference(before: str, whole: str, reason: str = "owner_lost") -> tuple[Delta | Replacement | Resumed, ...]:
    """Return the events that turn the text `before` into the answer `whole`.

    White space around an answer is ignored, because Dify strips it.

    Raises:
        Unrecoverable: `whole` is shorter than the text that was shown, as after an aborted run.
    """
    shown = before.lstrip()
    if whole.startswith(shown) and whole != shown:
        return Resumed("extended", reason=reason), Delta(whole[len(shown) :])
    if whole == shown.rstrip() or whole == shown:
        return (Resumed("unchanged", reason=reason),)
    if shown.startswith(whole):
        raise Unrecoverable(f"the provider kept {len(whole)} of {len(shown)} characters")
    return Resumed("replaced", reason=reason), Replacement(whole)


def anew(events: Iterator[AnswerEvent], before: str, *, most: int = MAX_HELD) -> Iterator[AnswerEvent]:
    """Yield the events of a second answer such that the shown text `before` never gets shorter.

    The new text is held back until it begins with `before`; then only the rest is yielded. If it differs, it replaces
    `before` once it is complete. If it fails earlier, `before` stays.
    """
    held, holds, differs = "", bool(before), False
    with closing(events):  # type: ignore[type-var]
        for event in events:
            if holds and isinstance(event, Complete) and held:
                holds = False
                yield Replacement(held)
            if not holds or not isinstance(event, Delta | Replacement):
                yield event
                continue
            if isinstance(event, Replacement):
                held, differs = "", False
            held += event.text
            # One comparison is enough: a text that differs at this length differs at any.
            if not differs and len(held) >= len(before):
                differs = not held.startswith(before)
                holds = differs
                if not differs and len(held) > len(before):
                    yield Delta(held[len(before) :])
            if differs and len(held) > most:
                holds = False
                yield Replacement(held)
        if holds and held:
            yield Replacement(held)


def written_sources(sources: Sequence[Mapping[str, Any]]) -> str:
    """Return an answer's sources as JSON, "" for none; the last ones are left out beyond the limits.

    All readers get them from there, so this is where sources of every provider get the same members.
    """
    kept = [typed_source(source) for source in sources[:MAX_SOURCES]]
    while kept:
        written = _json(kept)
        if len(written.encode()) <= SOURCES_BYTES:
            return written
        kept.pop()
    return ""


def written_metadata(fields: Mapping[str, Any]) -> str:
    """Return the provider's other fields as JSON, "" beyond `TOLD_BYTES`."""
    written = _json(dict(fields))
    return written if len(written.encode()) <= METADATA_BYTES else ""


def written_usage(usage: Usage) -> str:
    """Return an answer's usage as JSON."""
    return json.dumps(usage.figures(), separators=(",", ":"))


def read_usage(written: str | None) -> Usage:
    return Usage(**json.loads(written)) if written else Usage()


def read_sources(written: str | None) -> tuple[Mapping[str, Any], ...]:
    return tuple(json.loads(written)) if written else ()


def fingerprint(token: str) -> str:
    """Return a short hash that stands for a token in Redis, "" for ""."""
    return hashlib.sha256(token.encode()).hexdigest()[:16] if token else ""


def _json(value: Any) -> str:
    """Return a value as JSON that Redis can store; a half surrogate pair becomes a question mark."""
    written = json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)
    return written.encode("utf-8", "replace").decode()
