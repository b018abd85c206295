"""A stub of the WeCom callback on a real port; the test sets its replies."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from flask import Flask, Response, request
from werkzeug.serving import make_server

from services.wecom.crypto import WXBizJsonMsgCrypt

TOKEN = "TESTTOKEN0123456789"
AES_KEY = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"

Reply = dict[str, Any] | str | None


class StubCallback:
    """A callback endpoint that decrypts messages, keeps them in `messages`, and replies with what `reply` returns."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self.reply: Callable[[dict[str, Any]], Reply] = lambda message: frame("…", finish=False)
        #: Changes the encrypted envelope before it is sent.
        self.envelope: Callable[[dict[str, Any]], Any] = lambda envelope: envelope
        self.status = 200
        self.crypt = WXBizJsonMsgCrypt(TOKEN, AES_KEY, "")
        self.server = make_server("127.0.0.1", 0, self.app(), threaded=True)
        self.url = f"http://127.0.0.1:{self.server.server_port}/wechat/callback"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.server.shutdown()
        self.thread.join(5.0)
        self.server.server_close()

    def app(self) -> Flask:
        app = Flask("stub")
        app.add_url_rule("/wechat/callback", view_func=self.answer, methods=["POST", "GET"])
        return app

    def answer(self) -> Response:
        signed = request.args["msg_signature"], request.args["timestamp"], request.args["nonce"]
        if self.status != 200:
            return Response("no", status=self.status)
        if request.method == "GET":
            return Response(
                self.envelope({"plain": self.crypt.VerifyURL(*signed, request.args["echostr"])[1]})["plain"]
            )
        code, plain = self.crypt.DecryptMsg(request.get_data(), *signed)
        assert code == 0
        self.messages.append(json.loads(str(plain)))
        reply = self.reply(self.messages[-1])
        return Response() if reply is None else self.sealed(reply)

    def sealed(self, reply: dict[str, Any] | str) -> Response:
        plain = reply if isinstance(reply, str) else json.dumps(reply)
        _, envelope = self.crypt.EncryptMsg(plain, request.args["nonce"])
        changed = self.envelope(json.loads(str(envelope)))
        return Response(changed if isinstance(changed, str) else json.dumps(changed))

    def grows(self, *contents: str) -> None:
        """Reply with these texts one after the other; the last frame has `finish`."""
        left = list(contents)
        self.reply = lambda message: frame(left.pop(0), finish=not left)


def frame(content: str, *, finish: bool = True, stream_id: str = "s1") -> dict[str, Any]:
    return {"msgtype": "stream", "stream": {"id": stream_id, "finish": finish, "content": content}}
