"""A company's own question answering service as an answer provider: JSON requests and replies, streamed or whole."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from config.errors import SettingsError
from services.errors import ProviderError
from services.http.retries import LONGEST_WAIT
from services.models import ProviderEvent, Query
from services.providers.base import BaseRAGProvider
from services.providers.client.inputs import InputsTemplate
from services.providers.client.json_service import AskingService, checked_headers, checked_url
from services.providers.client.record_stream import RecordStream, record_events
from services.providers.custom.answer import CustomTurn
from utils.deadline import Deadline
from utils.thinking import fold_thinking

_ANY_FORM = {"Accept": "text/event-stream, application/x-ndjson, application/json"}


class CustomService:
    """A client of one service. Thread-safe."""

    def __init__(self, asking: AskingService, *, url: str, health_url: str, headers: Mapping[str, str]) -> None:
        """Set the checked URLs and the headers of every request; `health_url` "" means `/health` below `url`."""
        self._asking = asking
        self._url = url
        self._headers = headers
        self._health_url = health_url or _below(url, "health")

    @contextmanager
    def ask(
        self, body: Mapping[str, Any], *, deadline: Deadline, longest_wait: float = LONGEST_WAIT
    ) -> Iterator[RecordStream]:
        """Post a question and yield the stream of records; the response is closed when the block ends.

        `longest_wait` is the longest `Retry-After`, in seconds, after which the request is retried here.

        Raises:
            ProviderError: an error reply, or a failure before the reply arrived.
        """
        headers = {**_ANY_FORM, **self._headers}
        with self._asking.ask(self._url, body, headers=headers, deadline=deadline, longest_wait=longest_wait) as stream:
            yield stream

    def answers(self) -> bool:
        """Return whether the health URL answers 200. The headers, which hold credentials, go to the same host only."""
        own = urlsplit(self._health_url)[:2] == urlsplit(self._url)[:2]
        return self._asking.answers(self._health_url, headers=self._headers if own else {})

    def close(self) -> None:
        """Close the pooled connections."""
        self._asking.close()


def _below(url: str, name: str) -> str:
    scheme, host, path, _, _ = urlsplit(url)
    return urlunsplit((scheme, host, f"{path.rstrip('/')}/{name}", "", ""))


log = logging.getLogger(__name__)

#: Headers that the HTTP client sets itself; settings must not contain them.
_RESERVED_HEADERS = ("content-length", "transfer-encoding", "connection", "host", "accept-encoding")


class CustomProvider(BaseRAGProvider):
    """Streams from a service with the format in docs/providers.md. Each request carries the conversation's turns."""

    name = "custom"
    keeps_conversations = False

    def __init__(
        self,
        *,
        api_url: str,
        api_key: str = "",
        headers: Mapping[str, str] | None = None,
        inputs: Mapping[str, Any] | None = None,
        health_url: str = "",
        timeout: float = 30.0,
        pool_size: int = 100,
        retries: int = 2,
        backoff: float = 0.5,
        end_grace: float = 1.0,
        linger: float = 0.2,
    ) -> None:
        """Configure the service's URL and headers. Does not connect.

        A key is sent as `Authorization: Bearer`, unless `headers` contain an Authorization. `inputs` is the template of
        every question's inputs. The default health URL is `/health` below `api_url`. `timeout` is the longest wait for
        a record. After an answer's end the last record may take `end_grace` to arrive, and the stream `linger` to
        close. All in seconds.

        Raises:
            SettingsError: an invalid URL, a header that cannot be sent, or an unknown placeholder.
        """
        url = checked_url("CUSTOM_RAG_API_URL", api_url)
        sent = _headers(api_key, headers or {})
        self._service = CustomService(
            AskingService(timeout=timeout, pool_size=pool_size, retries=retries, backoff=backoff),
            url=url,
            health_url=checked_url("CUSTOM_RAG_HEALTH_URL", health_url) if health_url else "",
            headers=sent,
        )
        self._inputs = InputsTemplate(inputs or {}, setting="CUSTOM_RAG_INPUTS")
        self._end_grace = end_grace
        self._linger = linger
        self.app = hashlib.sha256(json.dumps([url, sorted(sent.items())]).encode()).hexdigest()[:12]

    def stream_query(self, query: Query, deadline: Deadline) -> Iterator[ProviderEvent]:
        """Ask the service and yield the answer's events as they arrive.

        Raises:
            ProviderError: the answer failed; `interrupted` after `deadline.abort`, `answer_timeout` when the deadline
                has passed.
        """
        turn = CustomTurn()
        try:
            longest_wait = LONGEST_WAIT if query.waits_for_provider else 0.0
            body = _body(query, self._inputs.fill(query))
            with self._service.ask(body, deadline=deadline, longest_wait=longest_wait) as stream:
                yield from record_events(stream, turn, end_grace=self._end_grace, linger=self._linger)
                yield from turn.close(cut_off=stream.cut_off)
        except ProviderError as exc:
            if exc.code != "interrupted":
                log.warning("[custom RAG Error] %s: %s", exc.code, exc)
            raise
        usage = turn.usage
        price = usage.total_price or "0", usage.currency or "-"
        log.info("[custom RAG] Tokens: %s, Price: %s %s", usage.total_tokens, *price)

    def health_check(self) -> bool:
        """Return whether the health URL answers 200 within 5 seconds. No question is asked."""
        return self._service.answers()

    def close(self) -> None:
        """Close the pooled connections."""
        self._service.close()


def _headers(api_key: str, more: Mapping[str, str]) -> dict[str, str]:
    for name in more:
        if name.lower() in _RESERVED_HEADERS:
            raise SettingsError(f"CUSTOM_RAG_HEADERS: {name} cannot be set")
    key = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    # If a header is set twice with different case, the later one is sent.
    return checked_headers("CUSTOM_RAG_API_KEY", key) | checked_headers("CUSTOM_RAG_HEADERS", more)


def _body(query: Query, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the request's body. Empty fields are left out, because a strict service may reject them."""
    turns = [{"question": turn.question, "answer": fold_thinking(turn.answer, "hide")} for turn in query.history]
    more = {"user": query.user, "inputs": inputs, "history": turns}
    return {"question": query.text, "stream": True, **{name: value for name, value in more.items() if value}}
