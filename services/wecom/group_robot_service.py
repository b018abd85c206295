"""Posts Markdown to a WeCom group through the group's robot. The address has the robot's key in it: a secret.

POST {"msgtype": "markdown", "markdown": {"content": …}}, at most 4,096 bytes. Success is {"errcode": 0}.
"""

from __future__ import annotations

import json
from typing import Any

from services.errors import ProviderError
from services.http.retries import attempts
from services.http.service import HTTPService
from utils.deadline import Deadline

#: Bytes of UTF-8 of the longest message that a robot accepts.
MOST_BYTES = 4096
#: Seconds for a message with its retries, and bytes of the longest reply that is read.
TIMEOUT = 10.0
MOST_REPLY = 4096
#: Retries of a message for which no connection could be made, and the pause before the first in seconds.
RETRIES, BACKOFF = 2, 0.1


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
            RobotRefused: the robot's reply is an error; the text has its errcode or the HTTP status.
            ProviderError: no reply came.
        """
        deadline = Deadline(self._timeout)
        for attempt in attempts(deadline, retries=RETRIES, backoff=BACKOFF):
            with attempt:
                self._post(content, deadline)

    def close(self) -> None:
        self._http.close()

    def _post(self, content: str, deadline: Deadline) -> None:
        message = {"msgtype": "markdown", "markdown": {"content": content}}
        options: dict[str, Any] = {"timeout": self._timeout, "headers": {}, "json": message}
        with self._http.exchange("POST", self._url, deadline=deadline, **options) as reply:
            status, body = reply.status, reply.read_all(limit=MOST_REPLY, timeout=self._timeout)
        if status != 200:
            raise RobotRefused(f"HTTP {status}")
        if (code := _errcode(body)) != 0:
            raise RobotRefused(f"errcode {code}")


def _errcode(body: bytes) -> Any:
    """Return the reply's errcode; None if it is not an integer."""
    try:
        code = json.loads(body)["errcode"]
    except (ValueError, TypeError, LookupError, RecursionError):
        return None
    return code if isinstance(code, int) else None
