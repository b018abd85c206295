"""Posts Markdown to a WeCom group through the group's robot. The address has the robot's key in it: a secret.

POST {"msgtype": "markdown", "markdown": {"content": …}}, at most 4,096 bytes. Success is {"errcode": 0}.
"""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

from services.errors import ProviderError
from services.http.service import HTTPService, TransientError
from utils.deadline import ended_in_time

#: Bytes of UTF-8 of the longest message that a robot accepts.
MOST_BYTES = 4096
#: Seconds for one whole exchange, and bytes of the longest reply that is read.
TIMEOUT = 10.0
MOST_REPLY = 4096
#: How often a message is sent where no connection could be made, so that no robot can have got it.
TRIES = 3


class RobotRefused(ProviderError):
    """The robot did not accept the message."""


class GroupRobotService:
    """One group's robot. Thread-safe."""

    def __init__(self, url: str, *, timeout: float = TIMEOUT) -> None:
        self._url = url
        self._timeout = timeout
        self._http = HTTPService(pool_size=1, keeps_connections=False)

    def post(self, content: str) -> None:
        """Post a message, at most once: it is sent again only where no connection could be made.

        Raises:
            RobotRefused: the robot's own reply says so; the text has its errcode or the HTTP status.
            ProviderError: no reply came.
        """
        for _ in range(TRIES - 1):
            with suppress(TransientError):
                self._post(content)
                return
        self._post(content)

    def close(self) -> None:
        self._http.close()

    def _post(self, content: str) -> None:
        message = {"msgtype": "markdown", "markdown": {"content": content}}
        options: dict[str, Any] = {"timeout": self._timeout, "headers": {}, "json": message}
        with (
            ended_in_time(self._timeout) as deadline,
            self._http.exchange("POST", self._url, deadline=deadline, **options) as reply,
        ):
            status, body = reply.status, reply.read_all(limit=MOST_REPLY, timeout=self._timeout)
        if status != 200:
            raise RobotRefused(f"HTTP {status}")
        if (code := _errcode(body)) != 0:
            raise RobotRefused(f"errcode {code}")


def _errcode(body: bytes) -> Any:
    """Return the reply's errcode; None where it has no whole number there."""
    try:
        code = json.loads(body)["errcode"]
    except (ValueError, TypeError, LookupError, RecursionError):
        return None
    return code if isinstance(code, int) else None
