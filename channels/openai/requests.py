"""Makes a question of a request: its model, its end user, its conversation, and the earlier messages.

Its pictures are addresses, which the gateway fetches, and `data:` URLs, which contain the picture.
"""

from __future__ import annotations

import base64
import hashlib
import logging
import re
import secrets
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast

from flask import request

from channels.asking import MAX_ID, on_behalf_of
from channels.openai.errors import invalid
from channels.openai.models import ChatMessage, CompletionRequest, ContentPart
from channels.registry import OPENAI
from channels.web import rest
from channels.web.json_shape import JsonShape
from services import metrics
from services.attachments import Media, MediaFile, SentFile
from services.conversations.earlier import Earlier, EarlierMessage, exchanges_of, written
from services.conversations.session_store import ClaimedSession, SessionStore, Talk, TextDigest
from services.errors import StoreUnavailable
from services.files.kinds import file_of, recognized
from services.identity.callers import Caller
from services.models import Question
from utils.thinking import fold_thinking

#: Pictures of one question, and characters of an address.
MAX_PICTURES = 10
MAX_ADDRESS = 8192

#: `data:` URLs of one request whose bytes do not count as text; clients send those of earlier messages again.
MAX_DATA_URLS = 1000
#: The members of a request: clients send the tools that they have.
SHAPE = JsonShape(values=200_000, members=10_000)
_CONVERSATION = re.compile(r"[A-Za-z0-9._-]{1,64}")
_KEY = re.compile(r"[\x20-\x7e]{1,255}")


def sent_pictures(parts: Sequence[ContentPart], param: str, *, max_bytes: int) -> tuple[SentFile, ...]:
    """Return the pictures among a question's parts; those of `data:` URLs have `max_bytes` together at most.

    Raises:
        RestError: there are too many, or one of them is no picture and no http address.
    """
    pictures = [(number, part.image_url) for number, part in enumerate(parts) if part.type == "image_url"]
    if len(pictures) > MAX_PICTURES:
        raise invalid(f"A question has {MAX_PICTURES} pictures at most.", param)
    found: list[SentFile] = []
    for number, image in pictures:
        # Other requests are served before each: 20 MiB of base64 take 70 ms.
        time.sleep(0)
        found.append(_picture(image.url if image else "", f"{param}[{number}].image_url"))
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


class CompletionRules(NamedTuple):
    """The limits of a request, and the words for pictures without words."""

    #: Bytes of a request without its `data:` URLs: the question and all earlier messages.
    text_bytes: int
    #: Bytes of all pictures that come with one question.
    picture_bytes: int
    #: The question for pictures without words.
    question: str

    @property
    def body_bytes(self) -> int:
        """The bytes of the largest request body: pictures come as base64."""
        return self.text_bytes + self.picture_bytes * 4 // 3


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
    #: The client's Idempotency-Key, and the digest of a request that has one; "" for none.
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


def asked_completion(caller: Caller, models: Mapping[str, Collection[str]], rules: CompletionRules) -> AskedCompletion:
    """Return the question of the Flask request; `models` has the options that each model accepts.

    Raises:
        RestError: the request is malformed or too long, or needs a feature that no model here has.
    """
    sent = rest.json_body(max_bytes=rules.body_bytes)
    # Before parsing: the time and the memory of all further steps follow the text.
    _check_length(_text_bytes(sent, rules.text_bytes), rules.text_bytes)
    asked = rest.parsed(CompletionRequest, sent, SHAPE)
    check_model(asked.model, models)
    _check_unsupported(asked)
    # After parsing, because a text may look like a `data:` URL.
    _check_length(sum(len(_text(message)) for message in asked.messages), rules.text_bytes)
    *before, last = asked.messages
    if last.role != "user":
        raise invalid("The last message has to be the user's question.", f"messages[{len(before)}].role")
    param = f"messages[{len(before)}].content"
    pictures = sent_pictures(_parts(last), param, max_bytes=rules.picture_bytes)
    words = _words(last, param, alone=not pictures)
    conversation, key = _conversation(asked), _idempotency_key()
    texts = [(message.role, _visible_text(message)) for message in before]
    for_user, address = on_behalf_of(caller, asked.user or "", request.remote_addr or "")
    return AskedCompletion(
        model=asked.model,
        caller=for_user,
        words=words,
        text=words or rules.question,
        pictures=pictures,
        earlier=_earlier(texts),
        talk=Talk(asked.model, for_user.principal, tuple(_digests(texts))),
        conversation=conversation,
        key=key,
        digest=_digest(sent, conversation) if key else "",
        streams=bool(asked.stream),
        counts=bool(asked.stream_options and asked.stream_options.include_usage),
        temperature=asked.temperature if "temperature" in models[asked.model] else None,
        address=address,
    )


def _text_bytes(sent: bytes, enough: int) -> int:
    """Return the bytes of a JSON body without its `data:` URLs, which have no quotation mark.

    Returns at once where the whole body is not larger than `enough`, and counts URLs beyond `MAX_DATA_URLS` as text.
    """
    size, at = len(sent), 0
    for _ in range(MAX_DATA_URLS):
        if size <= enough or (at := sent.find(b'"data:', at)) < 0:
            break
        end = sent.find(b'"', at + 1)
        size -= (end if end >= 0 else len(sent)) - at
        at = end if end >= 0 else len(sent)
    return size


def _check_length(size: int, most: int) -> None:
    if size > most:
        metrics.QUESTIONS_REFUSED.labels("history_too_large").inc()
        message = f"The messages are too long: {most} bytes are taken at most, without pictures."
        raise invalid(message, "messages", code="context_length_exceeded")


def _digest(sent: bytes, conversation: str) -> str:
    digest = hashlib.sha256(sent)
    digest.update(b"\n" + conversation.encode())
    return digest.hexdigest()


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
    if any(part.type not in ("text", "image_url") for part in _parts(message)):
        raise invalid("Only text and pictures are taken in a question.", param, code="unsupported_value")
    words = _text(message).strip()
    if alone and not words:
        raise invalid("The question is empty.", param)
    return words


def _earlier(texts: Sequence[tuple[str, str]]) -> Earlier:
    """Return the messages before the question, of which role and text are given; calls of tools are left out."""
    stripped = [(role, text.strip()) for role, text in texts]
    instructions = "\n\n".join(text for role, text in stripped if role in ("system", "developer") and text)
    sent = [cast(EarlierMessage, each) for each in stripped if each[0] in ("user", "assistant") and each[1]]
    return Earlier(instructions, exchanges_of(sent))


def _digests(texts: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the digests of the messages of user and model, by which a conversation is found."""
    return [(role, TextDigest(text).hex) for role, text in texts if role in ("user", "assistant")]


def _visible_text(message: ChatMessage) -> str:
    """Return a message's text, without the thinking that some clients send back in it."""
    text = _text(message)
    return fold_thinking(text, "hide") if message.role == "assistant" else text


def _parts(message: ChatMessage) -> Sequence[ContentPart]:
    """Return the parts of a message; a text alone has none."""
    return () if isinstance(message.content, str) else message.content or ()


def _text(message: ChatMessage) -> str:
    if isinstance(message.content, str):
        return message.content
    return "\n".join(part.text for part in _parts(message) if part.type == "text" and part.text)


log = logging.getLogger(__name__)


class ClientConversations:
    """Conversations of clients that send all messages with each question."""

    def __init__(self, store: SessionStore, *, max_bytes: int) -> None:
        """Take the bytes of earlier messages that go along with a question at most."""
        self._store = store
        self._max_bytes = max_bytes

    def question(self, asked: AskedCompletion) -> Question:
        """Return the question of a request, in its conversation.

        Where the conversation is unknown, a new one begins, and the earlier messages go along.

        Raises:
            RestError: another request had the same Idempotency-Key, or the earlier messages are too long.
            StoreUnavailable: Redis is away.
        """
        claimed = self._claimed(asked)
        if not claimed.same:
            message = "Another request was sent with this Idempotency-Key."
            raise invalid(message, "Idempotency-Key", status=409, code="idempotency_key_reuse")
        fits = asked.earlier.size <= self._max_bytes
        if not (fits or claimed.found):
            message = f"The messages before the question are too long: {self._max_bytes} bytes are taken at most."
            raise invalid(message, "messages", code="context_length_exceeded")
        return asked.question(claimed.session, earlier=fits)

    def give_back(self, asked: AskedCompletion, question: Question) -> None:
        """Keep the conversation of a question that was refused, so that the client can ask again."""
        if asked.talk.messages and not (asked.conversation or asked.key):
            self._keep(asked.talk, question.session)

    def answered(self, asked: AskedCompletion, question: Question, answer: TextDigest) -> None:
        """Keep the conversation after an answer, by the messages that the client will send before its next question."""
        if not asked.conversation:
            self._keep(asked.talk.with_answer(TextDigest(asked.words).hex, answer.hex), question.session)

    def _claimed(self, asked: AskedCompletion) -> ClaimedSession:
        new = asked.conversation or secrets.token_hex(16)
        talk = asked.talk if asked.talk.messages and not asked.conversation else None
        if asked.key:
            return self._store.claim(asked.caller.principal, asked.key, asked.digest, talk=talk, new=new)
        return self._store.take(talk, new) if talk else ClaimedSession(new, found=False)

    def _keep(self, talk: Talk, session: str) -> None:
        """Keep a session; without Redis the next question begins a new one, and its earlier messages go along."""
        try:
            self._store.keep(talk, session)
        except StoreUnavailable:
            log.warning("conversation not kept for its next question")
