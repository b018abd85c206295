"""A company's own question answering service as an answer provider: JSON requests and replies, streamed or not."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from services.errors import ProviderError
from services.http.retries import LONGEST_WAIT
from services.models import ProviderEvent, Query
from services.providers.base import BaseRAGProvider
from services.providers.client.inputs import InputsTemplate
from services.providers.client.json_service import JSONService
from services.providers.client.limits import ClientLimits
from services.providers.client.record_stream import record_events
from services.providers.custom.answer import CustomAnswer
from utils.deadline import Deadline
from utils.thinking import fold_thinking

log = logging.getLogger(__name__)

LIMITS = ClientLimits(timeout=30.0, end_grace=1.0)
_ACCEPTED = {"Accept": "text/event-stream, application/x-ndjson, application/json"}


class CustomProvider(BaseRAGProvider):
    """Streams from a service with the format in docs/providers.md. Requests carry the conversation's exchanges."""

    name = "custom"
    keeps_conversations = False

    def __init__(
        self,
        *,
        api_url: str,
        api_key: str = "",
        headers: Mapping[str, str] | None = None,
        health_url: str = "",
        inputs: InputsTemplate,
        limits: ClientLimits = LIMITS,
    ) -> None:
        """Configure the service's URL and headers. Does not connect.

        A key is sent as `Authorization: Bearer`, unless `headers` contain an Authorization. `inputs` is the template of
        every question's inputs. The default health URL is `/health` below `api_url`.
        """
        self._url = api_url
        # If a header is set twice with different case, the later one is sent.
        self._headers = {**({"Authorization": f"Bearer {api_key}"} if api_key else {}), **(headers or {})}
        self._health_url = health_url or _below(api_url, "health")
        self._service = JSONService(limits)
        self._inputs = inputs
        self._limits = limits
        self.app = hashlib.sha256(json.dumps([self._url, sorted(self._headers.items())]).encode()).hexdigest()[:12]

    def stream_query(self, query: Query, deadline: Deadline) -> Iterator[ProviderEvent]:
        """Ask the service and yield the answer's events as they arrive.

        Raises:
            ProviderError: the answer failed; `interrupted` after `deadline.abort`, `answer_timeout` when the deadline
                has passed.
        """
        answer = CustomAnswer()
        try:
            longest_wait = LONGEST_WAIT if query.waits_for_provider else 0.0
            body = _body(query, self._inputs.fill(query))
            headers = {**_ACCEPTED, **self._headers}
            with self._service.post(
                self._url, body, headers=headers, deadline=deadline, longest_wait=longest_wait
            ) as stream:
                yield from record_events(stream, answer, self._limits)
                yield from answer.close(cut_off=stream.cut_off)
        except ProviderError as exc:
            if exc.code != "interrupted":
                log.warning("[custom RAG Error] %s: %s", exc.code, exc)
            raise
        usage = answer.usage
        price = usage.total_price or "0", usage.currency or "-"
        log.info("[custom RAG] Tokens: %s, Price: %s %s", usage.total_tokens, *price)

    def health_check(self) -> bool:
        """Return whether the health URL answers 200 within 5 seconds. No question is asked.

        The headers, which hold credentials, are sent to the host of the service only.
        """
        same_host = urlsplit(self._health_url)[:2] == urlsplit(self._url)[:2]
        return self._service.is_healthy(self._health_url, headers=self._headers if same_host else {})

    def close(self) -> None:
        """Close the pooled connections."""
        self._service.close()


def _body(query: Query, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the request's body. Empty fields are left out, because a strict service may reject them."""
    exchanges = [{"question": each.question, "answer": fold_thinking(each.answer, "hide")} for each in query.history]
    more = {"user": query.user, "inputs": inputs, "history": exchanges}
    return {"question": query.text, "stream": True, **{name: value for name, value in more.items() if value}}


def _below(url: str, name: str) -> str:
    scheme, host, path, _, _ = urlsplit(url)
    return urlunsplit((scheme, host, f"{path.rstrip('/')}/{name}", "", ""))
