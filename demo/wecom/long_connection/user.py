"""A person who talks to a bot of the long connection's server, alone or in a group."""

from __future__ import annotations

import base64
import secrets
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from demo.wecom.bubble import SHRUNK, Bubble, BubbleFrame
from demo.wecom.card_clicks import Card, CardClick, Selected, click_event
from demo.wecom.long_connection.commands import EVENT_SECONDS
from demo.wecom.long_connection.screen import BotChat, SentCallback, ShownMessage
from demo.wecom.media_messages import MediaMessages, text_message
from demo.wecom.media_store import MediaStore, StoreFaults
from demo.wecom.simulator import RESPONSE_URL, CallbackFailed, RuleBroken, WeComUser

if TYPE_CHECKING:
    from demo.wecom.long_connection.server import LongConnectionServer

#: Seconds for which `says` and `shows` wait for the first frame.
FIRST_FRAME = 30.0


class LongConnectionUser(MediaMessages):
    """Sends messages and events to a bot, and sees what it shows. `chatid` is a group's, "" for the single chat."""

    def __init__(
        self,
        server: LongConnectionServer,
        bot_id: str,
        userid: str,
        chatid: str = "",
        *,
        store: MediaStore | None = None,
    ) -> None:
        self.server, self.bot_id, self.userid, self.chatid = server, bot_id, userid, chatid
        #: Whether a frame that breaks a rule raises `RuleBroken`.
        self.strict = True
        self._store = store

    def close(self) -> None:
        """Do nothing: the connection is the server's."""

    @property
    def chat(self) -> BotChat:
        """What this person sees."""
        with self.server.changed:
            return self.server.bots[self.bot_id].chat(self.chatid or self.userid, group=bool(self.chatid))

    def asks(self, text: str, msgid: str = "") -> SentCallback:
        """Send a text without waiting for an answer; `dropped` of the result says whether the bot got it."""
        return self.posts(text_message(text), msgid)

    def posts(self, message: Mapping[str, Any], msgid: str = "") -> SentCallback:
        """Send a message or an event of any type; a repeated `msgid` is a redelivery."""
        body: dict[str, Any] = {
            "msgid": msgid or secrets.token_hex(16),
            "aibotid": self.bot_id,
            **({"chatid": self.chatid, "chattype": "group"} if self.chatid else {"chattype": "single"}),
            "from": {"userid": self.userid},
            **message,
        }
        if body["msgtype"] == "event":
            body.setdefault("create_time", int(time.time()))
        else:
            # WeCom sends it here too, though no long connection needs it.
            body.setdefault("response_url", f"{RESPONSE_URL}?response_code={body['msgid']}")
        chat = self.chat
        chat.written |= body["msgtype"] != "event"
        callback = SentCallback(chat, secrets.token_urlsafe(12), body, self.server.clock())
        self.server.deliver(self.bot_id, callback)
        return callback

    def says(self, text: str, msgid: str | None = None) -> Bubble:
        """Send a text and return the bubble with its first frame.

        Raises:
            CallbackFailed: nobody was subscribed, or there is no frame within `FIRST_FRAME` seconds.
            RuleBroken: the frame breaks a rule.
        """
        return self.shows(text_message(text), msgid)

    def shows(self, message: Mapping[str, Any], msgid: str | None = None) -> Bubble:
        """Send a message of any type that must be answered by a stream; raises as `says` does."""
        callback = self.posts(message, msgid or "")
        if callback.dropped:
            raise CallbackFailed("nobody is subscribed: the message was dropped")
        try:
            self.server.wait_until(lambda: bool(callback.bubbles), FIRST_FRAME)
        except TimeoutError:
            raise CallbackFailed(f"no frame within {FIRST_FRAME:g} s") from None
        self._check(callback.bubbles[0])
        return callback.bubbles[0]

    def sees_finish(self, bubble: Bubble, timeout: float = 60.0) -> str:
        """Wait for the end of an answer and return it.

        Raises:
            TimeoutError: the answer is not finished within `timeout` seconds.
            RuleBroken: a frame breaks a rule; a shorter text breaks none here.
        """
        self.server.wait_until(lambda: bubble.finish, timeout)
        self._check(bubble)
        return bubble.content

    def polls(self, bubble: Bubble) -> BubbleFrame:
        """Return what the bubble shows now; `at` is the time of the call. Frames come without being asked for."""
        with self.server.changed:
            shown = bubble.last
        self._check(bubble)
        return replace(shown, at=self.server.clock() - bubble.asked)

    def late(self, asked: Bubble | CardClick) -> list[ShownMessage]:
        """Return the further messages of the answer that the bubble began; a click's answer is a push."""
        with self.server.changed:
            callbacks = self.server.bots[self.bot_id].callbacks.values()
            return [message for each in callbacks if asked in each.bubbles for message in each.messages]

    def card_below(self, bubble: Bubble) -> Card | None:
        """Return the card of the answer that the bubble began; None for none."""
        return next((message.card for message in self.late(bubble) if message.card), None)

    def clicks(self, card: Card, text: str, msgid: str | None = None, *, selected: Selected | None = None) -> CardClick:
        """Click the card's button with this text; return what the card becomes within WeCom's five seconds.

        Raises:
            CallbackFailed: nobody was subscribed.
        """
        callback = self.posts(click_event(card, text, selected), msgid or "")
        if callback.dropped:
            raise CallbackFailed("nobody is subscribed: the click was dropped")
        with suppress(TimeoutError):
            self.server.wait_until(lambda: callback.update is not None, EVENT_SECONDS)
        return CardClick(callback.msgid, callback.update["template_card"] if callback.update else None)

    def pushes(self) -> list[ShownMessage]:
        """Return the messages of the chat that nobody asked for."""
        with self.server.changed:
            return [message for message in self.chat.messages if not message.req_id]

    def sees(self, text: str, timeout: float = 60.0) -> None:
        """Wait until a bubble or a message of the chat contains a text; raises `TimeoutError`."""
        self.server.wait_until(lambda: any(text in shown for shown in self.chat.texts), timeout)

    def sees_messages(self, count: int, timeout: float = 60.0) -> list[str]:
        """Wait until the chat has so many messages that are no bubbles, and return their texts."""
        self.server.wait_until(lambda: len(self.chat.messages) >= count, timeout)
        return [message.content for message in self.chat.messages]

    def enters(self, timeout: float = 5.0) -> str:
        """Open the chat for the first time today and return the welcome text, or "" if there is none."""
        callback = self.sends_event("enter_chat")
        try:
            self.server.wait_until(lambda: bool(callback.messages), 0 if callback.dropped else timeout)
        except TimeoutError:
            return ""
        return callback.messages[0].content

    def sends(self, message: Mapping[str, Any]) -> None:
        """Send a message or an event without waiting for what comes of it."""
        self.posts(message)

    def sends_event(self, eventtype: str, **members: Any) -> SentCallback:
        """Send an event; `members` are those of the object that is named after its type."""
        event = {"eventtype": eventtype, **({eventtype: members} if members else {})}
        return self.posts({"msgtype": "event", "event": event})

    def file_message(
        self, msgtype: str, content: bytes, *, name: str = "", faults: StoreFaults | None = None
    ) -> dict[str, Any]:
        """Put a file into the store under a key of its own; return the message that has it, or the quote of one."""
        if self._store is None:
            raise ValueError("a user without a store sends no files")
        key = base64.b64encode(secrets.token_bytes(32)).decode().rstrip("=")
        url = self._store.put(content, key, name=name, faults=faults)
        return {"msgtype": msgtype, msgtype: {"url": url, "aeskey": key}}

    def _check(self, bubble: Bubble) -> None:
        broken = [str(each) for frame in bubble.frames for each in frame.broken if each.rule != SHRUNK]
        if broken and self.strict:
            raise RuleBroken(broken[0])


#: A person of the demo, over either kind of connection.
SimulatedUser = WeComUser | LongConnectionUser
