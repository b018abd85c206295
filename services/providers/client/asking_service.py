"""One question to a JSON service and the stream of its answer; asked again only while nothing of it was seen."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any
from urllib.parse import urlsplit

from services.errors import ProviderError, SettingsError
from services.http.service import Exchange, HTTPService
from services.providers.client.record_stream import RecordStream
from services.providers.client.refusals import http_error
from services.providers.client.retries import LONGEST_WAIT, attempts
from utils.deadline import Deadline

log = logging.getLogger(__name__)

#: Bound of the look at whether a service is there, and of reading a refusal, in seconds.
SHORT_CALL = 5.0
#: Of a refusal's body at most this is read.
_MAX_REFUSAL = 64 * 1024
#: A proxy that compresses holds pieces back until a block is full.
_WHOLE_PIECES = {"Accept-Encoding": "identity"}


class AskingService:
    """One service over one pooled session; safe to use from many threads."""

    def __init__(
        self,
        *,
        timeout: float,
        pool_size: int = 100,
        retries: int = 2,
        backoff: float = 0.5,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take the bounds: `timeout` is the longest silence without a record, the first included, in seconds."""
        self._timeout = timeout
        self._retries = retries
        self._backoff = backoff
        self._clock = clock
        self._http = HTTPService(pool_size=pool_size)

    @contextmanager
    def ask(
        self,
        url: str,
        body: Mapping[str, Any],
        *,
        headers: Mapping[str, str],
        deadline: Deadline,
        longest_wait: float = LONGEST_WAIT,
    ) -> Iterator[RecordStream]:
        """Post a question, and give the stream of records to the block; the response is closed after it.

        Raises:
            ProviderError: a refusal, or any failure before the reply was there; 429, 5xx and no connection after
                having been asked again, unless the service wants to be left alone for longer than `longest_wait`.
        """
        with ExitStack() as stack:
            for attempt in attempts(deadline, retries=self._retries, backoff=self._backoff, longest_wait=longest_wait):
                with attempt:
                    stream = stack.enter_context(self._asked(url, body, headers, deadline))
            yield stream

    @contextmanager
    def _asked(
        self, url: str, body: Mapping[str, Any], headers: Mapping[str, str], deadline: Deadline
    ) -> Iterator[RecordStream]:
        started = self._clock()
        with self._http.exchange(
            "POST", url, deadline=deadline, timeout=self._timeout, headers={**_WHOLE_PIECES, **headers}, json=body
        ) as exchange:
            _refuse_failure(exchange)
            yield RecordStream(exchange, timeout=self._timeout, started=started, clock=self._clock)

    def answers(self, url: str, *, headers: Mapping[str, str]) -> bool:
        """Tell whether an address answers a GET with 200, within five seconds; what it answers is not read."""
        until = Deadline(SHORT_CALL, clock=self._clock)
        try:
            with self._http.exchange("GET", url, deadline=until, timeout=SHORT_CALL, headers=headers) as exchange:
                _refuse_failure(exchange)
        except ProviderError as exc:
            log.warning("the provider is not well: %s: %s", exc.code, exc)
            return False
        return True

    def close(self) -> None:
        """Give the pooled connections back."""
        self._http.close()


def _refuse_failure(exchange: Exchange) -> None:
    if exchange.status != 200:
        body = exchange.read_all(limit=_MAX_REFUSAL, timeout=SHORT_CALL)
        raise http_error(exchange.status, body, exchange.retry_after)


def checked_url(name: str, url: str) -> str:
    """Return an address without the blanks around it.

    Raises:
        SettingsError: it is no http(s) address; `name` is the setting's.
    """
    stripped = url.strip()
    if not stripped.startswith(("http://", "https://")) or not urlsplit(stripped).hostname:
        raise SettingsError(f"{name}: expected an address such as https://service.example")
    return stripped


def checked_headers(name: str, headers: Mapping[str, str]) -> dict[str, str]:
    """Return headers that can be sent: a key read from a file often ends in a newline.

    Raises:
        SettingsError: one of them cannot be; the message names the setting and the header, never its value.
    """
    stripped = {header: value.strip() for header, value in headers.items()}
    for header, value in stripped.items():
        token = header.replace("-", "").replace("_", "").isalnum() and header.isascii()
        if not token or not (value.isascii() and value.isprintable()):
            raise SettingsError(f"{name}: cannot be sent in the header {header!r}: expected printable ASCII")
    return stripped
