"""Answers the messages and events that long connections receive."""

from __future__ import annotations

import json
import logging
import secrets
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import Any

from channels.wecom.messages import WeComMessages
from config.texts import Texts
from services.answers.gateway import Gateway
from services.errors import CallbackRefused, StoreUnavailable
from services.models import Question
from services.streams.records import Snapshot
from services.wecom.long_connection.answers import AnswerSender
from services.wecom.long_connection.link import Link
from services.wecom.long_connection.protocol import RESPOND, RESPOND_UPDATE, RESPOND_WELCOME, AckMissing, LinkLost
from services.wecom.long_connection.view import AnswerTarget, stream_frame
from services.wecom.message import ANY_MENTION, Message, mention_of, read_message

log = logging.getLogger(__name__)


class LongConnectionInbox:
    """Maps messages and events of links to the gateway. Every method is called in a thread of its own, and may wait."""

    def __init__(
        self,
        gateway: Gateway,
        messages: WeComMessages,
        sender: AnswerSender,
        texts: Texts,
        *,
        bot_names: Mapping[str, str],
    ) -> None:
        """`bot_names` has the name by which groups mention each bot; "" if it is not known."""
        self._gateway = gateway
        self._messages = messages
        self._sender = sender
        self._texts = texts
        self._mentions = {bot: mention_of(name) if name else ANY_MENTION for bot, name in bot_names.items()}

    def on_message(self, link: Link, req_id: str, body: Mapping[str, Any]) -> None:
        """Ask a message's question, and send its answer under the message's req_id."""
        began = time.monotonic()
        message = self._read(link.bot, body)
        if message is None or message.msgtype in ("stream", "event"):
            return
        stream_id, outcome = self._ask(link, req_id, message)
        self._note(link.bot, message, outcome, began, stream_id)

    def on_event(self, link: Link, req_id: str, body: Mapping[str, Any]) -> None:
        """Welcome a person who opens the chat, take a rating, or ask the question of a click on a card."""
        began = time.monotonic()
        message = self._read(link.bot, body)
        if message is None or message.msgtype != "event":
            return
        outcome = message.event
        if message.event == "feedback_event":
            outcome = self._messages.rate(link.bot, message)
        elif message.event == "template_card_event":
            outcome = self._click(link, req_id, message)
        elif message.event == "enter_chat" and message.userid:
            welcome = {"msgtype": "text", "text": {"content": self._messages.welcome(link.bot)}}
            self._reply(link, RESPOND_WELCOME, req_id, welcome)
        self._note(link.bot, message, outcome, began)

    def _ask(self, link: Link, req_id: str, message: Message) -> tuple[str, str]:
        """Ask a question and send its answer; return its stream's id, and the outcome for the log."""
        question = self._messages.question(link.bot, message)
        target = AnswerTarget(req_id, message.userid, message.chatid)
        media = tuple(dict.fromkeys((*message.media, *message.quoted_media)))
        try:
            ask = partial(self._messages.ask, link.bot, message, media)
            snapshot = self._sender.answer(link, question, target, ask)
        except StoreUnavailable as exc:
            return self._refuse(link, req_id, exc.code)
        if snapshot is None:
            return self._refuse(link, req_id, "replica_full")
        return snapshot.stream_id, snapshot.error_code or snapshot.status

    def _refuse(self, link: Link, req_id: str, code: str) -> tuple[str, str]:
        """Answer a message whose question was not asked with an error sentence."""
        stream_id = secrets.token_hex(16)
        self._reply(link, RESPOND, req_id, stream_frame(stream_id, self._texts.error(code), finish=True))
        return stream_id, code

    def _click(self, link: Link, req_id: str, message: Message) -> str:
        """Ask the question of a click and update its card; the answer follows as a message. Return the outcome."""
        target = AnswerTarget("", message.userid, message.chatid)

        def ask(question: Question) -> Snapshot:
            try:
                snapshot = self._sender.answer(link, question, target, partial(self._gateway.ask, question))
            except StoreUnavailable as exc:
                return Snapshot("", "error", error_code=exc.code)
            return snapshot or Snapshot("", "error", error_code="replica_full")

        update, outcome = self._messages.click(link.bot, message, ask)
        if update:
            self._reply(link, RESPOND_UPDATE, req_id, update)
        return outcome

    def _reply(self, link: Link, cmd: str, req_id: str, body: Mapping[str, Any]) -> None:
        """Send a reply once: WeCom accepts it only for some seconds."""
        with suppress(LinkLost, AckMissing):
            link.request(cmd, body, req_id=req_id)

    def _read(self, bot: str, body: Mapping[str, Any]) -> Message | None:
        """Return the message; log a malformed body, and return None."""
        try:
            return read_message(json.dumps(body), mention=self._mentions[bot], pair=0)
        except CallbackRefused:
            log.warning("message not understood", extra={"bot": bot})
            return None

    def _note(self, bot: str, message: Message, outcome: str, began: float, stream_id: str = "") -> None:
        ids = {"bot": bot, "msgid": message.msgid, "msgtype": message.msgtype, "stream_id": stream_id}
        result = {"outcome": outcome, "ms": round((time.monotonic() - began) * 1000, 1)}
        log.info("message", extra={**ids, "person": self._messages.person(bot, message), **result})
