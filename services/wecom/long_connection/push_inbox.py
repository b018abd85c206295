"""Takes pushes on any replica: checks the bot, the chat's limits and the idempotency key, and queues them in Redis."""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from services import metrics
from services.errors import PushRefused
from services.wecom.long_connection.allowance_store import AllowanceStore
from services.wecom.long_connection.names import hidden, stands_for
from services.wecom.long_connection.push_store import NewPush, Push, PushStore
from utils.keyring import Keyring, keys_of

log = logging.getLogger(__name__)

#: Seconds after which a full queue is worth another attempt.
FULL_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class PushMessage:
    """A message to a person or a group."""

    bot: str
    #: A userid, or a chatid where it goes to a group.
    chat: str = field(repr=False)
    is_group: bool
    markdown: str = field(default="", repr=False)
    #: Name and content of a file, "" and b"" for a text.
    name: str = field(default="", repr=False)
    content: bytes = field(default=b"", repr=False)

    def payload(self) -> str:
        """Return the JSON that the sender reads; a file's content is kept beside it."""
        shown = {"markdown": self.markdown} if self.markdown else {"name": self.name}
        return json.dumps({"chatid": self.chat, "chat_type": 2 if self.is_group else 1, **shown}, ensure_ascii=False)

    def digest(self, key: bytes) -> str:
        content = hashlib.sha256(self.content).hexdigest()
        return hmac.digest(key, f"{self.payload()}{content}".encode("utf-8", "replace"), "sha256").hex()


class PushInbox:
    """Queues pushes and tells their states."""

    def __init__(
        self,
        store: PushStore,
        allowance: AllowanceStore,
        keys: Mapping[str, Keyring],
        *,
        bots: Mapping[str, bool],
        wake: Callable[[str], None],
    ) -> None:
        """`bots` tells which bots have a long connection; `wake` is called with the bot of each new push."""
        self._store = store
        self._allowance = allowance
        self._keys = keys
        self._bots = bots
        self._wake = wake

    def submit(self, message: PushMessage, caller: str, key: str = "") -> tuple[Push, bool]:
        """Queue a message; return the push and whether it is new. One with the same `key` and message is found again.

        Raises:
            PushRefused: the bot is unknown or works by callbacks, `key` stands for another message, or a limit is
                reached.
            StoreUnavailable: Redis is away.
        """
        self._check(message.bot)
        id = _named(caller, key) if key else secrets.token_hex(16)
        found = self._store.find(message.bot, id) if key else None
        new = found is None and self._added(message, caller, id)
        found = found or self._store.find(message.bot, id)
        if found is None:
            raise PushRefused
        if not any(hmac.compare_digest(message.digest(one), found.digest) for one in keys_of(self._keys[message.bot])):
            raise PushRefused(code="push_conflict")
        if new:
            metrics.PUSHES.labels("queued").inc()
            log.info("push queued", extra=about(found))
            self._wake(message.bot)
        return found, new

    def find(self, bot: str, id: str, caller: str) -> Push:
        """Return a push of this caller.

        Raises:
            PushRefused: there is none, or none any more, or it is another caller's.
            StoreUnavailable: Redis is away.
        """
        found = self._store.find(bot, id) if self._bots.get(bot) else None
        if found is None or not stands_for(caller, "caller", keys_of(self._keys[bot]), found.owner):
            raise PushRefused
        return found

    def _check(self, bot: str) -> None:
        if bot not in self._bots:
            raise PushRefused(code="push_bot_unknown")
        if not self._bots[bot]:
            raise PushRefused(code="push_bot_callback")

    def _added(self, message: PushMessage, caller: str, id: str) -> bool:
        """Queue a push; return False if a push of this id came in between."""
        name = f"push:{id}"
        seconds = self._allowance.message(message.bot, message.chat, name)
        if seconds:
            metrics.PUSHES.labels("limited").inc()
            raise PushRefused(code="push_limited", seconds=seconds)
        push = self._new(message, caller, id)
        added = self._store.add(message.bot, push)
        if added == "full" and count_overdue(self._store, message.bot):
            added = self._store.add(message.bot, push)
        if added != "added" and push.file:
            # Another request with the same key may have stored the same file.
            self._store.drop_file(message.bot, push.file)
        if added == "full":
            self._allowance.take_back(message.bot, message.chat, name)
            metrics.PUSHES.labels("refused").inc()
            raise PushRefused(code="push_queue_full", seconds=FULL_SECONDS)
        return added == "added"

    def _new(self, message: PushMessage, caller: str, id: str) -> NewPush:
        """Return the push of a message, and store its file's content."""
        key = keys_of(self._keys[message.bot])[0]
        chat, owner = self._allowance.chat(message.bot, message.chat), hidden(key, "caller", caller)
        plain = NewPush(id, chat, owner, message.digest(key), message.payload())
        if not message.content:
            return plain
        file, size = secrets.token_hex(16), len(message.content)
        slices = self._store.put_file(message.bot, file, message.content)
        return NewPush(id, chat, owner, plain.digest, plain.payload, file, slices, size)


def count_overdue(store: PushStore, bot: str) -> int:
    """End the pushes whose time is over, count them, and return how many there were."""
    ended = store.end_overdue(bot)
    for outcome, count in ended.items():
        if count:
            metrics.PUSHES.labels(outcome).inc(count)
            log.warning("pushes ended unsent", extra={"bot": bot, "outcome": outcome, "pushes": count})
    return sum(ended.values())


def about(push: Push) -> dict[str, str]:
    """Return the log fields of a push; the chat is a hashed name."""
    return {"bot": push.bot, "push": push.id, "chat": push.chat}


def _named(caller: str, key: str) -> str:
    """Return the id of the push that a caller's idempotency key stands for."""
    return hashlib.sha256(json.dumps(["push", caller, key]).encode("utf-8", "replace")).hexdigest()[:32]
