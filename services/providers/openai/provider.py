"""Any OpenAI-compatible server as an answer provider. The provider `context` is the same with its own settings.

A question's pictures are sent as data URLs, its text files as text.
"""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from config.errors import SettingsError
from services.attachments import MediaFile
from services.errors import AnswerError, ProviderError
from services.http.retries import LONGEST_WAIT
from services.models import ProviderEvent, Query
from services.providers.base import BaseRAGProvider
from services.providers.client.errors import StreamOptionsUnsupported
from services.providers.client.json_service import AskingService, checked_headers, checked_url
from services.providers.client.record_stream import RecordStream, record_events
from services.providers.openai.answer import OpenAITurn
from utils.deadline import Deadline
from utils.formats.encodings import decoded
from utils.thinking import fold_thinking

_WITH_USAGE = {"stream_options": {"include_usage": True}}


class OpenAIService:
    """A client of one account at one server. Thread-safe."""

    def __init__(
        self, asking: AskingService, *, base_url: str, headers: Mapping[str, str], counts: bool = True
    ) -> None:
        """Set the checked URL, the headers with the credential, and whether to request token counts."""
        self._chat = endpoint(base_url, "chat/completions")
        self._models = endpoint(base_url, "models")
        self._asking = asking
        self._headers = headers
        self._counts = counts

    @contextmanager
    def chat_completions(
        self, body: Mapping[str, Any], *, deadline: Deadline, longest_wait: float = LONGEST_WAIT
    ) -> Iterator[RecordStream]:
        """Ask for a stream and yield it; the response is closed when the block ends.

        If an error reply names `stream_options`, the request is repeated without them, and later requests omit them.
        `longest_wait` is the longest `Retry-After`, in seconds, after which the request is retried here.

        Raises:
            ProviderError: an error reply, or a failure before the stream began.
        """
        streamed = {**body, "stream": True}
        with ExitStack() as stack:
            try:
                counted = streamed | _WITH_USAGE if self._counts else streamed
                stream = stack.enter_context(self._asked(counted, deadline, longest_wait))
            except StreamOptionsUnsupported as exc:
                if not self._counts:
                    raise
                stream = stack.enter_context(self._asked(streamed, deadline, longest_wait))
                self._counts = False
                log.warning("the server takes no stream_options, so answers come without their tokens: %s", exc)
            yield stream

    @contextmanager
    def _asked(self, body: Mapping[str, Any], deadline: Deadline, longest_wait: float) -> Iterator[RecordStream]:
        headers = {"Accept": "text/event-stream", **self._headers}
        with self._asking.ask(
            self._chat, body, headers=headers, deadline=deadline, longest_wait=longest_wait
        ) as stream:
            yield stream

    def answers(self) -> bool:
        """Return whether URL and key are valid, by requesting the list of models, which is free."""
        return self._asking.answers(self._models, headers=self._headers)

    def close(self) -> None:
        """Close the pooled connections."""
        self._asking.close()


def endpoint(base_url: str, name: str) -> str:
    """Return the URL of the API's endpoint `name`, with the base's query string; name "" returns the normalised base.

    A base with a path, or ending in `/`, is used as it is, and may be the URL of the chat endpoint itself. A host
    without a path gets `/v1`.
    """
    scheme, host, path, query, _ = urlsplit(base_url)
    root = (path or "/v1").rstrip("/").removesuffix("/chat/completions")
    return urlunsplit((scheme, host, f"{root}/{name}" if name else root, query, ""))


#: The pictures that the API documents.
_PICTURES = ("image/png", "image/jpeg", "image/gif", "image/webp")
#: Media types beside text/* that are text.
_TEXTS = ("application/xml", "application/octet-stream", "message/rfc822", "image/svg+xml")
#: Characters of the longest text file: it goes into the model's context as a whole.
MOST_TEXT = 200_000


def asked_content(query: Query) -> str | list[dict[str, Any]]:
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


log = logging.getLogger(__name__)


class OpenAIProvider(BaseRAGProvider):
    """Streams chat completions. The server stores no conversations, so each request carries the earlier turns."""

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
        model: str,
        timeout: float = 60.0,
        system_prompt: str = "",
        max_tokens: int | None = None,
        temperature: float | None = None,
        headers: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        pool_size: int = 100,
        retries: int = 2,
        backoff: float = 0.5,
        end_grace: float = 4.0,
        linger: float = 0.2,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Configure the server's URL, key and model. Does not connect.

        `name` is the provider's name and the prefix of its settings. Parameters that are None and an empty system
        prompt are not sent. `headers` and the fields of `body` are sent with each question and override the defaults; a
        field that is None is left out. `timeout` is the longest wait for a record. After an answer's end its usage may
        take `end_grace` to arrive, and the stream `linger` to close. All in seconds.

        Raises:
            SettingsError: no model, neither a key nor headers, or an invalid URL.
        """
        self.name = name
        setting = name.upper()
        more, fields = dict(headers or {}), dict(body or {})
        if not model or not (api_key or more):
            missing = "API_KEY" if model else "MODEL"
            raise SettingsError(f"{setting}_{missing}: missing; a server that needs none takes any word")
        key = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        sent = checked_headers(f"{setting}_API_KEY", key) | checked_headers(f"{setting}_HEADERS", more)
        base = checked_url(f"{setting}_BASE_URL", base_url)
        asking = AskingService(timeout=timeout, pool_size=pool_size, retries=retries, backoff=backoff, clock=clock)
        self._service = OpenAIService(asking, base_url=base, headers=sent, counts="stream_options" not in fields)
        # Models that accept the newer of the two names reject a request with both.
        limit = None if "max_completion_tokens" in fields else max_tokens
        wanted = {"model": model, "max_tokens": limit, "temperature": temperature, **fields}
        self._options = {name: value for name, value in wanted.items() if value is not None}
        self._system_prompt = system_prompt
        self._end_grace = end_grace
        self._linger = linger
        # Headers are added only if set: a changed name would start every existing conversation anew.
        named = [json.dumps(sorted(more.items()))] if more else []
        whole = "\n".join((endpoint(base, ""), api_key, model, system_prompt, *named))
        self.app = hashlib.sha256(whole.encode()).hexdigest()[:12]

    def stream_query(self, query: Query, deadline: Deadline) -> Iterator[ProviderEvent]:
        """Ask the model and yield the answer's events as they arrive.

        Raises:
            ProviderError: the answer failed; `interrupted` after `deadline.abort`, `answer_timeout` when the deadline
                has passed.
        """
        turn = OpenAITurn()
        try:
            longest_wait = LONGEST_WAIT if query.waits_for_provider else 0.0
            with self._service.chat_completions(
                self._body(query), deadline=deadline, longest_wait=longest_wait
            ) as stream:
                yield from record_events(stream, turn, end_grace=self._end_grace, linger=self._linger)
                yield from turn.close()
        except ProviderError as exc:
            if exc.code != "interrupted":
                log.warning("[%s RAG Error] %s: %s", self.name, exc.code, exc)
            raise
        log.info("[%s RAG] Tokens: %s", self.name, turn.usage.total_tokens)

    def _body(self, query: Query) -> dict[str, Any]:
        said = [("system", self._system_prompt), ("system", query.instructions)]
        for turn in query.history:
            # Earlier thoughts are not sent back: they cost tokens, and some servers reject them.
            said += [("user", turn.question), ("assistant", fold_thinking(turn.answer, "hide"))]
        messages: list[dict[str, Any]] = [{"role": role, "content": content} for role, content in said if content]
        options = self._options | ({"model": query.model} if query.model else {})
        options |= {} if query.temperature is None else {"temperature": query.temperature}
        return {**options, "messages": [*messages, {"role": "user", "content": asked_content(query)}]}

    def check_file(self, file: MediaFile) -> None:
        """Accept pictures that every vision model knows, and texts of `MOST_TEXT` characters."""
        file_part(file)

    def health_check(self) -> bool:
        """Check network and key by requesting the list of models: within 5 seconds and free of charge."""
        return self._service.answers()

    def close(self) -> None:
        """Close the pooled connections."""
        self._service.close()
