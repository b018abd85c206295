"""Google's results by serper.dev: one POST is one search and costs a credit, so nothing here asks twice."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

from services.errors import ProviderError, SettingsError
from services.http.service import Exchange, HTTPService, aborted_error
from services.providers.base import BaseSearchProvider, SearchResult
from services.providers.search.serper_results import read_result
from utils.deadline import Deadline

log = logging.getLogger(__name__)

#: Seconds a look at the account may take.
HEALTH_SECONDS = 5.0
#: Characters of a query; Google reads no more than 32 words.
MAX_QUERY = 400
#: Bytes of a reply; ten results have about ten thousand.
MAX_REPLY = 1024 * 1024

_CODES = {401: "provider_unauthorized", 403: "provider_unauthorized", 404: "provider_not_found", 429: "provider_busy"}


class SerperSearch(BaseSearchProvider):
    """Searches the web; safe to use from many threads."""

    name = "serper"

    def __init__(
        self,
        *,
        api_key: str,
        base_url: str = "https://google.serper.dev",
        timeout: float = 10.0,
        gl: str = "us",
        hl: str = "",
        num: int = 10,
        pool_size: int = 100,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take the key and what is asked for; nothing connects.

        `timeout` bounds a search, in seconds. `gl` is the country whose results are wanted, `hl` their language, each
        "" for what the service thinks best; `num` is how many are wanted.

        Raises:
            SettingsError: no key, or no address.
        """
        if not api_key:
            raise SettingsError("SERPER_API_KEY: missing, expected the key of serper.dev")
        if not base_url.startswith(("http://", "https://")):
            raise SettingsError("SERPER_BASE_URL: expected an address such as https://google.serper.dev")
        self.timeout = timeout
        self._root = base_url.rstrip("/").removesuffix("/search")
        self._headers = {"X-API-KEY": api_key, "Accept": "application/json"}
        self._wanted = {"num": num} | {name: value for name, value in (("gl", gl), ("hl", hl)) if value}
        self._clock = clock
        self._http = HTTPService(pool_size=pool_size)

    def search(self, query: str, deadline: Deadline) -> SearchResult:
        """Search, and return the results with what Google itself answers.

        Raises:
            ProviderError: `provider_unauthorized`, `provider_busy`, `provider_timeout` and their like;
                `interrupted` after `deadline.abort`, `answer_timeout` when that is over.
        """
        ends = self._clock() + self.timeout
        body = {"q": " ".join(query.split())[:MAX_QUERY], **self._wanted}
        with self._http.exchange(
            "POST",
            f"{self._root}/search",
            deadline=deadline,
            timeout=self.timeout,
            headers=self._headers,
            json=body,
        ) as exchange:
            return read_result(self._reply(exchange, ends, deadline))

    def health_check(self) -> bool:
        """Look at the account, which costs nothing: whether the key is right and has credits left.

        A server of the same format that has no account page counts as well.
        """
        deadline = Deadline(HEALTH_SECONDS)
        try:
            with self._http.exchange(
                "GET", f"{self._root}/account", deadline=deadline, timeout=HEALTH_SECONDS, headers=self._headers
            ) as exchange:
                if exchange.status in (404, 405):
                    return True
                account = self._reply(exchange, self._clock() + HEALTH_SECONDS, deadline)
        except ProviderError as exc:
            log.warning("Serper is not well: %s: %s", exc.code, exc)
            return False
        return _has_credits(account)

    def _reply(self, exchange: Exchange, ends: float, deadline: Deadline) -> Mapping[str, Any]:
        reply = _json_object(self._body(exchange, ends))
        if exchange.status != 200:
            raise _refusal(exchange.status, reply or {})
        if deadline.aborted:
            raise aborted_error(deadline)
        if reply is None:
            raise ProviderError("the reply is no JSON object", code="provider_error", http_status=200)
        return reply

    def _body(self, exchange: Exchange, ends: float) -> bytes:
        """Read piece by piece: neither a long reply nor a drip may hold us beyond the bounds."""
        body = b""
        while (left := ends - self._clock()) > 0.0:
            piece = exchange.read(left)
            body += piece
            if not piece:
                return body
            if len(body) > MAX_REPLY:
                raise ProviderError("the reply is too long", code="provider_error", http_status=exchange.status)
        raise ProviderError("the reply takes too long", code="provider_timeout", http_status=exchange.status)

    def close(self) -> None:
        self._http.close()


def _json_object(body: bytes) -> Mapping[str, Any] | None:
    try:
        reply = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return reply if isinstance(reply, dict) else None


def _refusal(status: int, reply: Mapping[str, Any]) -> ProviderError:
    """Return our error; an account without credits is told apart, as its status says no more than that it is 400."""
    if "credit" in str(reply.get("message", "")).lower():
        return ProviderError(f"HTTP {status}: no credits left", code="provider_busy", http_status=status)
    code = _CODES.get(status, "provider_error" if status >= 500 else "provider_rejected")
    return ProviderError(f"HTTP {status}", code=code, http_status=status)


def _has_credits(account: Mapping[str, Any]) -> bool:
    balance = account.get("balance")
    if isinstance(balance, int | float) and balance <= 0:
        log.warning("Serper is not well: no credits left")
        return False
    return True
