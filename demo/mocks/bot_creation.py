"""A mock of the two addresses at which WeCom's web console creates a bot by a QR code, over real HTTP.

The shapes of the replies are those that public code reads (`tools/_wecom/bot_creation.py`); WeCom documents none.
"""

from __future__ import annotations

import secrets
from typing import Any
from urllib.parse import parse_qs, urlsplit

from demo.mocks.http import Handler, HttpMock

BOT_ID = "aibDEMOcreated"
SECRET = "obviously-fake-bot-secret"
#: What "success" has beside its status.
BOT = {"botid": BOT_ID, "secret": SECRET}


class MockBotCreation(HttpMock):
    """A context manager. `address` is that of the console.

    `steps` are what the questions for a result get, in this order; the last one stays. A step is a status, such as
    "wait", "scaned", "expired" or "success"; or "502", "garbage" (a web page), "cut" (half a reply) or "hang".
    `begins` is the same for the requests of a QR code, with "ok". A step that is no text is the reply's JSON itself.
    """

    def __init__(self, *steps: Any, begins: Any = "ok", port: int = 0) -> None:
        self.steps, self.begins = list(steps) or ["wait", "scaned", "success"], begins
        #: The query of each request, and the codes that were given out.
        self.asked: list[dict[str, str]] = []
        self.scodes: list[str] = []
        self.listen("127.0.0.1", port, _CreationHandler)

    def answer(self, call: str, given: dict[str, str]) -> tuple[int, Any]:
        """Return the reply's status and its JSON, bytes that are none, or None for a reply that breaks off."""
        self.asked.append(given)
        match self._step(call, given):
            case "502":
                return 502, b"<html>bad gateway</html>"
            case "garbage":
                return 200, b"<html>maintenance</html>"
            case "cut":
                return 200, None
            case "hang":
                self.closing.wait()
                raise ConnectionAbortedError("the mock is closing")
            case "ok":
                return 200, {"data": self._begun()}
            case "success":
                return 200, {"data": {"status": "success", "bot_info": BOT}}
            case str(status):
                return 200, {"data": {"status": status}}
            case reply:
                return 200, reply

    def _step(self, call: str, given: dict[str, str]) -> Any:
        if call == "generate":
            return self.begins
        if call != "query_result" or given.get("scode") not in self.scodes:
            return {"errcode": 40001, "errmsg": f"refused, hint: {given}"}
        return self.steps.pop(0) if len(self.steps) > 1 else self.steps[0]

    def _begun(self) -> dict[str, str]:
        scode = secrets.token_urlsafe(12)
        self.scodes.append(scode)
        return {"scode": scode, "auth_url": f"{self.address}/ai/qc/c?s={scode}"}


class _CreationHandler(Handler):
    mock: MockBotCreation

    def get(self) -> None:
        parts = urlsplit(self.path)
        given = {name: values[0] for name, values in parse_qs(parts.query).items()}
        status, reply = self.mock.answer(parts.path.removeprefix("/ai/qc/"), given)
        if reply is None:
            self.send(status, b'{"data": {', headers={"Content-Length": "64"})
            self.close_connection = True
        elif isinstance(reply, bytes):
            self.send(status, reply, "text/html")
        else:
            self.reply(reply, status)

    def post(self) -> None:
        self.send_error(405)
