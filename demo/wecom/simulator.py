"""Simulate a user and WeCom against a real callback; the demo and the tests ask their questions with it.

    with WeComUser("http://127.0.0.1:5000/wechat/callback", SimulatedBot(token, aes_key), "zhangsan") as user:
        bubble = user.says("年假怎么申请")
        answer = user.sees_finish(bubble)

Every frame is checked against WeCom's rules: it is a stream, its id stays the same, it has at most 20,480 bytes.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, Self

from config.texts import LOCALES
from demo.wecom.responses import ResponsePost, ResponseServer
from demo.wecom.wire import REPLY_TIMEOUT, Callback, CallbackFailed, RuleBroken, WeComWire

__all__ = [
    "Bubble",
    "BubbleFrame",
    "Callback",
    "CallbackFailed",
    "ResponsePost",
    "ResponseServer",
    "RuleBroken",
    "SimulatedBot",
    "WeComUser",
    "WeComWire",
]

#: WeCom's limit for the text of one frame, in bytes of UTF-8.
FRAME_BYTES = 20_480
#: The address without a `ResponseServer`: a host name that never resolves, so no answer can reach the real WeCom.
RESPONSE_URL = "https://wecom.invalid/cgi-bin/aibot/response"
#: Keys of the texts that a bubble shows before there is an answer.
PLACEHOLDERS = ("thinking", "queued")
#: The sentence that names the running step, in all languages; a title is one line of 40 characters at most.
_STEPS = [re.compile(re.escape(sentences["step"]).replace(r"\{step\}", ".{1,40}")) for sentences in LOCALES.values()]
#: Closing marks of code and thinking that a frame may end with, and that the next frame may remove again.
_CLOSED = re.compile(r"(?:\s|`|~|</think>)+\Z")


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
    #: The stream object as received, with members that have no field here (`msg_item`, `feedback`).
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

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


@dataclass(frozen=True)
class SimulatedBot:
    """The bot that a simulated user talks to, as WeCom knows it."""

    token: str
    aes_key: str = field(repr=False)
    bot_id: str = "aibDEMO"
    receive_id: str = ""


class WeComUser:
    """One user in one chat with one bot.

    Several URLs in `callback_url` are used in turn, as by a load balancer. A `chatid` makes the chat a group.
    `placeholders` are texts that a bubble may show before the answer; None stands for the product's own. `responses`
    takes the messages that come after a bubble has ended.
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
        timeout: float = REPLY_TIMEOUT,
        clock: Callable[[], float] = time.time,
    ) -> None:
        urls = [callback_url] if isinstance(callback_url, str) else callback_url
        self.wire = WeComWire(urls, bot.token, bot.aes_key, bot.receive_id, timeout=timeout, clock=clock)
        self.userid = userid
        self.chatid = chatid
        self._bot_id = bot.bot_id
        self._responses = responses
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
            frame = replace(shown, at=frame.at, ms=frame.ms, empty=True)
        if frame.stream_id != bubble.stream_id:
            raise RuleBroken("the frame carries the id of another stream")
        bubble.frames.append(frame)
        return frame

    def sees_finish(self, bubble: Bubble, timeout: float = 60.0, every: float = 1.0, replacements: int = 0) -> str:
        """Poll until the answer is finished and return it; its text may become shorter `replacements` times.

        Raises:
            TimeoutError: the answer is not finished within `timeout` seconds.
            CallbackFailed, RuleBroken: as in `polls`.
        """
        end = time.monotonic() + timeout
        while not (shown := bubble.last).finish:
            if time.monotonic() > end:
                raise TimeoutError(f"not finished within {timeout:g} s, {len(bubble.frames)} frames")
            time.sleep(every)
            shrank = self._shrank(shown, self.polls(bubble))
            bubble.shrunk += shrank
            replacements -= shrank
            if replacements < 0:
                raise RuleBroken(f"the text shrank from {shown.size} to {bubble.last.size} bytes")
        return bubble.content

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
        """Send a raw message, completed with the common fields; return the reply, None for an empty one."""
        return self.wire.post(self.seals(message))

    def seals(self, message: Mapping[str, Any]) -> Callback:
        """Return the callback that `sends` would post, for `wire.post` to send twice, late or forged."""
        chat = {"chattype": "group", "chatid": self.chatid} if self.chatid else {"chattype": "single"}
        common: dict[str, Any] = {"msgid": secrets.token_hex(16), "aibotid": self._bot_id, **chat}
        complete = {**common, "from": {"userid": self.userid}, **message}
        if complete["msgtype"] not in ("stream", "event"):
            complete.setdefault("response_url", self._response_url(complete["msgid"]))
        return self.wire.seal(complete)

    def late(self, bubble: Bubble) -> list[ResponsePost]:
        """Return the messages sent for a bubble through its `response_url`: one at most, or a rule is broken."""
        return self._responses.of(bubble.msgid) if self._responses else []

    def _response_url(self, msgid: str) -> str:
        return self._responses.url_for(msgid) if self._responses else f"{RESPONSE_URL}?response_code={msgid}"

    def _frame(self, message: Mapping[str, Any], bubble: Bubble) -> BubbleFrame:
        sent = time.monotonic()
        reply = self.sends(message)
        now = time.monotonic()
        stream = {} if reply is None else _stream(reply)
        return BubbleFrame(
            stream.get("id", ""),
            stream.get("finish", False),
            stream.get("content", ""),
            at=now - bubble.asked,
            ms=(now - sent) * 1000,
            empty=reply is None,
            raw=stream,
        )

    def _shrank(self, old: BubbleFrame, new: BubbleFrame) -> bool:
        if old.content in self._placeholders or names_step(old.content):
            return False
        return len(_CLOSED.sub("", new.content)) < len(_CLOSED.sub("", old.content))


def names_step(content: str) -> bool:
    """Return whether a bubble shows the sentence that names the running step."""
    return any(sentence.fullmatch(content) for sentence in _STEPS)


def product_placeholders() -> list[str]:
    """Return the product's placeholders in all its languages."""
    return [sentences[key] for sentences in LOCALES.values() for key in PLACEHOLDERS]


def _stream(reply: Mapping[str, Any]) -> dict[str, Any]:
    """Return the reply's stream.

    Raises:
        RuleBroken: WeCom would not show it.
    """
    stream = reply.get("stream")
    if reply.get("msgtype") != "stream" or not isinstance(stream, dict):
        raise RuleBroken("the reply is not a stream")
    if not isinstance(stream.get("id"), str) or not stream["id"]:
        raise RuleBroken("the stream has no id")
    if not isinstance(stream.get("finish"), bool) or not isinstance(stream.get("content"), str):
        raise RuleBroken("a frame needs finish and content")
    if len(stream["content"].encode()) > FRAME_BYTES:
        raise RuleBroken(f"a frame of more than {FRAME_BYTES} bytes")
    return stream
