"""Pushes: `PushInbox` accepts them on any replica, `PushSender` sends them on the holder of the bot's connection.

Each is sent at most once. Chats do not wait for each other, and the pushes of a chat leave in their order. A file is
uploaded first, which may be repeated; then the push is counted for WeCom's limits and claimed, and only then its
message leaves. If the outcome is unknown, the push is not sent again. A file that WeCom has deleted since an earlier
message is uploaded once more.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import secrets
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from services import metrics
from services.errors import PushRefused, StoreUnavailable
from services.wecom.long_connection.allowance_store import AllowanceStore
from services.wecom.long_connection.lease_store import hidden, stands_for
from services.wecom.long_connection.link import Link
from services.wecom.long_connection.protocol import (
    ACK_SECONDS,
    BUSY,
    INVALID_MEDIA,
    NOT_SUBSCRIBED,
    SEND,
    AckMissing,
    LinkLost,
)
from services.wecom.long_connection.push_store import LOST_SECONDS, NewPush, Push, PushState, PushStore
from services.wecom.long_connection.uploads import FileMessage, UploadDelayed, UploadRefused, Uploads
from utils.keyring import Keyring, keys_of

log = logging.getLogger(__name__)

#: Seconds until a retry after a full queue, for Retry-After.
FULL_SECONDS = 60.0
#: Seconds between two looks at the queue; a push that this replica accepted is sent at once.
LOOK = 1.0
#: Chats of one bot that are sent to at once.
MOST_CHATS = 4
#: Seconds between two looks for expired pushes.
OVERDUE_EVERY = 10.0
#: Seconds until the next attempt after a failed upload or claim.
AGAIN = 2.0


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
    """Checks the bot, the chat's limits and the idempotency key of pushes, queues them, and returns their states."""

    def __init__(
        self,
        store: PushStore,
        allowance: AllowanceStore,
        keys: Mapping[str, Keyring],
        *,
        bots: Mapping[str, bool],
        wake: Callable[[str], None],
    ) -> None:
        """`bots` has True for bots with a long connection; `wake` is called with the bot of each new push."""
        self._store = store
        self._allowance = allowance
        self._keys = keys
        self._bots = bots
        self._wake = wake

    def submit(self, message: PushMessage, caller: str, key: str = "") -> tuple[Push, bool]:
        """Queue a message; return the push and whether it is new. The same `key` and message give the same push.

        Raises:
            PushRefused: the bot is unknown or works by callbacks, `key` stands for another message, or a limit is
                reached.
            StoreUnavailable: Redis is away.
        """
        if message.bot not in self._bots:
            raise PushRefused(code="push_bot_unknown")
        if not self._bots[message.bot]:
            raise PushRefused(code="push_bot_callback")
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
            PushRefused: it is unknown, was deleted, or is another caller's.
            StoreUnavailable: Redis is away.
        """
        found = self.look(bot, id)
        if not stands_for(caller, "caller", keys_of(self._keys[bot]), found.owner):
            raise PushRefused
        return found

    def listed(self, most: int) -> tuple[list[Push], int]:
        """Return the pushes of all bots as `PushStore.listed` does; those of all that wait come first.

        Raises:
            StoreUnavailable: Redis is away.
        """
        each = [self._store.listed(bot, most) for bot, is_served in self._bots.items() if is_served]
        found = [push for pushes, _ in each for push in pushes]
        return sorted(found, key=lambda push: bool(push.ended)), sum(waiting for _, waiting in each)

    def look(self, bot: str, id: str) -> Push:
        """Return a push of any caller. Raises as `find` does."""
        found = self._store.find(bot, id) if self._bots.get(bot) else None
        if found is None:
            raise PushRefused
        return found

    def cancel(self, push: Push) -> Push:
        """End a push that waits, and return it as it is then; one that does not wait any more stays as it is.

        Raises:
            PushRefused, StoreUnavailable: as `look`.
        """
        if self._store.cancel(push):
            metrics.PUSHES.labels("cancelled").inc()
            log.info("push cancelled", extra=about(push))
            # Not where it was sealed with a key that this replica does not have.
            with suppress(ValueError):
                chat = json.loads(self._store.payload(push))["chatid"]
                self._allowance.take_back(push.bot, chat, f"push:{push.id}")
        return self.look(push.bot, push.id)

    def _added(self, message: PushMessage, caller: str, id: str) -> bool:
        """Queue a push; return False if another request has queued a push with this id meanwhile."""
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


class _Outcome(NamedTuple):
    state: PushState
    error: str = ""
    #: Seconds until the next message to the chat.
    pause: float = 0.0
    #: Names the upload whose media_id WeCom refused; "" for none.
    refused_upload: str = ""


class PushSender:
    """Sends the pushes of all bots whose connections this replica holds."""

    def __init__(
        self,
        store: PushStore,
        allowance: AllowanceStore,
        uploads: Uploads,
        *,
        again: float = AGAIN,
        ack_seconds: float = ACK_SECONDS,
    ) -> None:
        """`again` and `ack_seconds` are `AGAIN` and the time in which WeCom acknowledges a message."""
        self._store = store
        self._allowance = allowance
        self._uploads = uploads
        self._again = again
        self._ack_seconds = ack_seconds
        self._wakes: Mapping[str, threading.Event] = defaultdict(threading.Event)

    def wake(self, bot: str) -> None:
        """Look at a bot's queue now: a push was added."""
        self._wakes[bot].set()

    def serve(self, link: Link) -> None:
        """Send what is queued for the bot until the connection is lost."""
        wake, chats, next_overdue = self._wakes[link.bot], set[str](), 0.0
        while not link.lost.is_set():
            wake.clear()
            try:
                self._begin(link, chats)
                if time.monotonic() >= next_overdue:
                    count_overdue(self._store, link.bot)
                    next_overdue = time.monotonic() + OVERDUE_EVERY
            except StoreUnavailable:
                # The runner logs the outage; the queue is looked at again.
                pass
            wake.wait(LOOK)

    def _begin(self, link: Link, chats: set[str]) -> None:
        """Start a thread for each due chat, up to `MOST_CHATS`; `chats` are the chats that have one."""
        for chat in self._store.due(link.bot, 2 * MOST_CHATS):
            if chat not in chats and len(chats) < MOST_CHATS:
                chats.add(chat)
                threading.Thread(target=self._run, args=(link, chat, chats), name="push", daemon=True).start()

    def _run(self, link: Link, chat: str, chats: set[str]) -> None:
        """Send a chat's first push, and set when its next one is due."""
        pause = self._again
        try:
            pause = self._send_first(link, chat)
        except StoreUnavailable:
            # No message has left: after that `_settle` handles an outage.
            pass
        except Exception:
            log.exception("push failed", extra={"bot": link.bot, "chat": chat})
        try:
            self._store.next(link.bot, chat, pause)
        except StoreUnavailable:
            pass
        finally:
            chats.discard(chat)
            self.wake(link.bot)

    def _send_first(self, link: Link, chat: str) -> float:
        """Send a chat's first push; return the seconds until its next one may leave."""
        id = self._store.head(link.bot, chat)
        push = self._store.find(link.bot, id) if id else None
        if not id:
            return 0.0
        if push is None or push.state != "queued":
            dropped = self._store.claim(link.bot, chat, id, fence=link.fence, claim=secrets.token_hex(16)) == "dropped"
            return 0.0 if dropped else self._again
        try:
            body, file = self._message(link, push)
        except (AckMissing, LinkLost):
            return self._again
        except UploadDelayed as exc:
            return exc.seconds
        except _Unsendable as exc:
            failed = _Outcome("failed", exc.code)
            return self._end(link, push, lambda: failed)
        if seconds := self._allowance.message(link.bot, body["chatid"], f"push:{push.id}"):
            return seconds
        return self._end(link, push, lambda: _sent(link, body, file, self._ack_seconds))

    def _message(self, link: Link, push: Push) -> tuple[dict[str, Any], FileMessage | None]:
        """Return the body of a push's message, and its file, which is uploaded; None for a text.

        Raises:
            _Unsendable: it cannot be sent.
        """
        try:
            message = json.loads(self._store.payload(push))
            target = {"chatid": message["chatid"], "chat_type": message["chat_type"]}
            if "markdown" in message:
                return {**target, "msgtype": "markdown", "markdown": {"content": message["markdown"]}}, None
            content = self._store.content(push)
            if content is None:
                raise _Unsendable("file_lost")
            file = self._uploads.message(link, message["name"], content)
            return {**target, **file.body}, file
        except ValueError as exc:
            # Sealed with a key that this replica does not have.
            raise _Unsendable("unreadable") from exc
        except UploadRefused as exc:
            raise _Unsendable(exc.code) from exc

    def _end(self, link: Link, push: Push, send: Callable[[], _Outcome]) -> float:
        """Claim a push, send it, and store the outcome; return the seconds until the chat's next one may leave."""
        claim, began = secrets.token_hex(16), time.monotonic()
        if self._store.claim(push.bot, push.chat, push.id, fence=link.fence, claim=claim) != "claimed":
            return self._again
        outcome = send()
        if self._settle(push, claim, outcome) and outcome.state != "queued":
            metrics.PUSHES.labels(outcome.state).inc()
        level = logging.INFO if outcome.state in ("sent", "queued") else logging.WARNING
        figures = {"outcome": outcome.state, "code": outcome.error, "ms": round(1000 * (time.monotonic() - began))}
        log.log(level, "push", extra={**about(push), **figures})
        if outcome.refused_upload:
            self._uploads.forget(push.bot, outcome.refused_upload)
        return outcome.pause

    def _settle(self, push: Push, claim: str, outcome: _Outcome) -> bool:
        """Store an outcome, also through a short outage of Redis; beyond it the push's state becomes unknown."""
        end = time.monotonic() + LOST_SECONDS
        while True:
            try:
                return self._store.settle(push, claim, outcome.state, outcome.error)
            except StoreUnavailable:
                if time.monotonic() >= end:
                    return False
            time.sleep(self._again)


class _Unsendable(Exception):
    """A push cannot be sent; `code` is the cause."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


def _sent(link: Link, body: Mapping[str, Any], file: FileMessage | None, seconds: float) -> _Outcome:
    """Send a message, which shows `file` unless that is None; return its outcome after `seconds` at most."""
    try:
        ack = link.request(SEND, body, seconds=seconds)
    except LinkLost as exc:
        return _Outcome("unknown" if exc.sent else "queued")
    except AckMissing:
        return _Outcome("unknown")
    if ack.errcode == NOT_SUBSCRIBED:
        return _Outcome("queued")
    if ack.errcode in BUSY:
        return _Outcome("queued", pause=BUSY[ack.errcode])
    if ack.errcode == INVALID_MEDIA and file:
        return _Outcome("queued" if file.is_reused else "failed", str(ack.errcode), refused_upload=file.digest)
    return _Outcome("failed", str(ack.errcode)) if ack.errcode else _Outcome("sent")


def count_overdue(store: PushStore, bot: str) -> int:
    """End expired pushes and lost claims, count them, and return their number."""
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
