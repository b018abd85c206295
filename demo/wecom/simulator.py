"""Simulate a user and WeCom against a real callback; the demo and the tests ask their questions with it.

    with WeComUser("http://127.0.0.1:5000/wechat/callback", SimulatedBot(token, aes_key), "zhangsan") as user:
        bubble = user.says("年假怎么申请")
        answer = user.sees_finish(bubble)

Every reply is checked against WeCom's rules (`rules.py`): a broken one raises `RuleBroken`, or is kept with the frame.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, Self

from demo.wecom.bubble import SHRUNK, Bubble, BubbleFrame, product_placeholders, shown_frame
from demo.wecom.card_clicks import Card, CardClick, Selected, click_event
from demo.wecom.media_messages import MediaMessages
from demo.wecom.media_store import MediaStore, StoreFaults
from demo.wecom.picture_rules import pictures_of
from demo.wecom.responses import ResponsePost, ResponseServer
from demo.wecom.rules import FRAME_BYTES, RuleViolation, ShownFrame, violations
from demo.wecom.wire import REPLY_TIMEOUT, Callback, CallbackFailed, Delivery, RuleBroken, WeComWire

__all__ = [
    "FRAME_BYTES",
    "Bubble",
    "BubbleFrame",
    "Callback",
    "CallbackFailed",
    "MediaStore",
    "ResponsePost",
    "ResponseServer",
    "RuleBroken",
    "RuleViolation",
    "ShownFrame",
    "SimulatedBot",
    "StoreFaults",
    "WeComUser",
    "WeComWire",
]

#: The address without a `ResponseServer`: a host name that never resolves, so no answer can reach the real WeCom.
RESPONSE_URL = "https://wecom.invalid/cgi-bin/aibot/response"


@dataclass(frozen=True)
class SimulatedBot:
    """The bot that a simulated user talks to, as WeCom knows it."""

    token: str
    aes_key: str = field(repr=False)
    bot_id: str = "aibDEMO"
    receive_id: str = ""


class WeComUser(MediaMessages):
    """One user in one chat with one bot.

    Several URLs in `callback_url` are used in turn, as by a load balancer. A `chatid` makes the chat a group.
    `placeholders` are texts that a bubble may show before the answer; None stands for the product's own. `responses`
    takes the messages that come after a bubble has ended, `store` keeps the user's files. Unless `strict`, broken rules
    are only kept in the frames.
    """

    def __init__(
        self,
        callback_url: str | Sequence[str],
        bot: SimulatedBot,
        userid: str,
        chatid: str = "",
        *,
        placeholders: Collection[str] | None = None,
        responses: ResponseServer | None = None,
        store: MediaStore | None = None,
        strict: bool = True,
        timeout: float = REPLY_TIMEOUT,
        clock: Callable[[], float] = time.time,
        proxies: bool = False,
    ) -> None:
        urls = [callback_url] if isinstance(callback_url, str) else callback_url
        keys = bot.token, bot.aes_key, bot.receive_id
        self.wire = WeComWire(urls, *keys, timeout=timeout, clock=clock, proxies=proxies)
        self.userid = userid
        self.chatid = chatid
        self._bot_id = bot.bot_id
        self._responses = responses
        self._store, self._aes_key = store, bot.aes_key
        self.strict = strict
        self._placeholders = frozenset(product_placeholders() if placeholders is None else placeholders)
        self._clock = clock

    def close(self) -> None:
        self.wire.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def says(self, text: str, msgid: str | None = None) -> Bubble:
        """Send a text and return the bubble with its first frame; a repeated `msgid` is a redelivery.

        Raises:
            CallbackFailed: the gateway did not reply.
            RuleBroken: WeCom would not show the reply, or the reply is empty.
        """
        return self.shows({"msgtype": "text", "text": {"content": text}}, msgid)

    def shows(self, message: Mapping[str, Any], msgid: str | None = None) -> Bubble:
        """Send a message of any type that must be answered by a stream."""
        bubble = Bubble(msgid or secrets.token_hex(16))
        frame = self._frame({**message, "msgid": bubble.msgid}, bubble)
        if frame.empty:
            raise RuleBroken("an empty reply to a message: no bubble appears and WeCom never polls")
        bubble.frames.append(frame)
        return bubble

    def polls(self, bubble: Bubble) -> BubbleFrame:
        """Poll the bubble once, as WeCom does about every second; an empty reply repeats the last frame.

        Raises:
            CallbackFailed: the gateway did not reply.
            RuleBroken: WeCom would not show the reply, or it belongs to another stream.
        """
        shown = bubble.last
        frame = self._frame({"msgtype": "stream", "stream": {"id": bubble.stream_id}}, bubble)
        if frame.empty:
            frame = replace(shown, at=frame.at, ms=frame.ms, empty=True, broken=frame.broken)
        bubble.frames.append(frame)
        return frame

    def sees_finish(self, bubble: Bubble, timeout: float = 60.0, every: float = 1.0, replacements: int = 0) -> str:
        """Poll until the answer is finished and return it; its text may become shorter `replacements` times.

        Raises:
            TimeoutError: the answer is not finished within `timeout` seconds.
            CallbackFailed, RuleBroken: as in `polls`.
        """
        end = time.monotonic() + timeout
        while not bubble.finish:
            if time.monotonic() > end:
                raise TimeoutError(f"not finished within {timeout:g} s, {len(bubble.frames)} frames")
            time.sleep(every)
            shrank = [each for each in self.polls(bubble).broken if each.rule == SHRUNK]
            bubble.shrunk += len(shrank)
            replacements -= len(shrank)
            if replacements < 0:
                raise RuleBroken(str(shrank[0]))
        return bubble.content

    def clicks(self, card: Card, text: str, msgid: str | None = None, *, selected: Selected | None = None) -> CardClick:
        """Click the card's button with this text; a repeated `msgid` is a replay. Return what the card becomes.

        Raises:
            CallbackFailed: the gateway did not reply.
            RuleBroken: the reply breaks a rule.
        """
        msgid = msgid or secrets.token_hex(16)
        event = {"msgid": msgid, "create_time": int(self._clock()), **click_event(card, text, selected)}
        reply, broken, _ = self.delivers(event)
        return CardClick(msgid, reply.get("template_card") if reply else None, broken)

    def enters(self) -> str:
        """Open the chat for the first time today and return the welcome text, or "" if there is none."""
        event = {"create_time": int(self._clock()), "event": {"eventtype": "enter_chat"}}
        reply = self.sends({"msgtype": "event", **event})
        if reply is None:
            return ""
        if reply.get("msgtype") != "text":
            raise RuleBroken("only a text may answer enter_chat here")
        return str(reply["text"]["content"])

    def verifies_url(self) -> str:
        """Verify the callback's URL as the console does on Save."""
        return self.wire.verify()

    def sends(self, message: Mapping[str, Any]) -> dict[str, Any] | None:
        """Send a raw message, completed with the common fields; return the reply, None for an empty one.

        Raises:
            CallbackFailed: the gateway did not reply.
            RuleBroken: the reply breaks a rule.
        """
        return self.delivers(message).reply

    def seals(self, message: Mapping[str, Any]) -> Callback:
        """Return the callback that `sends` would post, for `wire.post` to send twice, late or forged."""
        chat = {"chattype": "group", "chatid": self.chatid} if self.chatid else {"chattype": "single"}
        common: dict[str, Any] = {"msgid": secrets.token_hex(16), "aibotid": self._bot_id, **chat}
        complete = {**common, "from": {"userid": self.userid}, **message}
        if complete["msgtype"] not in ("stream", "event") or is_click(complete):
            complete.setdefault("response_url", self._response_url(complete["msgid"]))
        return self.wire.seal(complete)

    def late(self, asked: Bubble | CardClick) -> list[ResponsePost]:
        """Return the messages sent for a bubble or a click by its `response_url`: one at most, or a rule is broken."""
        return self._responses.of(asked.msgid) if self._responses else []

    def _response_url(self, msgid: str) -> str:
        if self._responses:
            return self._responses.issue(msgid, group=bool(self.chatid))
        return f"{RESPONSE_URL}?response_code={msgid}"

    def delivers(self, message: Mapping[str, Any], shown: ShownFrame | None = None) -> Delivery:
        """Send a message as `sends` does; `shown` is what its bubble shows so far."""
        reply, broken, seconds = self.wire.deliver(self.seals(message))
        broken += tuple(violations(message, reply, shown=shown, seconds=seconds))
        serious = [str(each) for each in broken if each.rule != SHRUNK]
        if serious and self.strict:
            raise RuleBroken("; ".join(serious))
        return Delivery(reply, broken, seconds)

    def _frame(self, message: Mapping[str, Any], bubble: Bubble) -> BubbleFrame:
        sent = time.monotonic()
        reply, broken, _ = self.delivers(message, shown_frame(bubble, self._placeholders))
        now = time.monotonic()
        stream = {} if reply is None else _stream(reply, broken)
        return BubbleFrame(
            stream.get("id", ""),
            stream.get("finish", False) is True,
            stream.get("content", ""),
            at=now - bubble.asked,
            ms=(now - sent) * 1000,
            empty=reply is None,
            pictures=() if broken else pictures_of(stream),
            card=(reply or {}).get("template_card"),
            raw=stream,
            broken=broken,
        )


def is_click(message: Mapping[str, Any]) -> bool:
    """Return whether a message is the event of a click on a card, which has a `response_url` as questions have."""
    event = message.get("event")
    return isinstance(event, Mapping) and event.get("eventtype") == "template_card_event"


def _stream(reply: Mapping[str, Any], broken: Sequence[RuleViolation]) -> dict[str, Any]:
    """Return the reply's stream.

    Raises:
        RuleBroken: no bubble can show it.
    """
    stream = reply.get("stream")
    if not isinstance(stream, dict):
        raise RuleBroken("the reply is not a stream")
    if not (isinstance(stream.get("id"), str) and stream["id"] and isinstance(stream.get("content", ""), str)):
        raise RuleBroken("; ".join(map(str, broken)))
    return stream
