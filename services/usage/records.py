"""What is kept of an ended stream: an entry of the log, with the dimensions and counts of the sums."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from typing import Any, Literal, NamedTuple
from zoneinfo import ZoneInfo

from config.apps import OWN_APP
from services.channels import Channels
from services.identity.callers import USER
from services.metrics import currency_label
from services.models import Contact, Question, Usage
from services.streams.answer_events import read_usage
from services.usage.ended_store import StoredStream

#: Whether a log is written, and whether it has people's words.
LogMode = Literal["off", "meta", "full"]
#: Decimal places of a price, and the first price that is too large to be one.
PLACES = Decimal("1e-9")
MOST_PRICE = Decimal(1_000_000)
#: What was clicked to ask the question: a suggested question on a card, or the choice of a form; "" for typed words.
Click = Literal["", "suggestion", "form"]


class Dimensions(NamedTuple):
    """What the daily sums are kept by; each text is "" where it is unknown or does not apply."""

    #: The day of the question in REPORT_TZ.
    day: date
    bot: str
    #: Its name; with `:` and the app's, where a rule chose one of `APPS`.
    provider: str
    model: str
    channel: str
    department: str
    #: WeCom's userid, or the user that a checked token names.
    person: str
    #: completed, cancelled, or the error's code.
    outcome: str
    currency: str


@dataclass(frozen=True, slots=True)
class Counts:
    """What is added up; None where the provider did not report it."""

    seconds: float
    tokens: int | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    price: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """One question with its answer. Its repr shows no words."""

    stream_id: str
    time: datetime
    dimensions: Dimensions
    counts: Counts
    #: The columns of the log beside these, by name.
    rest: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class EntryMaker:
    """Makes entries. `limit` is the bytes of a question and of an answer that a log with words keeps."""

    channels: Channels
    zone: ZoneInfo
    mode: LogMode
    limit: int

    @property
    def text_bytes(self) -> int:
        """The bytes of an answer's text that are needed."""
        return self.limit if self.mode == "full" else 0

    def is_of_directory(self, question: Question) -> bool:
        """Tell whether the question's principal is a userid of the bot's directory."""
        return question.channel in self.channels and self.channels.of(question).authenticates == "directory"

    def entry(self, stream_id: str, ended: float, stream: StoredStream, question: Question, contact: Contact) -> Entry:
        """Return the entry of a stream that ended at `ended`, in seconds since 1970.

        Raises:
            ValueError, KeyError, TypeError: the stream's fields cannot be read.
        """
        fields = stream.fields
        asked = datetime.fromisoformat(fields["created_time"])
        user = json.loads(fields["user_info"] or "{}")
        person, caller = self._persons(question, contact)
        end = datetime.fromisoformat(stream.end) if stream.end else datetime.fromtimestamp(ended, UTC)
        usage, is_asked = read_usage(fields["usage"]), fields["asks"] not in ("", "0")
        price = _price(usage) if is_asked else Decimal(0)
        dimensions = Dimensions(
            asked.astimezone(self.zone).date(),
            question.bot,
            _provider(fields),
            _model(fields["reported"]) or question.model,
            question.channel,
            (contact.department or user.get("department", "")).split(", ")[0],
            person,
            "completed" if stream.status == "completed" else fields["error_code"] or stream.status,
            currency_label(usage.currency) if price is not None and usage.currency else "",
        )
        tokens = _tokens(usage) if is_asked else (0, 0, 0)
        counts = Counts(_seconds(asked, end), *tokens, price)
        rest = {
            "caller": caller,
            "name": contact.name or user.get("user_name", ""),
            "chat_kind": "group" if question.chat else "single",
            "first_text_seconds": _first(asked, stream),
            "bytes": stream.size,
            **{name: fields[name] for name in ("message_id", "conversation_id", "task_id", "run_id")},
            "sources": stream.sources,
            "clicked": _clicked(question),
            "replica": fields["owner"].rpartition(":")[0],
            "takeovers": int(fields["takeovers"] or 0),
            "asks": int(fields["asks"] or 0),
            **self._words(question, stream),
        }
        return Entry(stream_id, asked, dimensions, counts, rest)

    def _persons(self, question: Question, contact: Contact) -> tuple[str, str]:
        """Return the person, "" if nobody checked who it is, and the name of any other caller."""
        if self.is_of_directory(question):
            return contact.userid or question.principal, ""
        if question.principal.startswith(USER):
            return question.principal.removeprefix(USER), ""
        return "", question.principal

    def _words(self, question: Question, stream: StoredStream) -> dict[str, Any]:
        if self.mode != "full":
            return {"question": None, "answer": None, "files": None, "has_words": 0}
        words = (_cut(question.text, self.limit), _cut(stream.text, self.limit))
        return {
            "question": words[0],
            "answer": words[1],
            "files": list(question.file_names or question.files),
            "has_words": 1,
        }


def ended_question(stream: StoredStream) -> Question:
    """Return a stream's question.

    Raises:
        ValueError, KeyError, TypeError: it cannot be read.
    """
    return Question.from_json(stream.fields["question"])


def _clicked(question: Question) -> Click:
    if question.choice:
        return "form"
    return "suggestion" if question.card else ""


def _provider(fields: Mapping[str, str]) -> str:
    if fields["mock"] == "1":
        return "mock"
    app = fields["app"] if fields["app"] != OWN_APP else ""
    return ":".join(filter(None, (fields["provider"], app)))


def _model(reported: str) -> str:
    """Return the model that the provider named, "" if it named none."""
    written = json.loads(reported) if reported else {}
    model = written.get("model") if isinstance(written, dict) else ""
    return model if isinstance(model, str) else ""


def _tokens(usage: Usage) -> tuple[int | None, int | None, int | None]:
    """Return all tokens, those of the prompt and those of the answer; None for what was not reported."""
    parts = usage.prompt_tokens, usage.completion_tokens
    total = max(usage.total_tokens, sum(parts))
    if total <= 0:
        return None, None, None
    return (total, *parts) if any(parts) else (total, None, None)


def _price(usage: Usage) -> Decimal | None:
    """Return the price; None if it was not reported, or is none."""
    try:
        price = Decimal(usage.total_price)
    except InvalidOperation:
        return None
    return price.quantize(PLACES) if price.is_finite() and 0 <= price < MOST_PRICE else None


def _seconds(begin: datetime, end: datetime) -> float:
    # The machines' clocks differ a little.
    return round(max(0.0, (end - begin).total_seconds()), 3)


def _first(asked: datetime, stream: StoredStream) -> float | None:
    return _seconds(asked, datetime.fromisoformat(stream.first_text)) if stream.first_text else None


def _cut(text: str, limit: int) -> str:
    """Return the beginning of a text that has at most `limit` bytes; a half character is left out."""
    return text.encode("utf-8", "replace")[:limit].decode("utf-8", "ignore")
