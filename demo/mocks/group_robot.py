"""A mock of a WeCom group's robot over real HTTP: keeps what was posted, and checks it against WeCom's rules."""

from __future__ import annotations

from typing import Any

from demo.mocks.http import Handler, HttpMock

#: Bytes of the longest Markdown message that WeCom accepts.
MOST_BYTES = 4096
KEY = "obviously-fake-robot-key"


class MockGroupRobot(HttpMock):
    """A context manager. `url` is the address with its key; `errcode` and `status` are those of later replies."""

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        #: The accepted messages, oldest first, and how many requests came.
        self.messages: list[str] = []
        self.requests = 0
        self.errcode, self.status = 0, 200
        self.listen(host, port, _RobotHandler)

    @property
    def url(self) -> str:
        return f"{self.address}/cgi-bin/webhook/send?key={KEY}"

    def take(self, path: str, body: Any) -> int:
        """Keep a message; return the errcode of the reply."""
        self.requests += 1
        if path != f"/cgi-bin/webhook/send?key={KEY}":
            return 93000
        content = body.get("markdown", {}).get("content") if isinstance(body, dict) else None
        if not isinstance(content, str) or body.get("msgtype") != "markdown":
            return 40008
        if not 0 < len(content.encode()) <= MOST_BYTES:
            return 40058
        if not self.errcode:
            self.messages.append(content)
        return self.errcode


class _RobotHandler(Handler):
    mock: MockGroupRobot

    def get(self) -> None:
        self.send_error(405)

    def post(self) -> None:
        errcode = self.mock.take(self.path, self.json_body())
        self.reply({"errcode": errcode, "errmsg": "ok" if errcode == 0 else "refused"}, self.mock.status)
