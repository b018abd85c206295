"""The lease of a bot, for tests of what its holder does."""

from __future__ import annotations

from services.redis.store import Call, ScriptRunner
from services.wecom.long_connection.lease_store import lease_key


def hold(runner: ScriptRunner, bot: str) -> int:
    """Take a bot's lease as a new holder; return the fence."""
    return int(runner.run([Call(None, ("HINCRBY", lease_key(bot)), ("fence", 1))])[0])
