"""The values that pass between packages: questions, users, provider events and attempts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from services.attachments import Attached, MediaFile
from services.forms import PendingForm
from utils.tracing import Trace

_write_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode

Status = Literal["processing", "completed", "error", "cancelled"]
AuthState = Literal[
    "",
    "cached",
    "renewed",
    "unknown_user",
    "auth_refused",
    "auth_unavailable",
    "store_refused",
    "credential_lost",
    "not_allowed",
    "none",
]


@dataclass(frozen=True, slots=True)
class Question:
    """A question with everything a replica needs to ask it, also for the second time."""

    text: str
    #: The name of the channel it came through (`services.channels.Channel.name`).
    channel: str
    bot: str
    #: WeCom's userid, or the principal of a socket, request or batch, such as "key:<fingerprint>".
    principal: str
    #: The group's chatid; "" in a single chat.
    chat: str = ""
    #: The client's own message id, used to find duplicates; "" without one.
    msgid: str = ""
    inputs: Mapping[str, Any] = field(default_factory=dict)
    #: The provider's ids of uploaded files as "<type>:<id>"; an id without a type is a "custom" file.
    files: tuple[str, ...] = ()
    #: The names of the message's files that were taken in, for the log; a later version's owners know them too.
    file_names: tuple[str, ...] = ()
    #: The files of the message that have to be fetched, as sealed JSON; "" for none. Those uploaded are in `files`.
    media: str = field(default="", repr=False)
    #: The conversation a client names, on channels without conversations of their own. It grants no right to read.
    #: "" asks without conversation memory.
    session: str = ""
    #: The messages that the client sent with the question, as JSON (`services/conversations/earlier.py`); "" for none.
    earlier: str = field(default="", repr=False)
    #: A socket user's sealed token, so that another replica can ask as this user.
    credential: str = field(default="", repr=False)
    #: The id of the card on which it was clicked; "" for a message. A click has no frame: its answer is a late message.
    card: str = ""
    #: The choice of a form that was clicked, as `services.forms.clicked_choice` writes it; "" for words.
    choice: str = ""
    #: The model and the temperature that the client asks for; "" and None leave them to the settings.
    model: str = ""
    temperature: float | None = None
    #: The ids of the request that asked it (`utils.tracing`).
    request_id: str = ""
    traceparent: str = ""

    @property
    def trace(self) -> Trace:
        return Trace(self.request_id, self.traceparent)

    @property
    def options(self) -> dict[str, Any]:
        """The options that the client gave for this question, by name; they go to the provider."""
        given = {"inputs": self.inputs or None, "model": self.model or None, "temperature": self.temperature}
        return {name: value for name, value in given.items() if value is not None}

    def to_json(self) -> str:
        # Not asdict: it makes deep copies.
        return _write_json({name: getattr(self, name) for name in self.__slots__})

    @classmethod
    def from_json(cls, text: str) -> Question:
        """Return the question that a replica of any version wrote. Unknown fields are ignored.

        Raises:
            ValueError, KeyError, TypeError: the text is not a question.
        """
        written = json.loads(text)
        known = {field.name: written[field.name] for field in fields(cls) if field.name in written}
        words = [value for name, value in known.items() if name not in ("inputs", "files", "file_names", "temperature")]
        if not all(isinstance(word, str) for word in words):
            raise TypeError("a question's words are strings")
        lists = {name: tuple(written.get(name, ())) for name in ("files", "file_names")}
        return cls(**{**known, **lists})


@dataclass(frozen=True, slots=True)
class UserInfo:
    """A user record of the SQL database, without the password."""

    user_code: str
    user_name: str = ""
    phone: str = ""
    gender: str = ""
    department: str = ""

    def to_json(self) -> str:
        """Return the documented JSON object; it has a department only where there is one."""
        return _write_json({name: value for name, value in asdict(self).items() if value or name != "department"})


@dataclass(frozen=True, slots=True)
class Identity:
    """The result of authentication. `token` is "" in modes without tokens and is never logged or stored."""

    state: AuthState
    user: UserInfo | None = None
    token: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Contact:
    """A person's entry in the company's directory; each field is "" where it is unknown."""

    #: The plain userid; a callback may have an encrypted one.
    userid: str = ""
    name: str = ""
    #: The names of the departments, the main one first, joined by ", ".
    department: str = ""


@dataclass(frozen=True, slots=True)
class Asker:
    """The person who asks, the chat and the message: the values of the placeholders of DIFY_INPUTS with these names."""

    userid: str = ""
    name: str = ""
    department: str = ""
    #: The group's id; "" in a single chat.
    chatid: str = ""
    chattype: str = "single"
    bot: str = ""
    msgid: str = ""


@dataclass(frozen=True, slots=True)
class Exchange:
    """One question of a conversation and its answer, unchanged."""

    question: str
    answer: str


@dataclass(frozen=True, slots=True)
class Query:
    """A provider's input: a question with its authenticated user."""

    text: str
    #: The provider's end-user id: user_code, or the userid without a user record.
    user: str
    #: "" starts a new conversation.
    conversation_id: str = ""
    inputs: Mapping[str, Any] = field(default_factory=dict)
    files: tuple[str, ...] = ()
    #: Files that are sent within the question, by a provider that takes them so.
    media: tuple[MediaFile, ...] = ()
    identity: Identity = Identity("none")
    #: The name of the channel the question came through.
    channel: str = ""
    #: The conversation's earlier exchanges, oldest first; only for providers that keep no conversations themselves.
    history: tuple[Exchange, ...] = ()
    #: The messages that the client sent with the question: instructions, and exchanges, oldest first. `before` is the
    #: part of `text` that has them, for a provider without fields for them.
    instructions: str = field(default="", repr=False)
    earlier: tuple[Exchange, ...] = ()
    before: str = field(default="", repr=False)
    #: The text and the sources that an earlier owner of the stream stored; for `recover` only.
    stored_text: str = ""
    sources: tuple[Mapping[str, Any], ...] = ()
    #: When the provider was asked, in seconds since 1970; 0 if unknown. For `recover` only.
    asked_at: float = 0.0
    #: Whether to wait here when a busy provider asks for a short pause; False where it is asked again later.
    waits_for_provider: bool = True
    #: The language of the built-in mock's answer, "zh" or "en".
    mock_language: str = "zh"
    asker: Asker = Asker()
    #: The name that `text` begins with, before ": ", in a group that shares one conversation; "" in every other chat.
    speaker: str = ""
    #: The model and the temperature that the client asks for; "" and None leave them to the settings.
    model: str = ""
    temperature: float | None = None

    @property
    def question(self) -> str:
        """The question alone, with the name of its speaker."""
        return self.text.removeprefix(self.before)

    @property
    def words(self) -> str:
        """The question as the person wrote it."""
        return self.question.removeprefix(f"{self.speaker}: ") if self.speaker else self.question


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of the answer, to be appended unchanged."""

    text: str


@dataclass(frozen=True, slots=True)
class Replacement:
    """The whole answer so far. It replaces all text sent before."""

    text: str


@dataclass(frozen=True, slots=True)
class ProviderIds:
    """The provider's ids of this run, each "" until known or if it has none such. Sent whenever one becomes known."""

    conversation_id: str = ""
    message_id: str = ""
    task_id: str = ""
    run_id: str = ""

    @property
    def name_run(self) -> bool:
        """Whether an id of the run itself is known, not only that of its conversation."""
        return bool(self.message_id or self.task_id or self.run_id)


@dataclass(frozen=True, slots=True)
class Complete:
    """The provider has finished: the text is complete."""


@dataclass(frozen=True, slots=True)
class Usage:
    """The cost of an answer: tokens as the provider counted them, the price as its decimal string."""

    total_tokens: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_price: str = ""
    currency: str = ""
    sources: tuple[Mapping[str, Any], ...] = ()

    @property
    def price(self) -> float:
        """The price as a number; 0 if it is missing or not a positive finite number."""
        try:
            price = float(self.total_price or 0)
        except ValueError:
            return 0.0
        return price if 0 < price < float("inf") else 0.0

    @property
    def known(self) -> dict[str, Any]:
        """The figures as a JSON object; empty if the provider counted nothing."""
        return self.figures() if self.total_tokens or self.total_price else {}

    def figures(self) -> dict[str, Any]:
        """Return all fields but the sources, as a JSON object."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name != "sources"}


@dataclass(frozen=True, slots=True)
class Mocked:
    """The text after this comes from the built-in mock: the provider failed and `MOCK_FALLBACK` is on."""


@dataclass(frozen=True, slots=True)
class Metadata:
    """Further facts about the answer, such as the model and the finish reason; JSON values."""

    fields: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Step:
    """A node of a workflow or a tool of an agent has begun; its title is the app's, of any length."""

    title: str
    #: The title by language ("zh", "en"), where the app has it in more than one.
    labels: Mapping[str, str] = field(default_factory=dict)


ProviderEvent = Delta | Replacement | ProviderIds | Usage | Mocked | Attached | Metadata | PendingForm | Step | Complete


@dataclass(frozen=True, slots=True)
class Attempt:
    """The work of earlier owners of a stream on its question."""

    #: How often the provider was asked or was about to be asked.
    asks: int
    ids: ProviderIds
    #: The answer as far as it was stored.
    text: str
    #: The answer's sources, as far as they were stored.
    sources: tuple[Mapping[str, Any], ...] = ()
    #: How often the conversation had been reset when the question was first asked; "" if not recorded.
    resets: str = ""
    #: Whether the question may be asked again if its answer is lost.
    may_ask: bool = True
    #: When the provider was last asked, in seconds since 1970; 0 if not recorded.
    asked_at: float = 0.0
    #: The name that the question was sent with; "" for none.
    speaker: str = ""
    #: The form that the question answered, sealed; "" if it is no answer to a form.
    form: str = field(default="", repr=False)
    #: What the stream has taken of quotas.
    quotas: str = ""
    #: The name of the last owner; "" for a stream without an earlier one.
    owner: str = ""
    #: The app that was chosen; "" if none was yet.
    app: str = ""
