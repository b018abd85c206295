"""Plays the person and WeCom in front of a real callback: the demo and every test ask their questions through it.

    with WeComUser("http://127.0.0.1:5000/wechat/callback", token, aes_key, "zhangsan") as user:
        bubble = user.says("年假怎么申请")
        answer = user.sees_finish(bubble)

Every frame is held to WeCom's rules: a stream, of the same id throughout, of at most 20,480 bytes.
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
from demo.wecom.wire import REPLY_TIMEOUT, Callback, CallbackFailed, RuleBroken, WeComWire

__all__ = ["Bubble", "Callback", "CallbackFailed", "Frame", "RuleBroken", "WeComUser", "WeComWire"]

#: WeCom's limit for the text of one frame, in bytes of UTF-8.
FRAME_BYTES = 20_480
#: This host never resolves, so no answer sent to it can reach the real WeCom.
RESPONSE_URL = "https://wecom.invalid/cgi-bin/aibot/response"
#: Texts a bubble shows only while there is no answer yet.
PLACEHOLDERS = ("thinking", "queued")
#: What a snapshot may close for the time being, and open again when the text goes on: code and thinking.
_CLOSED = re.compile(r"(?:\s|`|~|</think>)+\Z")


@dataclass(frozen=True)
class Frame:
    """What one reply makes the bubble show."""

    stream_id: str
    finish: bool
    content: str
    #: Seconds from the question to this frame.
    at: float = 0.0
    #: How long the gateway took.
    ms: float = 0.0
    #: An empty reply: nothing new, the bubble goes on showing what it showed.
    empty: bool = False
    #: The stream as it came, with the members that have no name here (`msg_item`, `feedback`).
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def size(self) -> int:
        """Return the bytes that count against `FRAME_BYTES`."""
        return len(self.content.encode())


@dataclass
class Bubble:
    """The bot's answer on the person's screen, with the frames that made it."""

    msgid: str
    frames: list[Frame] = field(default_factory=list)
    asked: float = field(default_factory=time.monotonic)
    #: How often its text became shorter while its person watched.
    shrunk: int = 0

    @property
    def stream_id(self) -> str:
        return self.frames[0].stream_id

    @property
    def last(self) -> Frame:
        return self.frames[-1]

    @property
    def content(self) -> str:
        return self.last.content

    @property
    def finish(self) -> bool:
        return self.last.finish


class WeComUser:
    """One person in one chat with one bot.

    Several addresses in `callback_url` are used in turn, as a load balancer would. `chatid` makes the chat a group.
    `placeholders` are the texts that may stand in a bubble before the answer; None means the product's own.
    """

    def __init__(
        self,
        callback_url: str | Sequence[str],
        token: str,
        aes_key: str,
        userid: str,
        chatid: str = "",
        *,
        bot_id: str = "aibDEMO",
        receive_id: str = "",
        placeholders: Collection[str] | None = None,
        timeout: float = REPLY_TIMEOUT,
        clock: Callable[[], float] = time.time,
    ) -> None:
        urls = [callback_url] if isinstance(callback_url, str) else callback_url
        self.wire = WeComWire(urls, token, aes_key, receive_id, timeout=timeout, clock=clock)
        self.userid = userid
        self.chatid = chatid
        self._bot_id = bot_id
        self._placeholders = frozenset(product_placeholders() if placeholders is None else placeholders)
        self._clock = clock

    def close(self) -> None:
        self.wire.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def says(self, text: str, msgid: str | None = None) -> Bubble:
        """Send a text and return the bubble with its first frame; the same `msgid` again is a redelivery.

        Raises: CallbackFailed; RuleBroken, also when the reply shows no bubble.
        """
        return self.shows({"msgtype": "text", "text": {"content": text}}, msgid)

    def shows(self, message: Mapping[str, Any], msgid: str | None = None) -> Bubble:
        """Send a message of any type that a stream must answer."""
        bubble = Bubble(msgid or secrets.token_hex(16))
        frame = self._frame({**message, "msgid": bubble.msgid}, bubble)
        if frame.empty:
            raise RuleBroken("an empty reply to a message: no bubble appears and WeCom never polls")
        bubble.frames.append(frame)
        return bubble

    def polls(self, bubble: Bubble) -> Frame:
        """Ask once for the bubble's news, as WeCom does about every second; an empty reply repeats the last frame.

        Raises: CallbackFailed, RuleBroken.
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

        Raises: TimeoutError when it is not finished within `timeout` seconds; RuleBroken; CallbackFailed.
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
        """Open the chat for the first time today and return the welcome text, "" where there is none."""
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
        """Send a raw message, completed with what every callback has; return the reply, None for an empty one."""
        return self.wire.post(self.seals(message))

    def seals(self, message: Mapping[str, Any]) -> Callback:
        """Return the callback that `sends` would post, for `wire.post` to send twice, late or forged."""
        chat = {"chattype": "group", "chatid": self.chatid} if self.chatid else {"chattype": "single"}
        common: dict[str, Any] = {"msgid": secrets.token_hex(16), "aibotid": self._bot_id, **chat}
        complete = {**common, "from": {"userid": self.userid}, **message}
        if complete["msgtype"] not in ("stream", "event"):
            complete.setdefault("response_url", f"{RESPONSE_URL}?response_code={complete['msgid']}")
        return self.wire.seal(complete)

    def _frame(self, message: Mapping[str, Any], bubble: Bubble) -> Frame:
        sent = time.monotonic()
        reply = self.sends(message)
        now = time.monotonic()
        stream = {} if reply is None else _stream(reply)
        return Frame(
            stream.get("id", ""),
            stream.get("finish", False),
            stream.get("content", ""),
            at=now - bubble.asked,
            ms=(now - sent) * 1000,
            empty=reply is None,
            raw=stream,
        )

    def _shrank(self, old: Frame, new: Frame) -> bool:
        if old.content in self._placeholders:
            return False
        return len(_CLOSED.sub("", new.content)) < len(_CLOSED.sub("", old.content))


def product_placeholders() -> list[str]:
    """Return the placeholders in every language the product speaks."""
    return [sentences[key] for sentences in LOCALES.values() for key in PLACEHOLDERS]


def _stream(reply: Mapping[str, Any]) -> dict[str, Any]:
    """Return the reply's stream once it is one that WeCom would show."""
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
