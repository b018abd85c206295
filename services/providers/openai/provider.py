"""Any OpenAI-compatible server as an answer provider. The provider `context` is the same with its own settings.

A question's pictures are sent as data URLs, its text files as text.
"""

from __future__ import annotations

import base64
import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from services.attachments import MediaFile
from services.errors import AnswerError, ProviderError
from services.http.retries import LONGEST_WAIT
from services.models import ProviderEvent, Query
from services.providers.base import BaseRAGProvider
from services.providers.client.errors import StreamOptionsUnsupported
from services.providers.client.json_service import JSONService
from services.providers.client.limits import LIMITS, ClientLimits
from services.providers.client.record_stream import RecordStream, record_events
from services.providers.openai.answer import OpenAIAnswer
from utils.deadline import Deadline
from utils.formats.encodings import decoded
from utils.running_time import running_time
from utils.thinking import fold_thinking

log = logging.getLogger(__name__)

_WITH_USAGE = {"stream_options": {"include_usage": True}}
#: The pictures that the API documents.
_PICTURES = ("image/png", "image/jpeg", "image/gif", "image/webp")
#: Media types beside text/* that are text.
_TEXTS = ("application/xml", "application/octet-stream", "message/rfc822", "image/svg+xml")
#: Characters of the longest text file: all of it goes into the model's context.
MOST_TEXT = 200_000


@dataclass(frozen=True, slots=True)
class ModelOptions:
    """The model and the parameters of every request. None and an empty system prompt are not sent."""

    model: str
    system_prompt: str = ""
    max_tokens: int | None = None
    temperature: float | None = None
    #: Further fields of the request's body, which override the others; a field that is None is left out.
    body: Mapping[str, Any] = field(default_factory=dict)

    def fields(self) -> dict[str, Any]:
        """Return the fields of the request's body except the messages."""
        # Models that accept the newer of the two names reject a request with both.
        limit = None if "max_completion_tokens" in self.body else self.max_tokens
        fields = {"model": self.model, "max_tokens": limit, "temperature": self.temperature, **self.body}
        return {name: value for name, value in fields.items() if value is not None}


class OpenAIProvider(BaseRAGProvider):
    """Streams chat completions. The server stores no conversations, so each request carries the earlier exchanges."""

    keeps_conversations = False
    takes_instructions = True
    takes_options = frozenset({"model", "temperature"})
    takes_files = "inline"

    def __init__(
        self,
        *,
        name: str = "openai",
        base_url: str,
        api_key: str,
        options: ModelOptions,
        headers: Mapping[str, str] | None = None,
        limits: ClientLimits = LIMITS,
        clock: Callable[[], float] = running_time,
    ) -> None:
        """Configure the server's URL, key and model. Does not connect.

        `name` is the provider's name. `headers` are sent with each request and override
        the defaults.
        """
        self.name = name
        more = dict(headers or {})
        self._headers = {**({"Authorization": f"Bearer {api_key}"} if api_key else {}), **more}
        self._chat, self._models = endpoint(base_url, "chat/completions"), endpoint(base_url, "models")
        self._service = JSONService(limits, clock=clock)
        self._limits = limits
        self._body_fields = options.fields()
        #: Whether requests ask for token counts.
        self._counts = "stream_options" not in options.body
        self._system_prompt = options.system_prompt
        # Headers are added only if set: a changed name would start every existing conversation anew.
        named = [json.dumps(sorted(more.items()))] if more else []
        identity = "\n".join((endpoint(base_url, ""), api_key, options.model, options.system_prompt, *named))
        self.app = hashlib.sha256(identity.encode()).hexdigest()[:12]

    def stream_query(self, query: Query, deadline: Deadline) -> Iterator[ProviderEvent]:
        """Ask the model and yield the answer's events as they arrive.

        Raises:
            ProviderError: the answer failed; `interrupted` after `deadline.abort`, `answer_timeout` when the deadline
                has passed.
        """
        answer = OpenAIAnswer()
        try:
            longest_wait = LONGEST_WAIT if query.waits_for_provider else 0.0
            with self._streamed(self._body(query), deadline, longest_wait) as stream:
                yield from record_events(stream, answer, self._limits)
                yield from answer.close()
        except ProviderError as exc:
            if exc.code != "interrupted":
                log.warning("[%s RAG Error] %s: %s", self.name, exc.code, exc)
            raise
        log.info("[%s RAG] Tokens: %s", self.name, answer.usage.total_tokens)

    @contextmanager
    def _streamed(self, body: Mapping[str, Any], deadline: Deadline, longest_wait: float) -> Iterator[RecordStream]:
        """Ask for a stream with token counts; repeat the request without them if an error reply names the field.

        Later requests then omit it. `longest_wait` is the longest `Retry-After`, in seconds, before a retry here.
        """
        streamed = {**body, "stream": True}
        headers = {"Accept": "text/event-stream", **self._headers}
        options: dict[str, Any] = {"headers": headers, "deadline": deadline, "longest_wait": longest_wait}
        with ExitStack() as stack:
            try:
                counted = streamed | _WITH_USAGE if self._counts else streamed
                stream = stack.enter_context(self._service.post(self._chat, counted, **options))
            except StreamOptionsUnsupported as exc:
                if not self._counts:
                    raise
                stream = stack.enter_context(self._service.post(self._chat, streamed, **options))
                self._counts = False
                log.warning("the server takes no stream_options, so answers come without their tokens: %s", exc)
            yield stream

    def _body(self, query: Query) -> dict[str, Any]:
        before = [("system", self._system_prompt), ("system", query.instructions)]
        for earlier in query.history:
            # Earlier thoughts are not sent back: they cost tokens, and some servers reject them.
            before += [("user", earlier.question), ("assistant", fold_thinking(earlier.answer, "hide"))]
        messages: list[dict[str, Any]] = [{"role": role, "content": content} for role, content in before if content]
        options = self._body_fields | ({"model": query.model} if query.model else {})
        options |= {} if query.temperature is None else {"temperature": query.temperature}
        return {**options, "messages": [*messages, {"role": "user", "content": content_of(query)}]}

    def check_file(self, file: MediaFile) -> None:
        """Accept pictures that every vision model knows, and texts of `MOST_TEXT` characters."""
        file_part(file)

    def health_check(self) -> bool:
        """Check network and key by requesting the list of models: within 5 seconds and free of charge."""
        return self._service.is_healthy(self._models, headers=self._headers)

    def close(self) -> None:
        """Close the pooled connections."""
        self._service.close()


def endpoint(base_url: str, name: str) -> str:
    """Return the URL of the API's endpoint `name`, with the base's query string; name "" returns the normalised base.

    A base with a path, or ending in `/`, is used as it is, and may be the URL of the chat endpoint itself. A host
    without a path gets `/v1`.
    """
    scheme, host, path, query, _ = urlsplit(base_url)
    root = (path or "/v1").rstrip("/").removesuffix("/chat/completions")
    return urlunsplit((scheme, host, f"{root}/{name}" if name else root, query, ""))


def content_of(query: Query) -> str | list[dict[str, Any]]:
    """Return the content of the question's message: its text alone, or the text and its files."""
    if not query.media:
        return query.text
    return [{"type": "text", "text": query.text}, *map(file_part, query.media)]


def file_part(file: MediaFile) -> dict[str, Any]:
    """Return one file as a part of a message.

    Raises:
        AnswerError: `media_wrong_type`: neither such a picture nor a text; `media_too_large`: a text that is too long.
    """
    if file.mime in _PICTURES:
        data = base64.b64encode(file.content).decode()
        return {"type": "image_url", "image_url": {"url": f"data:{file.mime};base64,{data}"}}
    if not (file.mime.startswith("text/") or file.mime in _TEXTS):
        raise AnswerError("neither a picture nor a text", code="media_wrong_type")
    return {"type": "text", "text": f"{file.name}:\n\n{_text(file.content)}"}


def _text(content: bytes) -> str:
    # Checked before it is decoded, which takes long for a large file: a character has four bytes at most.
    if len(content) > 4 * MOST_TEXT:
        raise AnswerError("a text that is too long", code="media_too_large")
    text = decoded(content)
    if text is None:
        raise AnswerError("no text", code="media_wrong_type")
    if len(text) > MOST_TEXT:
        raise AnswerError("a text that is too long", code="media_too_large")
    return text
