"""Count the round trips of a Redis client; one pipeline is one round trip, whatever its number of commands."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

import redis


def count_turns(client: redis.Redis) -> Counter[str]:
    """Return a counter of the client's round trips from now on, by the name of the thread that waited for them.

    The first use of a connection has round trips of its own. Other threads may be using the client meanwhile.
    """
    turns: Counter[str] = Counter()

    pool = client.connection_pool

    class Counting(pool.connection_class):  # type: ignore[misc, name-defined]
        def send_packed_command(self, command: Any, check_health: bool = True) -> None:
            turns[threading.current_thread().name] += 1
            super().send_packed_command(command, check_health)

    pool.connection_class = Counting
    for connection in pool._connections:  # type: ignore[attr-defined]
        connection.__class__ = Counting
    return turns
