"""The WeCom channel: parses a callback, asks or reads, and renders the stream frame. It waits only for Redis."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from flask import Blueprint, Response, request

from channels.wecom.callbacks import about_refusal
from channels.wecom.commands import BotCommands
from channels.wecom.contents import MOST_FILES, is_readable, question_text
from channels.wecom.feedback import feedback_id, read_feedback
from channels.wecom.rules import WECOM
from config.texts import Texts
from services import metrics
from services.answers.gateway import Gateway
from services.errors import CallbackRefused, StoreUnavailable
from services.feedback.inbox import FeedbackInbox
from services.models import Question
from services.streams.records import Snapshot
from services.wecom.callback import WechatService
from services.wecom.frames import WeComFrames, is_over
from services.wecom.message import Message

log = logging.getLogger(__name__)

#: Polls of running answers that take at least this many seconds are logged at INFO.
SLOW_SECONDS = 1.0


class WeComChannel:
    """Maps the callbacks of this deployment's bots to the gateway, and streams to frames."""

    def __init__(
        self,
        *,
        gateway: Gateway,
        bots: Mapping[str, WechatService],
        texts: Texts,
        welcomes: Mapping[str, str],
        frames: WeComFrames,
        commands: Mapping[str, BotCommands] = MappingProxyType({}),
        person: Callable[[Question], str] = lambda question: "",
        feedback: FeedbackInbox | None = None,
    ) -> None:
        """The mappings have one entry per bot, by its name; `commands` only for bots that have any.

        `person` returns a user's pseudonym for the log; `feedback` takes ratings of answers, None ignores them.
        """
        self._gateway = gateway
        self._bots = bots
        self._texts = texts
        self._welcomes = welcomes
        self._commands = commands
        self._frames = frames
        self._person = person
        self._feedback = feedback

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
        reply, outcome = self._answer(bot, message)
        sealed = service.seal(reply, args["nonce"], pair=message.pair) if reply else b""
        self._note(bot, message, reply.get("stream", {}), outcome, time.monotonic() - began)
        return sealed

    def _note(self, bot: str, message: Message, stream: Mapping[str, Any], outcome: str, seconds: float) -> None:
        """Count and log one callback; polls of running answers are logged at DEBUG unless they are slow."""
        metrics.callback_seconds(message.msgtype).observe(seconds)
        everyday = message.msgtype == "stream" and outcome == "processing"
        level = logging.DEBUG if everyday and seconds < SLOW_SECONDS else logging.INFO
        if log.isEnabledFor(level):
            stream_id = stream.get("id") or message.stream_id
            ids = {"bot": bot, "msgid": message.msgid, "msgtype": message.msgtype, "stream_id": stream_id}
            ids["person"] = self._person(self._question(bot, message))
            told = {"outcome": outcome, "finish": stream.get("finish"), "ms": round(seconds * 1000, 1)}
            log.log(level, "callback", extra={**ids, **told})

    def frame(self, bot: str, snapshot: Snapshot) -> dict[str, Any]:
        """Render a snapshot as a stream reply; a pure function of it, so that repeated polls show the same."""
        return _stream(snapshot.stream_id, is_over(snapshot), self._frames.content(bot, snapshot))

    def _service(self, bot: str) -> WechatService:
        service = self._bots.get(bot)
        if service is None:
            raise CallbackRefused(code="unknown_bot")
        return service

    def _answer(self, bot: str, message: Message) -> tuple[dict[str, Any], str]:
        """Return the reply (empty for none) and its outcome for the log.

        Never raises: WeCom would send the callback again.
        """
        try:
            return self._reply(bot, message)
        except Exception:
            log.exception("callback failed", extra={"bot": bot, "msgid": message.msgid})
        if message.msgtype in ("stream", "event"):
            return {}, "failed"
        return _stream(secrets.token_hex(16), True, self._texts.error("answer_failed")), "failed"

    def _reply(self, bot: str, message: Message) -> tuple[dict[str, Any], str]:
        match message.msgtype:
            case "stream":
                return self._refresh(bot, message)
            case "event":
                return self._event(bot, message)
            case _:
                snapshot = self._asked(bot, message)
        return self._first_frame(bot, snapshot), snapshot.error_code or snapshot.status

    def _first_frame(self, bot: str, snapshot: Snapshot) -> dict[str, Any]:
        """Render the reply to a message: only there a `feedback.id` has an effect. Sentences of ours have none."""
        reply = self.frame(bot, snapshot)
        if snapshot.is_answer:
            reply["stream"]["feedback"] = {"id": feedback_id(snapshot.stream_id)}
        return reply

    def _asked(self, bot: str, message: Message) -> Snapshot:
        """Ask a message's question, or carry out a command, which may come with a quote but has no files."""
        question, media = self._question(bot, message), self._service(bot).media(message)
        if not is_readable(message):
            return self._gateway.say(question, "unsupported_message")
        if len(media) > MOST_FILES:
            return self._gateway.say(question, "media_too_many")
        commands = None if message.media else self._commands.get(bot)
        if commands and (shown := commands.carry_out(question, reply=message.response_url)):
            return shown
        text = question_text(message, self._texts.get("media_question"))
        return self._gateway.ask(replace(question, text=text), reply=message.response_url, media=media)

    def _question(self, bot: str, message: Message) -> Question:
        return Question(message.text, WECOM.name, bot, message.userid, message.chatid, message.msgid)

    def _refresh(self, bot: str, message: Message) -> tuple[dict[str, Any], str]:
        try:
            snapshot = self._gateway.read(message.stream_id, bot=bot, principal=message.userid, chat=message.chatid)
        except StoreUnavailable as exc:
            return {}, exc.code
        if snapshot is None:
            return _stream(message.stream_id, True, self._texts.get("stream_unknown")), "stream_unknown"
        self._debug(snapshot)
        return self.frame(bot, snapshot), snapshot.error_code or snapshot.status

    def _event(self, bot: str, message: Message) -> tuple[dict[str, Any], str]:
        if message.event == "feedback_event":
            return {}, self._rate(bot, message)
        if message.event != "enter_chat" or not message.userid:
            return {}, message.event
        welcome = self._welcomes.get(bot) or self._texts.get("welcome")
        return {"msgtype": "text", "text": {"content": welcome}}, "enter_chat"

    def _rate(self, bot: str, message: Message) -> str:
        """Take a person's rating; return its outcome. Only an empty reply may answer it."""
        if self._feedback is None:
            return "unknown"
        try:
            stream_id, rating = read_feedback(message)
        except ValueError:
            metrics.FEEDBACK_REFUSED.labels("malformed").inc()
            return "malformed"
        try:
            return self._feedback.rate(stream_id, rating, bot=bot, principal=message.userid, chat=message.chatid)
        except StoreUnavailable as exc:
            return exc.code

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
