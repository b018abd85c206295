"""The chat API that OpenAI made common, in its own terms; nearly every model server speaks it."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from services.providers.client.asking_service import AskingService
from services.providers.client.record_stream import RecordStream
from services.providers.client.refusals import StreamOptionsRefused
from services.providers.client.retries import LONGEST_WAIT
from utils.deadline import Deadline

log = logging.getLogger(__name__)

_WITH_USAGE = {"stream_options": {"include_usage": True}}


class OpenAIService:
    """One account at one server; safe to use from many threads."""

    def __init__(
        self, asking: AskingService, *, base_url: str, headers: Mapping[str, str], counts: bool = True
    ) -> None:
        """Take the checked address, the headers that prove who asks, and whether tokens are asked for."""
        self._chat = endpoint(base_url, "chat/completions")
        self._models = endpoint(base_url, "models")
        self._asking = asking
        self._headers = headers
        self._counts = counts

    @contextmanager
    def chat_completions(
        self, body: Mapping[str, Any], *, deadline: Deadline, longest_wait: float = LONGEST_WAIT
    ) -> Iterator[RecordStream]:
        """Ask for a stream, and give it to the block; the response is closed after it.

        A server that names `stream_options` in a refusal is asked without them, and from then on never with them.
        `longest_wait` is how many seconds a server that is busy may ask to wait before it is asked again here.

        Raises:
            ProviderError: any refusal or failure before the stream began.
        """
        streamed = {**body, "stream": True}
        with ExitStack() as stack:
            try:
                counted = streamed | _WITH_USAGE if self._counts else streamed
                stream = stack.enter_context(self._asked(counted, deadline, longest_wait))
            except StreamOptionsRefused as exc:
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
        """Tell whether server and key are right, by the list of models, which costs nothing."""
        return self._asking.answers(self._models, headers=self._headers)

    def close(self) -> None:
        """Give the pooled connections back."""
        self._asking.close()


def endpoint(base_url: str, name: str) -> str:
    """Return the address of one of the API's endpoints; a query string stays.

    A base with a path, or ending in `/`, is used as it is, and may name the chat endpoint itself; a bare host gets
    `/v1`. Without a name it is the base in its one spelling.
    """
    scheme, host, path, query, _ = urlsplit(base_url)
    root = (path or "/v1").rstrip("/").removesuffix("/chat/completions")
    return urlunsplit((scheme, host, f"{root}/{name}" if name else root, query, ""))
