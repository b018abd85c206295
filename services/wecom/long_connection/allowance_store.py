"""WeCom's limits on what a long connection sends: messages to a chat, and uploads of a bot.

    {dify_long_connection:<bot>}:sent:<chat>   sorted set, messages of the last hour by time; the chat's name is hashed
    {dify_long_connection:<bot>}:uploads       the same for uploads

Replies, parts of answers and pushes count together; frames of a stream do not count. The windows are a little longer
than WeCom's, because a message is counted before it leaves and arrives later.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from services.redis.store import Call, ScriptRunner, script
from services.wecom.long_connection.lease_store import bot_key, hidden
from utils.keyring import Keyring, keys_of


class Window(NamedTuple):
    """At most `most` messages within `seconds`."""

    seconds: float
    most: int


#: 30 a minute and 1,000 an hour, with the seconds by which a message may arrive later than the one before it.
WINDOWS = (Window(62.0, 30), Window(3602.0, 1000))


class AllowanceStore:
    """Owns the keys above. Every method is one round trip, and raises `StoreUnavailable` when Redis is away."""

    def __init__(self, runner: ScriptRunner, keys: Mapping[str, Keyring], *, now: str = "") -> None:
        """`keys` are each bot's keys; `now` is the time that scripts use, in seconds, "" for Redis's own clock."""
        self._runner = runner
        self._keys = keys
        self._now = now

    def message(self, bot: str, chat: str, name: str) -> float:
        """Count a message to a chat (a userid or a chatid); return 0.0, or the seconds until it may be counted.

        `name` identifies the message: counted again, it counts once, at its newest time.
        """
        return self._count(self._sent_key(bot, chat), name)

    def take_back(self, bot: str, chat: str, name: str) -> None:
        """Remove a message from the count: it will not be sent."""
        self._runner.run([Call(None, ("ZREM", self._sent_key(bot, chat), name))])

    def upload(self, bot: str, name: str) -> float:
        """Count an upload; return 0.0, or the seconds until it may be counted."""
        return self._count(bot_key(bot, "uploads"), name)

    def chat(self, bot: str, chat: str) -> str:
        """Return a chat's hashed name, the same on all replicas."""
        return hidden(keys_of(self._keys[bot])[0], "chat", chat)

    def _sent_key(self, bot: str, chat: str) -> str:
        return bot_key(bot, f"sent:{self.chat(bot, chat)}")

    def _count(self, key: str, name: str) -> float:
        windows = [figure for window in WINDOWS for figure in window]
        return float(self._runner.run([Call(script("allowance"), (key,), (self._now, name, *windows))])[0])
