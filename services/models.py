"""The values that cross floors: a question, who asks it, what a provider says, what a stream looks like."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

_write_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode

Status = Literal["processing", "completed", "error", "cancelled"]
AuthState = Literal[
    "",
    "cached",
    "renewed",
    "unknown_user",
    "auth_refused",
    "auth_unavailable",
    "credential_lost",
    "not_allowed",
    "none",
]


@dataclass(frozen=True, slots=True)
class Question:
    """All that any replica needs to ask it, and ask it again."""

    text: str
    #: The name of the channel it came through (`services.channels.Channel.name`).
    channel: str
    bot: str
    #: Who asks: WeCom's userid, a socket's client, a batch's key.
    principal: str
    #: The group's chatid; "" in a single chat.
    chat: str = ""
    #: The client's own id of this message, the base of dedupe; "" where it has none.
    msgid: str = ""
    inputs: Mapping[str, Any] = field(default_factory=dict)
    #: The provider's ids of uploaded files.
    files: tuple[str, ...] = ()
    #: The client's own conversation on a door that has none by itself: no right to read. "" asks without any memory.
    session: str = ""
    #: A socket user's token, sealed: another replica may have to ask as this person.
    credential: str = field(default="", repr=False)

    def to_json(self) -> str:
        # Not asdict, which copies deeply what is only read.
        return _write_json({name: getattr(self, name) for name in self.__slots__})

    @classmethod
    def from_json(cls, text: str) -> Question:
        """Return the question a replica of this or another version wrote; what is new there is passed over.

        Raises:
            ValueError, KeyError, TypeError: it is none.
        """
        written = json.loads(text)
        known = {field.name: written[field.name] for field in fields(cls) if field.name in written}
        words = [value for name, value in known.items() if name not in ("inputs", "files")]
        if not all(isinstance(word, str) for word in words):
            raise TypeError("a question's words are strings")
        return cls(**{**known, "files": tuple(written.get("files", ()))})


@dataclass(frozen=True, slots=True)
class UserInfo:
    """A user as the SQL store knows one, without the password."""

    user_code: str
    user_name: str = ""
    phone: str = ""
    gender: str = ""

    def to_json(self) -> str:
        return _write_json(asdict(self))


@dataclass(frozen=True, slots=True)
class Identity:
    """The outcome of authentication. `token` is "" in the modes that have none and is never logged or stored."""

    state: AuthState
    user: UserInfo | None = None
    token: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Turn:
    """A question of a conversation and its answer, both as they were said."""

    question: str
    answer: str


@dataclass(frozen=True, slots=True)
class Query:
    """What a provider is asked: a question with its person resolved."""

    text: str
    #: The provider's end-user id: user_code, or the userid where there is no user record.
    user: str
    #: "" starts a new conversation.
    conversation_id: str = ""
    inputs: Mapping[str, Any] = field(default_factory=dict)
    files: tuple[str, ...] = ()
    identity: Identity = Identity("none")
    #: The name of the channel the question came through.
    channel: str = ""
    #: The conversation's earlier turns, the oldest first; only for providers that keep no conversations themselves.
    history: tuple[Turn, ...] = ()
    #: What an earlier owner of the stream wrote of the answer already, and the sources it kept; for `recover` only.
    said: str = ""
    sources: tuple[Mapping[str, Any], ...] = ()
    #: When it was put to the provider, in seconds since 1970; 0 for unknown. For `recover` only.
    asked_at: float = 0.0
    #: Whether to wait here when a busy provider asks for a short pause; False where it is asked again later.
    waits_for_provider: bool = True
    #: The language of the built-in mock's answer, "zh" or "en".
    mock_language: str = "zh"


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of the answer, to be appended as it is."""

    text: str


@dataclass(frozen=True, slots=True)
class Replacement:
    """The whole answer anew: what was sent so far no longer counts."""

    text: str


@dataclass(frozen=True, slots=True)
class ProviderIds:
    """The provider's names of this run; each is "" until known. Sent whenever one becomes known."""

    conversation_id: str = ""
    message_id: str = ""
    task_id: str = ""
    run_id: str = ""

    @property
    def findable(self) -> bool:
        """Whether the run's answer can be looked up by them."""
        return bool(self.run_id or (self.message_id and self.conversation_id))


@dataclass(frozen=True, slots=True)
class Complete:
    """The provider has said its last word: the text is whole."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What the answer cost: tokens as counted by the provider, price as its decimal string."""

    total_tokens: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_price: str = ""
    currency: str = ""
    sources: tuple[Mapping[str, Any], ...] = ()

    @property
    def price(self) -> float:
        """The price as a number, 0 where there is none or it cannot be read as one."""
        try:
            price = float(self.total_price or 0)
        except ValueError:
            return 0.0
        return price if 0 < price < float("inf") else 0.0

    @property
    def known(self) -> dict[str, Any]:
        """The figures, as JSON has them; empty where the provider counted nothing."""
        return self.figures() if self.total_tokens or self.total_price else {}

    def figures(self) -> dict[str, Any]:
        """Return what was counted, as JSON has it: all but the sources."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name != "sources"}


@dataclass(frozen=True, slots=True)
class Mocked:
    """What follows is the built-in mock's: the provider failed, and `MOCK_FALLBACK` is on."""


@dataclass(frozen=True, slots=True)
class Told:
    """What else the provider says of its answer, such as the model and why it ended: JSON values."""

    fields: Mapping[str, Any]


ProviderEvent = Delta | Replacement | ProviderIds | Usage | Mocked | Told | Complete


@dataclass(frozen=True, slots=True)
class Recovered:
    """The whole answer to a question that was asked before, as the provider has it."""

    text: str
    usage: Usage = Usage()
    #: The run's names, where it was found without any.
    ids: ProviderIds = ProviderIds()


@dataclass(frozen=True, slots=True)
class Past:
    """What earlier owners of a stream did for its question."""

    #: How often the provider was asked, or was about to be.
    asks: int
    ids: ProviderIds
    #: The answer as far as it was written.
    text: str
    #: Its sources, as far as they were known.
    sources: tuple[Mapping[str, Any], ...] = ()
    #: How often the conversation had been begun anew when the question was first asked; "" where nobody noted it.
    resets: str = ""
    #: Whether the question may be asked once more where its answer is lost.
    may_ask: bool = True
    #: When the provider was last asked, in seconds since 1970; 0 where nobody noted it.
    asked_at: float = 0.0
