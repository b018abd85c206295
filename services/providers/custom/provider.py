"""A company's own question answering service as an answer provider: JSON in, JSON out, streamed or whole."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping
from typing import Any

from services.errors import ProviderError, SettingsError
from services.models import ProviderEvent, Query
from services.providers.base import BaseRAGProvider
from services.providers.client.asking_service import AskingService, checked_headers, checked_url
from services.providers.client.record_events import record_events
from services.providers.client.retries import LONGEST_WAIT
from services.providers.custom.service import CustomService
from services.providers.custom.turn import CustomTurn
from utils.deadline import Deadline
from utils.thinking import fold_thinking

log = logging.getLogger(__name__)

#: Headers that the body or the connection decides on.
_NOT_YOURS = ("content-length", "transfer-encoding", "connection", "host", "accept-encoding")


class CustomProvider(BaseRAGProvider):
    """Streams from a service that knows nothing of us. A conversation's earlier turns go along."""

    name = "custom"
    keeps_conversations = False

    def __init__(
        self,
        *,
        api_url: str,
        api_key: str = "",
        headers: Mapping[str, str] | None = None,
        health_url: str = "",
        timeout: float = 30.0,
        pool_size: int = 100,
        retries: int = 2,
        backoff: float = 0.5,
        end_grace: float = 1.0,
        linger: float = 0.2,
    ) -> None:
        """Take the service's address and what its requests carry; nothing connects.

        A key is sent as `Authorization: Bearer`, unless `headers` have an Authorization of their own. Without a health
        address it is `/health` below the other. `timeout` is the longest silence, `end_grace` how long an ended
        answer's last record may take, `linger` how long a finished stream may take to close, all in seconds.

        Raises:
            SettingsError: no address, or a header that cannot be sent.
        """
        url = checked_url("CUSTOM_RAG_API_URL", api_url)
        sent = _headers(api_key, headers or {})
        self._service = CustomService(
            AskingService(timeout=timeout, pool_size=pool_size, retries=retries, backoff=backoff),
            url=url,
            health_url=checked_url("CUSTOM_RAG_HEALTH_URL", health_url) if health_url else "",
            headers=sent,
        )
        self._end_grace = end_grace
        self._linger = linger
        self.app = hashlib.sha256(json.dumps([url, sorted(sent.items())]).encode()).hexdigest()[:12]

    def stream_query(self, query: Query, deadline: Deadline) -> Iterator[ProviderEvent]:
        """Ask, and yield what the service says as it says it.

        Raises:
            ProviderError: it failed; `interrupted` after `deadline.abort`, `answer_timeout` when it is over.
        """
        turn = CustomTurn()
        try:
            longest_wait = LONGEST_WAIT if query.waits_for_provider else 0.0
            with self._service.ask(_body(query), deadline=deadline, longest_wait=longest_wait) as stream:
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
        """Tell whether the health address answers 200, within 5 seconds; no question is asked."""
        return self._service.answers()

    def close(self) -> None:
        """Give the pooled connections back."""
        self._service.close()


def _headers(api_key: str, more: Mapping[str, str]) -> dict[str, str]:
    for name in more:
        if name.lower() in _NOT_YOURS:
            raise SettingsError(f"CUSTOM_RAG_HEADERS: {name} cannot be set")
    key = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    # Of two spellings of one header the later is sent.
    return checked_headers("CUSTOM_RAG_API_KEY", key) | checked_headers("CUSTOM_RAG_HEADERS", more)


def _body(query: Query) -> dict[str, Any]:
    """Return the question and whatever else there is to say: a strict service gets no field that is empty."""
    turns = [{"question": turn.question, "answer": fold_thinking(turn.answer, "hide")} for turn in query.history]
    more = {"user": query.user, "inputs": dict(query.inputs), "history": turns}
    return {"question": query.text, "stream": True, **{name: value for name, value in more.items() if value}}
