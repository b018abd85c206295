"""Counts what a Redis client sends: one turn is one round trip, whatever number of commands it carries."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

import redis


def count_turns(client: redis.Redis) -> Counter[str]:
    """Return the turns of a client from now on, by the name of the thread that waited for them.

    The client gets new connections for it; a connection's first use has turns of its own.
    """
    turns: Counter[str] = Counter()

    pool = client.connection_pool

    class Counting(pool.connection_class):  # type: ignore[misc, name-defined]
        def send_packed_command(self, command: Any, check_health: bool = True) -> None:
            turns[threading.current_thread().name] += 1
            super().send_packed_command(command, check_health)

    pool.disconnect()
    pool.connection_class = Counting
    pool.reset()
    return turns
