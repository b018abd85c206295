"""The WeCom channel: parses a callback, asks or reads, and renders the stream frame. It waits only for Redis."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

from flask import Blueprint, Response, request

from channels.wecom.callbacks import about_refusal
from channels.wecom.messages import WeComMessages
from config.texts import Texts
from services import metrics
from services.answers.gateway import Gateway
from services.errors import CallbackRefused, StoreUnavailable
from services.files.answer_store import FileStore, ShownFiles
from services.metrics import event_label
from services.streams.records import Snapshot
from services.wecom.callback import WechatService
from services.wecom.frames import WeComFrames, is_over
from services.wecom.message import Message, feedback_id

log = logging.getLogger(__name__)

#: Polls of running answers that take at least this many seconds are logged at INFO.
SLOW_SECONDS = 1.0


class CallbackReply(NamedTuple):
    """The reply to a callback, with its outcome for log and metrics."""

    #: The reply before it is sealed; {} for an empty one.
    content: dict[str, Any]
    #: A stream's status, or the code of a sentence, of an event or of an error.
    outcome: str
    #: The error behind an empty reply to a refresh.
    cause: str = ""


class WeComChannel:
    """Maps the callbacks of this deployment's bots to the gateway, and streams to frames."""

    def __init__(
        self,
        *,
        gateway: Gateway,
        messages: WeComMessages,
        bots: Mapping[str, WechatService],
        texts: Texts,
        frames: WeComFrames,
        files: FileStore,
    ) -> None:
        """Take the callback service of each bot, by its name."""
        self._gateway = gateway
        self._messages = messages
        self._bots = bots
        self._texts = texts
        self._frames = frames
        self._files = files

    def verify(self, bot: str) -> Response:
        """Answer WeCom's URL verification with the decrypted echo."""
        try:
            echo = self._service(bot).verify_url(request.args)
        except CallbackRefused as error:
            error.about = about_refusal(bot, request.remote_addr or "", request.args)
            raise
        log.info("callback verified", extra={"bot": bot})
        return Response(echo, mimetype="text/plain")

    def receive(self, bot: str, args: Mapping[str, str], body: bytes) -> bytes:
        """Return the encrypted reply to one callback; b"" means an empty reply.

        Raises:
            CallbackRefused: it failed a check. A callback that is decrypted and well-formed always gets a reply.
        """
        began = time.monotonic()
        service = self._service(bot)
        message = service.open(args, body)
        reply = self._answer(bot, message)
        sealed = service.seal(reply.content, args["nonce"], pair=message.pair) if reply.content else b""
        self._note(bot, message, reply, time.monotonic() - began)
        return sealed

    def _note(self, bot: str, message: Message, reply: CallbackReply, seconds: float) -> None:
        """Count and log one callback; polls of running answers are logged at DEBUG unless they are slow."""
        metrics.count_callback(message.msgtype, reply.outcome, seconds)
        everyday = message.msgtype == "stream" and reply.outcome == "processing"
        level = logging.DEBUG if everyday and seconds < SLOW_SECONDS else logging.INFO
        if log.isEnabledFor(level):
            stream = reply.content.get("stream", {})
            stream_id = stream.get("id") or message.stream_id
            ids = {"bot": bot, "msgid": message.msgid, "msgtype": message.msgtype, "stream_id": stream_id}
            ids["person"] = self._messages.person(bot, message)
            ids |= {"event": message.event} if message.event else {}
            result = {"outcome": reply.outcome, "finish": stream.get("finish"), "ms": round(seconds * 1000, 1)}
            result |= {"cause": reply.cause} if reply.cause else {}
            log.log(level, "callback", extra={**ids, **result})

    def frame(self, bot: str, snapshot: Snapshot, chat: str = "") -> dict[str, Any]:
        """Render a snapshot as the reply for a single chat, or for the group `chat`.

        It is a pure function of the snapshot and its files, so repeated polls show the same, the card included.
        """
        try:
            shown = self._shown_files(snapshot)
        except StoreUnavailable:
            # The frame must not end without its pictures: the next poll reads them.
            growing = replace(snapshot, status="processing")
            return _stream(snapshot.stream_id, False, self._frames.content(bot, growing))
        content = self._frames.content(bot, snapshot, shown.files, single=not chat)
        reply = _stream(snapshot.stream_id, is_over(snapshot), content)
        pictures = [
            {"msgtype": "image", "image": {"base64": shown.pictures[stored.entry], "md5": stored.md5}}
            for stored in shown.files
            if stored.entry in shown.pictures
        ]
        if pictures:
            reply["stream"]["msg_item"] = pictures
        if card := self._frames.card(snapshot, single=not chat):
            return {**reply, "msgtype": "stream_with_template_card", "template_card": card}
        return reply

    def _shown_files(self, snapshot: Snapshot) -> ShownFiles:
        """Return the files of an answer that ended within its frame; all other answers cost no round trip.

        WeCom takes pictures only in a finished frame.
        """
        if not snapshot.has_files or snapshot.status == "processing" or snapshot.frame_over:
            return ShownFiles()
        return self._files.shown(snapshot.stream_id)

    def _service(self, bot: str) -> WechatService:
        service = self._bots.get(bot)
        if service is None:
            raise CallbackRefused(code="unknown_bot")
        return service

    def _answer(self, bot: str, message: Message) -> CallbackReply:
        """Return the reply. Never raises: WeCom would send the callback again."""
        try:
            return self._reply(bot, message)
        except Exception:
            log.exception("callback failed", extra={"bot": bot, "msgid": message.msgid})
        if message.msgtype in ("stream", "event"):
            return CallbackReply({}, "failed")
        return CallbackReply(_stream(secrets.token_hex(16), True, self._texts.error("answer_failed")), "failed")

    def _reply(self, bot: str, message: Message) -> CallbackReply:
        match message.msgtype:
            case "stream":
                return self._refresh(bot, message)
            case "event":
                return self._event(bot, message)
            case _:
                media = self._service(bot).media(message)
                snapshot = self._messages.ask(bot, message, media, reply=message.response_url)
        return CallbackReply(self._first_frame(bot, message, snapshot), snapshot.error_code or snapshot.status)

    def _first_frame(self, bot: str, message: Message, snapshot: Snapshot) -> dict[str, Any]:
        """Render the reply to a message, the only one in which a `feedback.id` has an effect. Only answers have one."""
        reply = self.frame(bot, snapshot, chat=message.chatid)
        if snapshot.is_answer:
            reply["stream"]["feedback"] = {"id": feedback_id(snapshot.stream_id)}
        return reply

    def _refresh(self, bot: str, message: Message) -> CallbackReply:
        try:
            snapshot = self._gateway.read(message.stream_id, bot=bot, principal=message.userid, chat=message.chatid)
        except StoreUnavailable as exc:
            return CallbackReply({}, exc.code, cause=str(exc))
        if snapshot is None:
            unknown = _stream(message.stream_id, True, self._texts.get("stream_unknown"))
            return CallbackReply(unknown, "stream_unknown")
        self._debug(snapshot)
        frame = self.frame(bot, snapshot, chat=message.chatid)
        return CallbackReply(frame, snapshot.error_code or snapshot.status)

    def _event(self, bot: str, message: Message) -> CallbackReply:
        if message.event == "feedback_event":
            return CallbackReply({}, self._messages.rate(bot, message))
        if message.event == "template_card_event":
            promised = self._gateway.can_reply_to(message.response_url)
            ask = partial(self._gateway.ask, reply=message.response_url) if promised else None
            return CallbackReply(*self._messages.click(bot, message, ask))
        if message.event != "enter_chat" or not message.userid:
            return CallbackReply({}, event_label(message.event))
        return CallbackReply({"msgtype": "text", "text": {"content": self._messages.welcome(bot)}}, "enter_chat")

    def _debug(self, snapshot: Snapshot) -> None:
        """Log the three lines that the original product documents for every poll. A poll leaves nothing unread."""
        if log.isEnabledFor(logging.DEBUG):
            log.debug("[调试] 读取未读消息 - stream_id: %s", snapshot.stream_id)
            log.debug("[调试] 消息索引: %d, 内容长度: %d", max(0, snapshot.length - 1), len(snapshot.text))
            log.debug("[调试] 剩余未读消息数: %d", 0)


def wecom_blueprint(channel: WeComChannel) -> Blueprint:
    """Return the routes of the default bot and of named ones.

    GET (URL verification) is served here. POST is served before Flask (`callbacks.py`) and registered here only so that
    the URL map is complete.
    """
    routes = Blueprint("wecom", __name__)
    # Separate endpoints: werkzeug would otherwise redirect /wechat/callback/default to the rule with that default.
    for name, rule, defaults in (("", "/wechat/callback", {"bot": "default"}), ("_bot", "/wechat/callback/<bot>", {})):
        routes.add_url_rule(rule, f"verify{name}", channel.verify, methods=["GET"], defaults=defaults)
        routes.add_url_rule(rule, f"receive{name}", _not_here, methods=["POST"], defaults=defaults)
    return routes


def _not_here(bot: str) -> Response:
    raise LookupError("a callback bypassed CallbackEndpoint")


def _stream(stream_id: str, finish: bool, content: str) -> dict[str, Any]:
    return {"msgtype": "stream", "stream": {"id": stream_id, "finish": finish, "content": content}}
