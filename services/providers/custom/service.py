"""A company's own question answering service: its address, its headers, its health."""

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
    """One service; safe to use from many threads."""

    def __init__(self, asking: AskingService, *, url: str, health_url: str, headers: Mapping[str, str]) -> None:
        """Take the checked addresses and what every request carries; the health address "" is `/health` below `url`."""
        self._asking = asking
        self._url = url
        self._headers = headers
        self._health_url = health_url or _below(url, "health")

    @contextmanager
    def ask(
        self, body: Mapping[str, Any], *, deadline: Deadline, longest_wait: float = LONGEST_WAIT
    ) -> Iterator[RecordStream]:
        """Ask for a stream, and give what comes to the block; the response is closed after it.

        `longest_wait` is how many seconds a service that is busy may ask to wait before it is asked again here.

        Raises:
            ProviderError: any refusal or failure before there was a reply.
        """
        headers = {**_ANY_FORM, **self._headers}
        with self._asking.ask(self._url, body, headers=headers, deadline=deadline, longest_wait=longest_wait) as stream:
            yield stream

    def answers(self) -> bool:
        """Tell whether the health address answers 200; what proves who asks is shown to no other server."""
        own = urlsplit(self._health_url)[:2] == urlsplit(self._url)[:2]
        return self._asking.answers(self._health_url, headers=self._headers if own else {})

    def close(self) -> None:
        """Give the pooled connections back."""
        self._asking.close()


def _below(url: str, name: str) -> str:
    scheme, host, path, _, _ = urlsplit(url)
    return urlunsplit((scheme, host, f"{path.rstrip('/')}/{name}", "", ""))
