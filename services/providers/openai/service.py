"""Client of the chat completions API that OpenAI introduced and nearly every model server offers."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from services.providers.client.asking_service import AskingService
from services.providers.client.errors import StreamOptionsUnsupported
from services.providers.client.record_stream import RecordStream
from services.providers.client.retries import LONGEST_WAIT
from utils.deadline import Deadline

log = logging.getLogger(__name__)

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
