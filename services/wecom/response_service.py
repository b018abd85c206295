"""Posts a message to WeCom's `response_url`, once. The address is a credential: it is in no log line and no error."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Collection
from typing import Any
from urllib.parse import urlsplit

from services.errors import ProviderError
from services.http.service import HTTPReply, HTTPService
from utils.deadline import Deadline, ended_in_time
from utils.origins import is_host_of

log = logging.getLogger(__name__)

#: WeCom's own host, which takes https and this path only, listed or not.
WECOM_HOST, WECOM_PATH = "qyapi.weixin.qq.com", "/cgi-bin/aibot/response"
#: Seconds for a message in all, for one connection, and for the reply.
TOTAL_SECONDS, CONNECT_SECONDS, REPLY_SECONDS = 20.0, 5.0, 10.0
#: Pauses in seconds between attempts that could not connect.
PAUSES = (0.5, 2.0, 5.0)
#: The most bytes of a reply that are read.
MOST_REPLY = 4096


class ResponseService:
    """Sends late messages to the hosts that the settings list."""

    def __init__(
        self,
        hosts: Collection[str],
        *,
        total_seconds: float = TOTAL_SECONDS,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`hosts` are names, or ".name" for all below one; `total_seconds` is the time for a message in all."""
        self._hosts = hosts
        self._total_seconds = total_seconds
        self._sleep = sleep
        self._http = HTTPService(pool_size=1, connect_timeout=CONNECT_SECONDS, keeps_connections=False)

    def allows(self, url: str) -> bool:
        """Return whether a message may be posted there: a listed host, and for WeCom's own https and its path."""
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
            ProviderError: the message was not sent, or it is not known whether it arrived; the text has the cause.
        """
        with ended_in_time(self._total_seconds) as deadline:
            self._attempt(url, content, deadline)

    def close(self) -> None:
        self._http.close()

    def _attempt(self, url: str, content: str, deadline: Deadline) -> None:
        for pause in (*PAUSES, None):
            try:
                return self._once(url, content, deadline)
            except ProviderError as exc:
                if not exc.unsent or pause is None or deadline.remaining() <= pause:
                    raise
                log.debug("late message not sent yet", extra={"cause": str(exc)})
            self._sleep(pause)
        raise AssertionError("unreachable")

    def _once(self, url: str, content: str, deadline: Deadline) -> None:
        message = {"msgtype": "markdown", "markdown": {"content": content}}
        options: dict[str, Any] = {"timeout": REPLY_SECONDS, "headers": {}, "json": message}
        with self._http.exchange("POST", url, deadline=deadline, **options) as exchange:
            _check(exchange)


def _check(exchange: HTTPReply) -> None:
    """Raise ProviderError unless WeCom accepted the message; its `errmsg` is not kept, it may quote the address."""
    if exchange.status != 200:
        raise ProviderError(f"HTTP {exchange.status}", http_status=exchange.status)
    body = exchange.read_all(limit=MOST_REPLY, timeout=REPLY_SECONDS)
    try:
        reply = json.loads(body)
        errcode = int(reply["errcode"])
    except (ValueError, KeyError, TypeError):
        raise ProviderError("a reply without errcode") from None
    if errcode:
        raise ProviderError(f"errcode {errcode}")
