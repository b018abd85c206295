"""What the server does with a bot's frame: it checks the rules, shows the content, and says what the ack is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from demo.wecom.bubble import Bubble, BubbleFrame, product_placeholders, shown_frame
from demo.wecom.card_rules import card_violations
from demo.wecom.long_connection import commands
from demo.wecom.long_connection.account import BotAccount, ReceivedFrame
from demo.wecom.long_connection.commands import ErrorCode
from demo.wecom.long_connection.frame_outcome import FrameOutcome, RejectedFrame, breaks
from demo.wecom.long_connection.screen import BotChat, SentCallback, ShownMessage
from demo.wecom.long_connection.uploads import LARGEST
from demo.wecom.rules import markdown_violations, stream_violations
from demo.wecom.violation import RuleViolation


class FrameHandler:
    """Applies the frames of a subscribed bot; the server holds its lock meanwhile."""

    def __init__(self, clock: Callable[[], float], stream_seconds: float) -> None:
        self._clock = clock
        self._stream_seconds = stream_seconds
        self._placeholders = frozenset(product_placeholders())

    def apply(self, bot: BotAccount, frame: ReceivedFrame) -> FrameOutcome:
        """Apply a frame and return its outcome."""
        handlers = {
            commands.RESPOND: self._respond,
            commands.SEND: self._send,
            commands.WELCOME: self._welcome,
            commands.UPDATE: self._update,
            commands.UPLOAD_INIT: self._upload,
            commands.UPLOAD_CHUNK: self._chunk,
            commands.UPLOAD_FINISH: self._finish_upload,
        }
        handler = handlers.get(frame.cmd)
        try:
            if handler is None:
                raise breaks("command", f"{frame.cmd} is no command", ErrorCode.INVALID_MESSAGE_TYPE)
            return handler(bot, frame)
        except RejectedFrame as refused:
            return refused.outcome

    def _respond(self, bot: BotAccount, frame: ReceivedFrame) -> FrameOutcome:
        callback = self._answered(bot, frame, commands.REPLY_SECONDS, "")
        if frame.body.get("msgtype") == "stream":
            return self._stream(callback, frame)
        self._message(bot, callback.chat, frame, callback)
        return FrameOutcome()

    def _answered(self, bot: BotAccount, frame: ReceivedFrame, seconds: float, event: str) -> SentCallback:
        """Return the message (`event` is "") or the event that a frame answers."""
        callback = bot.callbacks.get(frame.req_id)
        if callback is None or callback.dropped:
            raise breaks("req_id", f"{frame.cmd} with an unknown req_id", ErrorCode.INVALID_REQ_ID)
        if callback.event != event:
            text = f"{frame.cmd} cannot answer {callback.event or 'a message'}"
            raise breaks("req_id", text, ErrorCode.INVALID_REQ_ID)
        if self._clock() - callback.sent > seconds:
            raise RejectedFrame(ErrorCode.INVALID_REQ_ID)
        return callback

    def _stream(self, callback: SentCallback, frame: ReceivedFrame) -> FrameOutcome:
        stream = frame.body.get("stream")
        known = stream.get("id") if isinstance(stream, Mapping) else None
        bubble = next((each for each in callback.bubbles if each.stream_id == known), None)
        bubble = bubble or Bubble(callback.msgid, asked=callback.sent)
        broken = list(stream_violations(stream, shown_frame(bubble, self._placeholders)))
        if not isinstance(stream, Mapping) or "msg_item" in stream:
            broken.append(RuleViolation("msg_item", "a stream of the long connection has no msg_item"))
        if any(each.documented and each.rule != "after finish" for each in broken):
            raise RejectedFrame(ErrorCode.INVALID_PARAMETER, broken)
        self._check_time(bubble, broken)
        if callback.bubbles and not bubble.frames:
            broken.append(RuleViolation("stream id", "a second stream for one req_id", documented=False))
        self._show(callback, bubble, dict(stream or {}), tuple(broken))
        return FrameOutcome(broken=tuple(broken))

    def _check_time(self, bubble: Bubble, broken: list[RuleViolation]) -> None:
        """Refuse a frame that changes a finished bubble, or that comes too late."""
        if any(each.rule == "after finish" for each in broken):
            raise RejectedFrame(ErrorCode.STREAM_EXPIRED, broken)
        if bubble.frames and self._clock() - bubble.asked - bubble.frames[0].at > self._stream_seconds:
            raise RejectedFrame(ErrorCode.STREAM_EXPIRED)

    def _show(
        self, callback: SentCallback, bubble: Bubble, stream: dict[str, Any], broken: tuple[RuleViolation, ...]
    ) -> None:
        if not bubble.frames:
            callback.bubbles.append(bubble)
            callback.chat.shown.append(bubble)
        content, finish = stream.get("content", ""), stream.get("finish") is True
        at = self._clock() - bubble.asked
        bubble.frames.append(BubbleFrame(stream["id"], finish, content, at, raw=stream, broken=broken))

    def _send(self, bot: BotAccount, frame: ReceivedFrame) -> FrameOutcome:
        chat_type, chatid = frame.body.get("chat_type", 0), frame.body.get("chatid")
        if chat_type not in (0, 1, 2) or not isinstance(chatid, str) or not chatid:
            raise breaks("chatid", "aibot_send_msg needs a chatid, and a chat_type of 0, 1 or 2")
        chat = bot.find_chat(chatid, chat_type)
        if chat is None:
            raise breaks("chatid", "nobody has written to the bot in this chat", ErrorCode.INVALID_CHATID)
        self._message(bot, chat, frame)
        return FrameOutcome()

    def _message(
        self, bot: BotAccount, chat: BotChat, frame: ReceivedFrame, callback: SentCallback | None = None
    ) -> ShownMessage:
        """Show a message that is no stream."""
        message = self._checked(bot, chat, frame, callback)
        if not bot.allowance(chat).take(self._clock()):
            raise breaks("rate", "more than 30 messages a minute or 1,000 an hour in a chat", ErrorCode.TOO_OFTEN)
        chat.shown.append(message)
        if callback:
            callback.messages.append(message)
        return message

    def _checked(
        self, bot: BotAccount, chat: BotChat, frame: ReceivedFrame, callback: SentCallback | None
    ) -> ShownMessage:
        kind, req_id = frame.body.get("msgtype"), callback.req_id if callback else ""
        at = self._clock() - callback.sent if callback else 0.0
        if kind == "markdown":
            if broken := list(markdown_violations(frame.body, "markdown")):
                raise RejectedFrame(ErrorCode.INVALID_PARAMETER, broken)
            return ShownMessage(kind, req_id, frame.body["markdown"]["content"], at=at)
        if kind == "template_card":
            if chat.group:
                raise breaks("card", "a template_card is allowed in a single chat only")
            return ShownMessage(kind, req_id, card=_card(frame.body), at=at)
        if kind in LARGEST:
            return ShownMessage(kind, req_id, file=bot.uploads.find(frame.body, self._clock()), at=at)
        raise breaks("msgtype", f"{frame.cmd} takes no {kind}", ErrorCode.INVALID_MESSAGE_TYPE)

    def _welcome(self, bot: BotAccount, frame: ReceivedFrame) -> FrameOutcome:
        callback = self._answered(bot, frame, commands.EVENT_SECONDS, "enter_chat")
        if callback.messages:
            raise breaks("welcome", "an enter_chat gets one welcome", ErrorCode.INVALID_REQ_ID)
        kind, at = frame.body.get("msgtype"), self._clock() - callback.sent
        if kind == "template_card":
            message = ShownMessage(kind, callback.req_id, card=_card(frame.body), at=at)
        elif kind == "text" and (content := _content(frame.body.get("text"))):
            message = ShownMessage(kind, callback.req_id, content, at=at)
        else:
            raise breaks("welcome", "a welcome is a text or a template_card", ErrorCode.INVALID_MESSAGE_TYPE)
        callback.messages.append(message)
        callback.chat.shown.append(message)
        return FrameOutcome()

    def _update(self, bot: BotAccount, frame: ReceivedFrame) -> FrameOutcome:
        callback = self._answered(bot, frame, commands.EVENT_SECONDS, "template_card_event")
        if frame.body.get("response_type") != "update_template_card":
            raise breaks("card update", "response_type is not update_template_card")
        card, event = _card(frame.body), callback.body["event"]["template_card_event"]
        if card.get("task_id") != event.get("task_id"):
            raise breaks("card update", "task_id is not that of the event")
        callback.update = frame.body
        return FrameOutcome()

    def _upload(self, bot: BotAccount, frame: ReceivedFrame) -> FrameOutcome:
        return FrameOutcome(body=bot.uploads.begin(frame.body, self._clock()))

    def _chunk(self, bot: BotAccount, frame: ReceivedFrame) -> FrameOutcome:
        bot.uploads.add(frame.body, self._clock(), frame.connection.unacked(commands.UPLOAD_CHUNK))
        return FrameOutcome()

    def _finish_upload(self, bot: BotAccount, frame: ReceivedFrame) -> FrameOutcome:
        return FrameOutcome(body=bot.uploads.finish(frame.body, self._clock()))


def _card(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the card of a frame.

    Raises:
        RejectedFrame: it breaks a rule.
    """
    card = body.get("template_card")
    if broken := list(card_violations(card)):
        untitled = isinstance(card, Mapping) and not card.get("main_title")
        raise RejectedFrame(ErrorCode.MISSING_TITLE if untitled else ErrorCode.INVALID_PARAMETER, broken)
    return dict(card or {})


def _content(text: Any) -> str:
    content = text.get("content") if isinstance(text, Mapping) else None
    return content if isinstance(content, str) else ""
