"""Client of a company's own question answering service: its URL, headers and health check."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from services.providers.client.asking_service import AskingService
from services.providers.client.record_stream import RecordStream
from services.providers.client.retries import LONGEST_WAIT
from utils.deadline import Deadline

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
