"""Posts Markdown to WeCom, each message once: to a message's `response_url`, and to the robot of a group.

POST {"msgtype": "markdown", "markdown": {"content": …}}; success is {"errcode": 0}. Either address is a credential: it
is in no log line and no error.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any
from urllib.parse import urlsplit

from services.errors import ProviderError
from services.http.retries import attempts, is_unsent
from services.http.service import HTTPReply, HTTPService
from utils.deadline import Deadline
from utils.origins import is_host_of

#: WeCom's own host, which accepts https and this path only for a `response_url`, listed or not.
WECOM_HOST, WECOM_PATH = "qyapi.weixin.qq.com", "/cgi-bin/aibot/response"
#: Seconds for a message with its retries, for one connection, and for the reply.
TOTAL_SECONDS, CONNECT_SECONDS, REPLY_SECONDS = 20.0, 5.0, 10.0
#: Retries of a message that was not sent, and the pause before the first in seconds.
RETRIES, BACKOFF = 3, 1.0
#: The most bytes of a reply that are read.
MOST_REPLY = 4096


class MarkdownRefused(ProviderError):
    """The reply is no success; the text has its errcode or the HTTP status, not its `errmsg`, which may quote the
    address.
    """


class MarkdownService:
    """Posts messages. Thread-safe."""

    def __init__(
        self, hosts: Collection[str] = (), *, total_seconds: float = TOTAL_SECONDS, backoff: float = BACKOFF
    ) -> None:
        """`hosts` may get answers: names, or ".name" for all subdomains. A message has `total_seconds` with retries."""
        self._hosts = hosts
        self._total_seconds = total_seconds
        self._backoff = backoff
        self._http = HTTPService(pool_size=1, connect_timeout=CONNECT_SECONDS, keeps_connections=False)

    def allows(self, url: str) -> bool:
        """Return whether an answer may be posted there: a listed host, and for WeCom's own https and its path."""
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port
        except ValueError:
            return False
        if parts.scheme not in ("http", "https") or "@" in parts.netloc or not is_host_of(parts.netloc, self._hosts):
            return False
        if host != WECOM_HOST:
            return True
        return parts.scheme == "https" and port in (None, 443) and parts.path == WECOM_PATH

    def post(self, url: str, content: str) -> None:
        """Post a Markdown message; again only if no byte of the request can have left.

        Raises:
            MarkdownRefused: the reply is an error, or not WeCom's.
            ProviderError: the message was not sent, or no reply came.
        """
        deadline = Deadline(self._total_seconds)
        for attempt in attempts(deadline, retries=RETRIES, backoff=self._backoff, may_retry=is_unsent):
            with attempt:
                self._post(url, content, deadline)

    def close(self) -> None:
        self._http.close()

    def _post(self, url: str, content: str, deadline: Deadline) -> None:
        message = {"msgtype": "markdown", "markdown": {"content": content}}
        options: dict[str, Any] = {"timeout": REPLY_SECONDS, "headers": {}, "json": message}
        with self._http.exchange("POST", url, deadline=deadline, **options) as exchange:
            _check(exchange)


def _check(exchange: HTTPReply) -> None:
    if exchange.status != 200:
        raise MarkdownRefused(f"HTTP {exchange.status}", http_status=exchange.status)
    body = exchange.read_all(limit=MOST_REPLY, timeout=REPLY_SECONDS)
    try:
        errcode = int(json.loads(body)["errcode"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        raise MarkdownRefused("a reply without errcode") from None
    if errcode:
        raise MarkdownRefused(f"errcode {errcode}")
