"""The values of this package: a person's rating, the answer it is about, the ratings that wait for delivery."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from utils.tracing import Trace

#: "" withdraws the person's earlier rating.
Kind = Literal["like", "dislike", ""]
#: Name of a kind in metrics, log lines and documents.
NAMES: Mapping[Kind, str] = {"like": "like", "dislike": "dislike", "": "withdrawn"}
#: The most characters of a person's words that are kept.
MOST_CHARS = 4096

#: The outcome of a rating: taken; known (its event came before); stale (a later one came before); full (too many wait);
#: unknown (no such answer, or not for this person); running (the answer goes on); no_answer (a sentence of ours); kept
#: (Redis is away, and this process has it until then).
Outcome = Literal["taken", "known", "stale", "full", "unknown", "running", "no_answer", "kept"]


@dataclass(frozen=True, slots=True)
class Rating:
    """A person's rating of an answer. Its repr shows no words."""

    kind: Kind
    content: str = field(default="", repr=False)
    #: WeCom's numbers of reasons: 1 unrelated, 2 incomplete, 3 wrong content, 4 wrong analysis of data.
    reasons: tuple[int, ...] = ()
    #: When it was given, in whole seconds since 1970; 0 for now.
    at: int = 0
    #: The id of its event: a second one with the same id changes nothing. "" for none.
    event_id: str = ""

    def to_json(self) -> str:
        written = {"kind": self.kind, "content": self.content[:MOST_CHARS], "reasons": self.reasons}
        return json.dumps(written, ensure_ascii=False).encode("utf-8", "replace").decode()

    @classmethod
    def from_json(cls, text: str, at: int) -> Rating:
        """Return the rating that a replica of any version wrote.

        Raises:
            ValueError, KeyError, TypeError: the text is not a rating.
        """
        written = json.loads(text)
        return cls(written["kind"], written["content"], tuple(written["reasons"]), at)


@dataclass(frozen=True, slots=True)
class RatedAnswer:
    """An answer that can be rated."""

    #: Whether a provider was asked: only then it can be rated.
    asked: bool
    status: str
    #: The fingerprints of its readers.
    access: str
    bot: str = ""
    channel: str = ""
    #: The asking person's names for the provider and in the channel.
    user: str = ""
    asker: str = ""
    provider: str = ""
    message_id: str = ""
    conversation_id: str = ""
    #: Whether the built-in mock answered instead of the provider.
    mock: bool = False
    #: The app that was chosen, "" for the bot's own.
    app: str = ""
    #: The trace of its question.
    trace: Trace = field(default_factory=Trace)

    @classmethod
    def from_reply(cls, reply: Sequence[Any]) -> RatedAnswer:
        """Take the reply of lua/feedback_note.lua."""
        asked, status, access, asker, user_info, provider, message_id, conversation_id, mock, app = reply
        known = json.loads(asker) if asker else {}
        name = known.get("user", "")
        user = (json.loads(user_info).get("user_code") if user_info else "") or name
        asked_by = (known.get("bot", ""), known.get("channel", ""), user, name)
        found = (provider, message_id, conversation_id, mock == "1", app)
        return cls(asked == 1, status, access, *asked_by, *found, Trace("", known.get("traceparent", "")))


@dataclass(frozen=True, slots=True)
class SealedRating:
    """A person's last rating as Redis has it."""

    person: str
    at: int
    #: Its place among all ratings of the answer.
    seq: int
    sealed: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Ratings:
    """All ratings of one answer, and how far they were delivered."""

    seq: int
    #: The last sequence number that SQL has, and the provider.
    saved: int
    sent: int
    tries: int
    #: When the first undelivered one came, by Redis's clock.
    since: float
    people: tuple[SealedRating, ...]

    @classmethod
    def from_fields(cls, fields: Mapping[str, str]) -> Ratings:
        seq, saved, sent, tries = (int(fields.get(name, 0)) for name in ("seq", "saved", "sent", "tries"))
        people = []
        for name, value in fields.items():
            if name.startswith("a:"):
                at, place = value.split(" ")
                people.append(SealedRating(name[2:], int(at), int(place), fields.get(f"r:{name[2:]}", "")))
        return cls(seq, saved, sent, tries, float(fields.get("since", 0)), tuple(people))
