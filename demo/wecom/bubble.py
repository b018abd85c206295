"""The bot's answer as a person sees it: its frames, and the sentences that it shows while there is no text."""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from config.texts import LOCALES
from demo.wecom.card_clicks import Card
from demo.wecom.rules import ShownFrame
from demo.wecom.violation import RuleViolation

#: The rule that `sees_finish` counts: an answer may be replaced by a shorter one.
SHRUNK = "shrinking text"
#: Keys of the sentences without a part that varies.
PLACEHOLDERS = ("thinking", "queued")
#: The sentence that names the running step, in all languages; a title is one line of 40 characters at most.
_STEPS = [re.compile(re.escape(sentences["step"]).replace(r"\{step\}", ".{1,40}")) for sentences in LOCALES.values()]


@dataclass(frozen=True)
class BubbleFrame:
    """The content of a bubble after one reply."""

    stream_id: str
    finish: bool
    content: str
    #: Seconds from the question to this frame.
    at: float = 0.0
    #: Response time of the gateway in milliseconds.
    ms: float = 0.0
    #: Whether the reply was empty, so that the bubble is unchanged.
    empty: bool = False
    #: The pictures below the text.
    pictures: tuple[bytes, ...] = field(default=(), repr=False)
    #: The template card below the bubble.
    card: Card | None = field(default=None, repr=False)
    #: The stream object as received, with members that have no field here (`feedback`).
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)
    #: The rules of WeCom that the reply breaks.
    broken: tuple[RuleViolation, ...] = ()

    @property
    def size(self) -> int:
        """Return the bytes that count against `FRAME_BYTES`."""
        return len(self.content.encode())


@dataclass
class Bubble:
    """The bot's answer on the user's screen, with the frames received for it."""

    msgid: str
    frames: list[BubbleFrame] = field(default_factory=list)
    asked: float = field(default_factory=time.monotonic)
    #: How often a poll made its text shorter.
    shrunk: int = 0

    @property
    def stream_id(self) -> str:
        return self.frames[0].stream_id

    @property
    def last(self) -> BubbleFrame:
        return self.frames[-1]

    @property
    def content(self) -> str:
        return self.last.content

    @property
    def finish(self) -> bool:
        return self.last.finish

    @property
    def card(self) -> Card | None:
        """The template card below the bubble; None for none."""
        return next((frame.card for frame in reversed(self.frames) if frame.card), None)


def shown_frame(bubble: Bubble, placeholders: Collection[str]) -> ShownFrame:
    """Return what a bubble shows, as the rules compare it with the next frame."""
    if not bubble.frames:
        return ShownFrame()
    waits = bubble.content in placeholders or names_step(bubble.content)
    content = "" if waits and not bubble.finish else bubble.content
    feedback = bubble.frames[0].raw.get("feedback")
    feedback_id = str(feedback.get("id", "")) if isinstance(feedback, dict) else ""
    return ShownFrame(bubble.stream_id, content, bubble.finish, feedback_id, bubble.card)


def product_placeholders() -> list[str]:
    """Return the product's placeholders in all its languages, without the one that names a step."""
    return [sentences[key] for sentences in LOCALES.values() for key in PLACEHOLDERS]


def names_step(content: str) -> bool:
    """Return whether a bubble shows the sentence that names the running step."""
    return any(sentence.fullmatch(content) for sentence in _STEPS)
