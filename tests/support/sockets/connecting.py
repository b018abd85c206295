"""Opens WebSockets of tests, by TLS too."""

from __future__ import annotations

from typing import Any

from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect


def connected(address: str, **options: Any) -> ClientConnection:
    """Connect as `websockets.sync.client.connect` does; by TLS once more after a failure that is no refusal.

    This client reads and writes in two threads, which Python's ssl before 3.13 does not lock: occasionally a request is
    never sent, or cannot be written. TimeoutError and SSLError are OSErrors.

    Raises:
        InvalidStatus: the server refused the handshake.
    """
    connection: ClientConnection
    try:
        connection = connect(address, **options)
    except InvalidStatus:
        raise
    except (OSError, ConnectionClosed):
        if not address.startswith("wss:"):
            raise
        connection = connect(address, **options)
    return connection
