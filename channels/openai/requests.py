"""Makes a question of a request: its model, its end user, its conversation, and the earlier messages.

Its pictures are addresses, which the gateway fetches, and `data:` URLs, which contain the picture.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast

from flask import request

from channels.asking import MAX_ID, on_behalf_of
from channels.openai.errors import invalid
from channels.openai.models import ChatMessage, CompletionRequest, ContentPart
from channels.registry import OPENAI
from channels.web import rest
from services.attachments import Media, MediaFile, SentFile
from services.conversations.earlier import Earlier, EarlierMessage, exchanges_of, written
from services.conversations.session_store import Talk, TextDigest
from services.files.kinds import file_of, recognized
from services.identity.callers import Caller
from services.models import Question
from utils.thinking import fold_thinking

#: Pictures of one question, and characters of an address.
MAX_PICTURES = 10
MAX_ADDRESS = 8192

#: Bytes of the largest request body without pictures.
TEXT_BYTES = 4 * 1024 * 1024
_CONVERSATION = re.compile(r"[A-Za-z0-9._-]{1,64}")
_KEY = re.compile(r"[\x20-\x7e]{1,255}")


def sent_pictures(parts: Sequence[ContentPart], param: str, *, max_bytes: int) -> tuple[SentFile, ...]:
    """Return the pictures among a question's parts; those of `data:` URLs have `max_bytes` together at most.

    Raises:
        RestError: there are too many, or one of them is no picture and no http address.
    """
    found: list[SentFile] = []
    for number, part in enumerate(parts):
        if part.type == "image_url":
            url = part.image_url.url if part.image_url else ""
            found.append(_picture(url, f"{param}[{number}].image_url"))
    if len(found) > MAX_PICTURES:
        raise invalid(f"A question has {MAX_PICTURES} pictures at most.", param)
    if sum(len(file.content) for file in found if isinstance(file, MediaFile)) > max_bytes:
        message = f"The pictures are too large: {max_bytes} bytes are taken at most in one question."
        raise invalid(message, param, code="image_file_too_large")
    return tuple(found)


def _picture(url: str, param: str) -> SentFile:
    scheme, _, rest = url.partition(":")
    if scheme.lower() == "data":
        return _from_data(rest, param)
    if scheme.lower() not in ("http", "https") or len(url) > MAX_ADDRESS:
        message = f"A picture is an https address of {MAX_ADDRESS} characters at most, or a data: URL."
        raise invalid(message, param, code="invalid_image_url")
    return Media("image", url, place="web")


def _from_data(data: str, param: str) -> MediaFile:
    """Return the picture of a `data:` URL without its scheme. Its bytes tell the type, not the URL."""
    head, _, encoded = data.partition(",")
    try:
        content = base64.b64decode(encoded, validate=True) if head.lower().endswith(";base64") else b""
    except ValueError:
        content = b""
    if not content:
        raise invalid("It is no data: URL with base64.", param, code="invalid_base64_image")
    if not recognized("", content, "image").is_picture:
        raise invalid("It is no picture.", param, code="unsupported_image_media_type")
    return file_of("image", "", content)


class PictureRules(NamedTuple):
    """The limit on a question's pictures, and the words for pictures without words."""

    #: Bytes of all pictures that come with one question.
    max_bytes: int
    #: The question for pictures without words.
    question: str

    @property
    def body_bytes(self) -> int:
        """The bytes of the largest request body: pictures come as base64."""
        return TEXT_BYTES + self.max_bytes * 4 // 3


@dataclass(frozen=True, slots=True)
class AskedCompletion:
    """A request for an answer, checked."""

    model: str
    caller: Caller
    #: The words of the last message, "" where it has pictures alone; and the question.
    words: str
    text: str
    pictures: tuple[SentFile, ...]
    earlier: Earlier
    #: The earlier messages, as the client sees them.
    talk: Talk
    #: The conversation that the client names, "" for none.
    conversation: str
    #: The client's Idempotency-Key ("" for none), and the digest of the request.
    key: str
    digest: str
    streams: bool
    counts: bool
    #: None if the client sent none, or the provider accepts none.
    temperature: float | None
    #: The client's address, for limits; "" where the end user is limited.
    address: str

    def question(self, session: str, *, earlier: bool) -> Question:
        """Return the question in a conversation; `earlier` whether the earlier messages go along."""
        return Question(
            self.text,
            OPENAI.name,
            self.model,
            self.caller.principal,
            msgid=self.key,
            session=session,
            temperature=self.temperature,
            credential=self.caller.credential,
            earlier=written(self.earlier) if earlier else "",
        )


def asked_completion(caller: Caller, models: Mapping[str, Collection[str]], rules: PictureRules) -> AskedCompletion:
    """Return the question of the Flask request; `models` has the options that each model accepts.

    Raises:
        RestError: the request is malformed, or needs a feature that no model here has.
    """
    sent = rest.json_body(max_bytes=rules.body_bytes)
    asked = rest.parsed(CompletionRequest, sent)
    check_model(asked.model, models)
    _check_unsupported(asked)
    *before, last = asked.messages
    if last.role != "user":
        raise invalid("The last message has to be the user's question.", f"messages[{len(before)}].role")
    param = f"messages[{len(before)}].content"
    pictures = sent_pictures(_parts(last), param, max_bytes=rules.max_bytes)
    words = _words(last, param, alone=not pictures)
    conversation = _conversation(asked)
    for_user, address = on_behalf_of(caller, asked.user or "", request.remote_addr or "")
    return AskedCompletion(
        model=asked.model,
        caller=for_user,
        words=words,
        text=words or rules.question,
        pictures=pictures,
        earlier=_earlier(before),
        talk=Talk(asked.model, for_user.principal, tuple(_digests(before))),
        conversation=conversation,
        key=_idempotency_key(),
        digest=hashlib.sha256(sent + b"\n" + conversation.encode()).hexdigest(),
        streams=bool(asked.stream),
        counts=bool(asked.stream_options and asked.stream_options.include_usage),
        temperature=asked.temperature if "temperature" in models[asked.model] else None,
        address=address,
    )


def check_model(model: str, models: Collection[str]) -> None:
    """Check that a model is offered.

    Raises:
        RestError: 404 `model_not_found`.
    """
    if model not in models:
        message = "There is no such model; GET /v1/models lists those there are."
        raise invalid(message, "model", status=404, code="model_not_found")


def _check_unsupported(asked: CompletionRequest) -> None:
    """Refuse parameters whose effect on the form of an answer is not supported; others are ignored."""
    if asked.n not in (None, 1):
        raise invalid("Only one choice is made: n has to be 1.", "n", code="unsupported_value")
    if asked.tool_choice not in (None, "none", "auto"):
        message = "No tools are called here: tool_choice has to be auto or none."
        raise invalid(message, "tool_choice", code="unsupported_value")
    form = asked.response_format
    if form is not None and not (isinstance(form, dict) and form.get("type") == "text"):
        message = "Answers are text: response_format has to be text."
        raise invalid(message, "response_format", code="unsupported_value")


def _conversation(asked: CompletionRequest) -> str:
    """Return the conversation that the header or the metadata names, "" for none."""
    named = (asked.metadata or {}).get("conversation_id")
    header = request.headers.get("X-Conversation-Id")
    if named is not None and header is not None and named != header:
        raise invalid("It differs from the header X-Conversation-Id.", "metadata.conversation_id")
    name = header if named is None else named
    if name is None:
        return ""
    if not (isinstance(name, str) and _CONVERSATION.fullmatch(name)):
        message = f"A conversation has 1 to {MAX_ID} letters, digits, '.', '_' and '-'."
        raise invalid(message, "metadata.conversation_id")
    return name


def _idempotency_key() -> str:
    key = request.headers.get("Idempotency-Key", "")
    if "Idempotency-Key" in request.headers and not _KEY.fullmatch(key):
        raise invalid("An Idempotency-Key has 1 to 255 printable ASCII characters.", "Idempotency-Key")
    return key


def _words(message: ChatMessage, param: str, *, alone: bool) -> str:
    """Return the words of a question; where they are `alone`, there have to be some."""
    parts = _parts(message)
    if any(part.type not in ("text", "image_url") for part in parts):
        raise invalid("Only text and pictures are taken in a question.", param, code="unsupported_value")
    words = _text(parts).strip()
    if alone and not words:
        raise invalid("The question is empty.", param)
    return words


def _earlier(messages: Sequence[ChatMessage]) -> Earlier:
    """Return the texts of the messages before the question. Thinking and calls of tools are left out."""
    texts = [(message.role, _visible_text(message).strip()) for message in messages]
    instructions = "\n\n".join(text for role, text in texts if role in ("system", "developer") and text)
    sent = [cast(EarlierMessage, each) for each in texts if each[0] in ("user", "assistant") and each[1]]
    return Earlier(instructions, exchanges_of(sent))


def _digests(messages: Sequence[ChatMessage]) -> list[tuple[str, str]]:
    """Return the digests of the messages of user and model, by which a conversation is found."""
    talked = (message for message in messages if message.role in ("user", "assistant"))
    return [(message.role, TextDigest(_visible_text(message)).hex) for message in talked]


def _visible_text(message: ChatMessage) -> str:
    """Return a message's text, without the thinking that some clients send back in it."""
    text = _text(_parts(message))
    return fold_thinking(text, "hide") if message.role == "assistant" else text


def _parts(message: ChatMessage) -> Sequence[ContentPart]:
    if isinstance(message.content, str):
        return [ContentPart(type="text", text=message.content)]
    return message.content or ()


def _text(parts: Sequence[ContentPart]) -> str:
    return "\n".join(part.text for part in parts if part.type == "text" and part.text)
