"""The chat API that OpenAI made common, in its own terms; nearly every model server speaks it."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from services.asking_service import AskingService
from services.errors import ProviderError
from services.record_stream import RecordStream
from utils.deadline import Deadline

log = logging.getLogger(__name__)

_VERSION = re.compile(r"/v\d+[a-z0-9]*(/|$)")
_WITH_USAGE = {"stream_options": {"include_usage": True}}
#: How servers refuse a field they do not know.
_NOT_KNOWN = (400, 422)


class OpenAIService:
    """One account at one server; safe to use from many threads."""

    def __init__(self, asking: AskingService, *, base_url: str, headers: Mapping[str, str]) -> None:
        """Take the checked address and the headers that prove who asks."""
        self.root = root_of(base_url)
        self._asking = asking
        self._headers = headers
        self._counts = True

    @contextmanager
    def chat_completions(self, body: Mapping[str, Any], *, deadline: Deadline) -> Iterator[RecordStream]:
        """Ask for a stream, and give it to the block; the response is closed after it.

        A server that takes no `stream_options` is asked without them, and from then on never with them.

        Raises:
            ProviderError: any refusal or failure before the stream began.
        """
        streamed = {**body, "stream": True}
        with ExitStack() as stack:
            try:
                counted = streamed | _WITH_USAGE if self._counts else streamed
                stream = stack.enter_context(self._asked(counted, deadline))
            except ProviderError as exc:
                if counted == streamed or exc.http_status not in _NOT_KNOWN:
                    raise
                stream = stack.enter_context(self._asked(streamed, deadline))
                self._counts = False
                log.warning("the server takes no stream_options, so answers come without their tokens: %s", exc)
            yield stream

    @contextmanager
    def _asked(self, body: Mapping[str, Any], deadline: Deadline) -> Iterator[RecordStream]:
        headers = {"Accept": "text/event-stream", **self._headers}
        with self._asking.ask(f"{self.root}/chat/completions", body, headers=headers, deadline=deadline) as stream:
            yield stream

    def answers(self) -> bool:
        """Tell whether server and key are right, by the list of models, which costs nothing."""
        return self._asking.answers(f"{self.root}/models", headers=self._headers)

    def close(self) -> None:
        """Give the pooled connections back."""
        self._asking.close()


def root_of(base_url: str) -> str:
    """Return the address that ends in the API's version, whether or not the given one has it.

    A path that names a version of its own, such as `/api/paas/v4` or `/v1beta/openai`, is kept as it is.
    """
    base = base_url.rstrip("/").removesuffix("/chat/completions")
    return base if _VERSION.search(base.partition("//")[2]) else f"{base}/v1"
