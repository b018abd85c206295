"""What people see: the bubbles, messages and files of each chat, in the order in which they appeared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from demo.wecom.bubble import Bubble


@dataclass(frozen=True)
class UploadedFile:
    """An uploaded file."""

    kind: str
    name: str
    content: bytes = field(repr=False)


@dataclass(frozen=True)
class ShownMessage:
    """A message of the bot that is no bubble."""

    #: `markdown`, `text` (a welcome), `template_card`, `image`, `file`, `voice` or `video`.
    msgtype: str
    #: The req_id of the message or event that it answers; "" for one that nobody asked for.
    req_id: str
    #: Of Markdown and of a welcome.
    content: str = ""
    file: UploadedFile | None = None
    card: Mapping[str, Any] | None = None
    #: Seconds from the message or event that it answers; 0 for one that nobody asked for.
    at: float = 0.0


@dataclass
class BotChat:
    """The chat of one person, or of a group, with a bot."""

    bot_id: str
    #: A person's userid, or a group's chatid.
    chatid: str
    group: bool
    #: What the bot shows.
    shown: list[Bubble | ShownMessage] = field(default_factory=list)
    #: Whether somebody has written to the bot here, without which it cannot send.
    written: bool = False

    @property
    def bubbles(self) -> list[Bubble]:
        return [each for each in self.shown if isinstance(each, Bubble)]

    @property
    def messages(self) -> list[ShownMessage]:
        return [each for each in self.shown if isinstance(each, ShownMessage)]

    @property
    def texts(self) -> list[str]:
        """The text of each bubble and message."""
        return [each.content for each in self.shown]


@dataclass
class SentCallback:
    """A message or an event that the server sent to a bot, and what came under its req_id."""

    chat: BotChat
    req_id: str
    body: Mapping[str, Any] = field(repr=False)
    #: Time of the server's clock.
    sent: float
    #: The number of the connection that it was sent to; 0 if nobody was subscribed, so that it was dropped.
    connection: int = 0
    bubbles: list[Bubble] = field(default_factory=list)
    #: Further messages, and a welcome.
    messages: list[ShownMessage] = field(default_factory=list)
    #: The body of the frame that updated the card of this event.
    update: Mapping[str, Any] | None = None

    @property
    def dropped(self) -> bool:
        return not self.connection

    @property
    def event(self) -> str:
        """The event's type; "" for a message."""
        return str(self.body["event"]["eventtype"]) if self.body["msgtype"] == "event" else ""

    @property
    def msgid(self) -> str:
        return str(self.body["msgid"])

    @property
    def finish(self) -> bool:
        """Whether a bubble has its end."""
        return any(bubble.finish for bubble in self.bubbles)

    @property
    def content(self) -> str:
        """The text of the latest bubble, "" without one."""
        return self.bubbles[-1].content if self.bubbles else ""
