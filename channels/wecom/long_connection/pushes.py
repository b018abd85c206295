"""Sends the pushes of the bot whose connection this replica holds, each at most once.

Chats do not wait for each other, and the pushes of a chat leave in their order. A file is uploaded first, which may be
repeated; then the push is counted for WeCom's limits and claimed, and only then its message leaves. Where the outcome
is not known, it is not sent again. A file that WeCom has deleted since an earlier message is uploaded once more.
"""

from __future__ import annotations

import json
import logging
import secrets
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from channels.wecom.long_connection.link import Link
from channels.wecom.long_connection.uploads import FileMessage, UploadDelayed, UploadRefused, Uploads
from services import metrics
from services.errors import StoreUnavailable
from services.wecom.long_connection.allowance_store import AllowanceStore
from services.wecom.long_connection.protocol import (
    ACK_SECONDS,
    BUSY,
    INVALID_MEDIA,
    NOT_SUBSCRIBED,
    SEND,
    AckMissing,
    LinkLost,
)
from services.wecom.long_connection.push_inbox import about, count_overdue
from services.wecom.long_connection.push_store import LOST_SECONDS, Push, PushState, PushStore

log = logging.getLogger(__name__)

#: Seconds between two looks at the queue; a push that this replica took is seen at once.
LOOK = 1.0
#: Chats of one bot that are sent to at once.
MOST_CHATS = 4
#: Seconds between two looks for pushes whose time is over.
OVERDUE_EVERY = 10.0
#: Seconds until a push is tried again whose upload, or whose claim, did not succeed.
AGAIN = 2.0


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
        """Start a thread for each chat that is due, as far as there is room; `chats` are those that have one."""
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
            # Nothing has left: what leaves is settled or given up in `_settle`.
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
    """A push cannot be sent; `code` says why."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


def _sent(link: Link, body: Mapping[str, Any], file: FileMessage | None, seconds: float) -> _Outcome:
    """Send a message, which shows `file` unless that is None; return what became of it within `seconds`."""
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
