"""A small bot that does all that WeCom documents, and one thing wrong if a test says so."""

from __future__ import annotations

import json
import threading
import time
from typing import Any

from flask import Response, request

from tests.support.wecom_stub import Reply, StubCallback, frame

WINDOW = 600
ANSWER = "十天。"
#: Seconds of a slow echo.
SLOW = 0.1


class ModelBot(StubCallback):
    """A callback whose answers are finished at the second poll. `fault` names what it does wrong; "" is nothing."""

    def __init__(self, fault: str = "") -> None:
        super().__init__()
        self.fault = fault
        self.asked: list[str] = []
        self._polls: dict[str, int] = {}
        self._asking = threading.Lock()
        self.reply = self._reply

    def answer(self) -> Response:
        signed = request.args["msg_signature"], request.args["timestamp"], request.args["nonce"]
        if self.fault != "accepts stale timestamps" and abs(time.time() - int(signed[1])) > WINDOW:
            return Response("no", status=403)
        if request.method == "GET":
            return self._echo(signed)
        code, plain = self.crypt.DecryptMsg(request.get_data(), *signed)
        if code:
            return self._refused(code)
        message = json.loads(str(plain))
        reply = self.reply(message)
        self.messages.append(message)
        return Response() if reply is None else self.sealed(reply)

    def _echo(self, signed: tuple[str, str, str]) -> Response:
        if self.fault == "echoes slowly":
            time.sleep(SLOW)
        plain = str(self.crypt.VerifyURL(*signed, request.args["echostr"])[1])
        return Response(f'"{plain}"' if self.fault == "quotes the echo" else plain)

    def _refused(self, code: int) -> Response:
        if self.fault == "accepts forgeries":
            return Response()
        return Response(f"code {code}" if self.fault == "tells forgeries apart" else "no", status=403)

    def _reply(self, message: dict[str, Any]) -> Reply:
        if message["msgtype"] == "event":
            return self._event(message["event"]["eventtype"])
        if message["msgtype"] == "stream":
            return self._poll(message["stream"]["id"])
        if message["msgtype"] == "text":
            return self._text(message)
        return None if self.fault == "is silent on unknown types" else frame("这种消息我还不会。", stream_id="unknown")

    def _event(self, eventtype: str) -> Reply:
        if eventtype == "enter_chat":
            return None if self.fault == "has no welcome" else {"msgtype": "text", "text": {"content": "您好"}}
        answers = {
            "feedback_event": "thanks for feedback",
            "template_card_event": "answers cards with text",
        }
        return frame("thanks") if self.fault == answers.get(eventtype, "answers unknown events") else None

    def _text(self, message: dict[str, Any]) -> Reply:
        stream_id = message["msgid"]
        if self.fault == "asks redeliveries again":
            stream_id = f"{stream_id}-{len(self.messages)}"
        with self._asking:
            self._polls.setdefault(stream_id, 0)
        if self.fault == "ignores groups" and message.get("chatid"):
            return None
        return self._frame(stream_id)

    def _poll(self, stream_id: str) -> Reply:
        if stream_id not in self._polls:
            return None if self.fault == "never ends unknown streams" else frame("过期", stream_id=stream_id)
        self._polls[stream_id] += 1
        return self._frame(stream_id)

    def _frame(self, stream_id: str) -> Reply:
        polls = self._polls[stream_id]
        if polls < 2 or self.fault == "never finishes":
            content = "x" * 20_481 if self.fault == "sends long frames" else "思考中..."
            return frame(content, finish=False, stream_id=stream_id)
        changed = f" {polls}" if self.fault == "changes after finish" else ""
        return frame(ANSWER + changed, stream_id=stream_id)
