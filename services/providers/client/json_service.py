"""Sends a question to a JSON service and streams the answer. Retries only while no part of the answer has arrived."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from services.errors import ProviderError
from services.http.retries import LONGEST_WAIT, attempts
from services.http.service import HTTPReply, HTTPService
from services.providers.client.errors import http_error
from services.providers.client.limits import ClientLimits
from services.providers.client.record_stream import RecordStream
from utils.deadline import Deadline
from utils.running_time import running_time
from utils.tracing import onward_headers

log = logging.getLogger(__name__)

#: Timeout of a health check and of reading an error reply, in seconds.
SHORT_CALL = 5.0
#: At most this many bytes of an error reply are read.
_MAX_ERROR_BODY = 64 * 1024
#: A proxy that compresses holds pieces back until a compression block is full.
_WHOLE_PIECES = {"Accept-Encoding": "identity"}


class JSONService:
    """A client of one service with its own connection pool. Thread-safe."""

    def __init__(self, limits: ClientLimits, *, clock: Callable[[], float] = running_time) -> None:
        self._limits = limits
        self._clock = clock
        self._http = HTTPService(pool_size=limits.pool_size, connect_timeout=limits.connect_timeout)

    @contextmanager
    def post(
        self,
        url: str,
        body: Mapping[str, Any],
        *,
        headers: Mapping[str, str],
        deadline: Deadline,
        longest_wait: float = LONGEST_WAIT,
    ) -> Iterator[RecordStream]:
        """Post a question and yield the stream of records; the response is closed when the block ends.

        Retries after 429, 5xx and connection failures, unless `Retry-After` is longer than `longest_wait` seconds.

        Raises:
            ProviderError: an error reply, or any failure before the reply arrived.
        """
        limits = self._limits
        with ExitStack() as stack:
            for attempt in attempts(
                deadline, retries=limits.retries, backoff=limits.backoff, longest_wait=longest_wait
            ):
                with attempt:
                    stream = stack.enter_context(self._posted(url, body, headers, deadline))
            yield stream

    @contextmanager
    def _posted(
        self, url: str, body: Mapping[str, Any], headers: Mapping[str, str], deadline: Deadline
    ) -> Iterator[RecordStream]:
        started = self._clock()
        sent = {**_WHOLE_PIECES, **onward_headers(), **headers}
        with self._http.exchange(
            "POST", url, deadline=deadline, timeout=self._limits.timeout, headers=sent, json=body
        ) as exchange:
            _raise_for_status(exchange)
            yield RecordStream(exchange, timeout=self._limits.timeout, started=started, clock=self._clock)

    def is_healthy(self, url: str, *, headers: Mapping[str, str]) -> bool:
        """Return whether the URL answers a GET with status 200 within five seconds. The body is not read."""
        until = Deadline(SHORT_CALL, clock=self._clock)
        try:
            with self._http.exchange("GET", url, deadline=until, timeout=SHORT_CALL, headers=headers) as exchange:
                _raise_for_status(exchange)
        except ProviderError as exc:
            log.warning("the provider is not well: %s: %s", exc.code, exc)
            return False
        return True

    def close(self) -> None:
        """Close the pooled connections."""
        self._http.close()


def _raise_for_status(exchange: HTTPReply) -> None:
    if exchange.status != 200:
        body = exchange.read_all(limit=_MAX_ERROR_BODY, timeout=SHORT_CALL)
        raise http_error(exchange.status, body, exchange.retry_after)
