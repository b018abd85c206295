"""Google's results by serper.dev. One POST is one search and costs one credit, so there are no retries."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from itertools import islice
from typing import Any

from services.errors import ProviderError
from services.http.service import HTTPReply, HTTPService, aborted_error
from services.providers.base import BaseSearchProvider, Hit, SearchResult
from services.providers.client.json_fields import count, json_object, mapping, mappings, text
from utils.deadline import Deadline
from utils.running_time import running_time

#: Maximum number of hits, and of characters in their fields. A longer text is cut; a hit with a longer URL is dropped.
MAX_HITS = 20
MAX_TITLE = 200
MAX_SNIPPET = 600
MAX_URL = 2000

log = logging.getLogger(__name__)

#: Timeout of the health check, in seconds.
HEALTH_SECONDS = 5.0
#: Maximum characters of a query; Google reads at most 32 words.
MAX_QUERY = 400
#: Maximum bytes of a reply; ten results have about ten thousand.
MAX_REPLY = 1024 * 1024
_CODES = {401: "provider_unauthorized", 403: "provider_unauthorized", 404: "provider_not_found", 429: "provider_busy"}


def read_result(reply: Mapping[str, Any]) -> SearchResult:
    """Return the hits in their order, and the answer of Google's own boxes.

    Raises:
        ProviderError: the object is not the reply to a search.
    """
    organic = reply.get("organic", [])
    if not isinstance(organic, list) or not ({"organic", "searchParameters"} & reply.keys() or _answer(reply)):
        raise ProviderError("the reply has no results, not even none", code="provider_error", http_status=200)
    found = (each for each in mappings(organic) if _address(each))
    hits = tuple(_hit(each, number) for number, each in enumerate(islice(found, MAX_HITS), 1))
    usage = {"results_count": len(hits), "credits": count(reply.get("credits"))}
    return SearchResult(hits, _answer(reply), usage)


def _hit(result: Mapping[str, Any], position: int) -> Hit:
    address = _address(result)
    title = _line(result.get("title"), MAX_TITLE) or address
    snippet = _line(result.get("snippet"), MAX_SNIPPET)
    date = _line(result.get("date"), 40)
    return Hit(title, address, f"{date} — {snippet}" if date and snippet else snippet, position)


def _answer(reply: Mapping[str, Any]) -> str:
    """Return the answer box and the knowledge graph, one line each."""
    return "\n".join(line for line in (_box(mapping(reply.get("answerBox"))), _graph(reply)) if line)


def _box(box: Mapping[str, Any]) -> str:
    content = _line(box.get("answer"), MAX_SNIPPET) or _line(box.get("snippet"), MAX_SNIPPET)
    title = _line(box.get("title"), MAX_TITLE)
    return _labelled(title, content) if content else ""


def _graph(reply: Mapping[str, Any]) -> str:
    graph = mapping(reply.get("knowledgeGraph"))
    title, kind = _line(graph.get("title"), MAX_TITLE), _line(graph.get("type"), MAX_TITLE)
    content = _line(graph.get("description"), MAX_SNIPPET) or _facts(mapping(graph.get("attributes")))
    return _labelled(f"{title} ({kind})" if title and kind else title, content) if content else ""


def _facts(attributes: Mapping[str, Any]) -> str:
    facts = (f"{_line(name, 60)}: {_line(value, 120)}" for name, value in islice(attributes.items(), 5))
    return "; ".join(facts)


def _labelled(title: str, content: str) -> str:
    return f"{title}: {content}" if title and title != content else content


def _address(result: Mapping[str, Any]) -> str:
    """Return a result's URL; "" if it is not a valid http(s) URL, such as `javascript:`."""
    address = text(result.get("link")).strip()
    web = address.startswith(("http://", "https://")) and len(address) <= MAX_URL
    return address if web and not any(letter.isspace() for letter in address) else ""


def _line(value: Any, longest: int) -> str:
    """Return a text as one line of at most `longest` characters, so that it cannot break the Markdown around it."""
    line = " ".join(text(value).split())
    return line if len(line) <= longest else f"{line[: longest - 1]}…"


class SerperSearch(BaseSearchProvider):
    """Searches the web with serper.dev. Thread-safe."""

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
        clock: Callable[[], float] = running_time,
    ) -> None:
        """Configure the key and the parameters of a search. Does not connect.

        `timeout` limits a search, in seconds. `gl` is the results' country and `hl` their language; "" leaves the
        choice to the service. `num` is the number of results.
        """
        self.timeout = timeout
        self._root = base_url.rstrip("/").removesuffix("/search")
        self._headers = {"X-API-KEY": api_key, "Accept": "application/json"}
        self._wanted = {"num": num} | {name: value for name, value in (("gl", gl), ("hl", hl)) if value}
        self._clock = clock
        self._http = HTTPService(pool_size=pool_size)

    def search(self, query: str, deadline: Deadline) -> SearchResult:
        """Return the search results and the answers of Google's own boxes.

        Raises:
            ProviderError: `provider_unauthorized`, `provider_busy`, `provider_timeout` and other provider codes;
                `interrupted` after `deadline.abort`, `answer_timeout` when the deadline has passed.
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
        """Check the account, which is free: whether the key is valid and has credits left.

        A compatible server without an account page (404 or 405) counts as healthy.
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

    def _reply(self, exchange: HTTPReply, ends: float, deadline: Deadline) -> Mapping[str, Any]:
        reply = json_object(self._body(exchange, ends))
        if exchange.status != 200:
            raise _http_error(exchange.status, reply or {})
        if deadline.aborted:
            raise aborted_error(deadline)
        if reply is None:
            raise ProviderError("the reply is no JSON object", code="provider_error", http_status=200)
        return reply

    def _body(self, exchange: HTTPReply, ends: float) -> bytes:
        """Read piece by piece, so that neither a long nor a slow reply exceeds the limits on size and time."""
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


def _http_error(status: int, reply: Mapping[str, Any]) -> ProviderError:
    """Return the error for an error reply. An account without credits has status 400 and is found by its message."""
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
