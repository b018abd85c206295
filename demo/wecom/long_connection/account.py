"""A bot as WeCom knows it: who is subscribed, its chats, and what was sent to it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from demo.wecom.long_connection.commands import EVENT, MESSAGE, SUBSCRIBES_PER_HOUR, SUBSCRIBES_PER_MINUTE
from demo.wecom.long_connection.connection import BotConnection
from demo.wecom.long_connection.screen import BotChat, SentCallback
from demo.wecom.long_connection.sliding_limit import SlidingLimit
from demo.wecom.long_connection.uploads import BotUploads

#: Messages and events that a server remembers; a frame with the req_id of an older one is refused.
MOST_CALLBACKS = 20_000


@dataclass(frozen=True)
class ReceivedFrame:
    """A frame of a bot's connection."""

    connection: BotConnection
    cmd: str
    req_id: str
    body: Mapping[str, Any] = field(repr=False)


class BotAccount:
    """The state of one bot. The server's lock guards it."""

    def __init__(self, bot_id: str, secret: str) -> None:
        self.bot_id, self.secret = bot_id, secret
        #: The connection that gets messages; None while nobody is subscribed.
        self.subscriber: BotConnection | None = None
        #: The numbers of the connections that subscribed, in this order.
        self.subscriptions: list[int] = []
        self.subscribe_limit = SlidingLimit(SUBSCRIBES_PER_MINUTE, SUBSCRIBES_PER_HOUR)
        #: Connections that lost the bot to a newer one, or to `LongConnectionServer.evict`.
        self.evictions = 0
        #: Messages and events that nobody was subscribed for.
        self.dropped: list[SentCallback] = []
        self.callbacks: OrderedDict[str, SentCallback] = OrderedDict()
        self.chats: dict[tuple[str, bool], BotChat] = {}
        self.uploads = BotUploads()
        self._allowances: dict[tuple[str, bool], SlidingLimit] = {}

    def chat(self, chatid: str, *, group: bool) -> BotChat:
        """Return a chat, which may be a new one."""
        return self.chats.setdefault((chatid, group), BotChat(self.bot_id, chatid, group))

    def find_chat(self, chatid: str, chat_type: int) -> BotChat | None:
        """Return the chat that `aibot_send_msg` names: 1 single, 2 group, 0 either, the group first."""
        kinds = {1: (False,), 2: (True,)}.get(chat_type, (True, False))
        found = (self.chats.get((chatid, group)) for group in kinds)
        return next((chat for chat in found if chat and chat.written), None)

    def allowance(self, chat: BotChat) -> SlidingLimit:
        """Return the limit of a chat's messages."""
        return self._allowances.setdefault((chat.chatid, chat.group), SlidingLimit())

    def deliver(self, callback: SentCallback) -> None:
        """Send a message or an event to the subscriber, or drop it."""
        self.callbacks[callback.req_id] = callback
        while len(self.callbacks) > MOST_CALLBACKS:
            self.callbacks.popitem(last=False)
        if self.subscriber is None:
            self.dropped.append(callback)
            return
        callback.connection = self.subscriber.number
        cmd = EVENT if callback.event else MESSAGE
        self.subscriber.put({"cmd": cmd, "headers": {"req_id": callback.req_id}, "body": callback.body})
