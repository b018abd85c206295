"""Dify's event stream while it is read: dicts as they arrive, the silence between them bounded."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import orjson

from services.errors import ProviderError
from services.http.service import Exchange
from services.providers.client.bounded_stream import BoundedStream
from utils.formats.sse import EventTooLong, SSEDecoder

log = logging.getLogger(__name__)


class ChatStream(BoundedStream[Mapping[str, Any]]):
    """The events of one run, as they arrive. Only an event with data counts as a sign of life, a ping does not."""

    def __init__(self, exchange: Exchange, *, timeout: float, started: float, clock: Callable[[], float]) -> None:
        super().__init__(exchange, timeout=timeout, started=started, clock=clock)
        self._decoder = SSEDecoder()
        self._damaged = 0
        #: Signs of life without data; they prove that the HTTP side lives, not that the run does.
        self.pings = 0
        #: Whether an event with data came: from then on the question must not be asked again.
        self.began = False

    # One generator, not one for each step: all of them are left and entered again with every delta.
    def _read(self) -> Iterator[Mapping[str, Any]]:
        chunk = b"more"
        try:
            while chunk:
                chunk = self._next_chunk()
                for event in self._decoder.feed(chunk) if chunk else self._decoder.flush():
                    if not event.data:
                        self.pings += 1
                        continue
                    for payload in self._objects(event.data):
                        self.began = True
                        yield payload
                        # Now, not before the yield: the time the caller took is not Dify's silence.
                        self._silent_since = self._clock()
        except EventTooLong as exc:
            raise ProviderError(str(exc), code="provider_error") from exc
        if self._damaged:
            log.warning("Dify sent %d events that are not UTF-8", self._damaged)

    def _objects(self, data: bytes) -> list[Mapping[str, Any]]:
        """Return the objects of an event's data: one, unless a proxy glued events together."""
        try:
            whole = orjson.loads(data)
        except ValueError:
            return self._odd_objects(data)
        return [whole] if isinstance(whole, dict) else []

    def _odd_objects(self, data: bytes) -> list[Mapping[str, Any]]:
        """Return what can be had of data that is no strict JSON: bad bytes, half characters, or an object a line."""
        try:
            text = data.decode()
        except UnicodeDecodeError:
            self._damaged += 1
            text = data.decode(errors="replace")
        whole = _parsed(text)
        # Dify writes one object per line: events that a proxy glued together are told apart by their lines.
        parts = [whole] if whole is not None or "\n" not in text else [_parsed(line) for line in text.split("\n")]
        if None in parts:
            log.warning("Dify sent %d characters of data that are not JSON", len(text))
        return [part for part in parts if isinstance(part, dict)]


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
