"""Sends a few requests without a load generator; bench/load/callbacks.py builds them."""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPResponse

#: Concurrent requests, and the timeout of one in seconds.
SENDERS, _SECONDS = 16, 60.0


def posted(port: int, requests: Sequence[bytes], every: float) -> list[bytes]:
    """Send requests with at least this interval in seconds; return the bodies of their replies.

    Each request uses a new connection: with persistent ones most questions would go to one worker.
    """
    began = time.monotonic()
    with ThreadPoolExecutor(SENDERS) as senders:
        replies = []
        for number, request in enumerate(requests):
            time.sleep(max(0.0, began + number * every - time.monotonic()))
            replies.append(senders.submit(_post, port, request))
        return [reply.result() for reply in replies]


def _post(port: int, request: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), _SECONDS) as connection:
        return exchange(connection, request)


def exchange(connection: socket.socket, request: bytes) -> bytes:
    """Send a request; return the body of its reply.

    Raises:
        OSError, HTTPException: there is no valid reply.
    """
    connection.sendall(request)
    with HTTPResponse(connection) as reply:
        reply.begin()
        if reply.status != 200:
            raise ConnectionError(f"the gateway answered {reply.status}")
        return reply.read()
