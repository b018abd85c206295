"""WeCom's side of `response_url`: a server that takes one message for each address, and checks it against the rules."""

from __future__ import annotations

import json
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

from demo.mocks.http import Handler, HttpMock
from demo.wecom.rules import FRAME_BYTES as MESSAGE_BYTES
from demo.wecom.rules import message_violations

__all__ = ["MESSAGE_BYTES", "ResponsePost", "ResponseServer", "read_post"]

#: Path of the real address.
RESPONSE_PATH = "/cgi-bin/aibot/response"
#: Addresses that a server remembers; of the oldest ones it then knows neither age nor kind of chat.
MOST_ADDRESSES = 10_000


@dataclass(frozen=True)
class ResponsePost:
    """One request to a `response_url`."""

    #: The `response_code` of the address.
    code: str
    #: The message's Markdown; "" where there is none.
    content: str
    #: The rules that it broke.
    broken: tuple[str, ...] = ()


class ResponseServer(HttpMock):
    """Issues addresses and records every POST. A second POST of an address breaks a rule, and is accepted."""

    def __init__(self, port: int = 0, host: str = "127.0.0.1", *, clock: Callable[[], float] = time.monotonic) -> None:
        self._posts: list[ResponsePost] = []
        self._clock = clock
        #: By code: when the address was issued, and whether for a group.
        self._issued: OrderedDict[str, tuple[float, bool]] = OrderedDict()
        self._recording = threading.Lock()
        #: Called for each POST before it is answered; a test may block or kill here.
        self.before_reply: Callable[[ResponsePost], None] = lambda post: None
        #: The `errcode`, HTTP status and `Location` of every reply.
        self.errcode, self.status, self.location = 0, 200, ""
        self.listen(host, port, _ResponseHandler)

    def issue(self, code: str, *, group: bool = False) -> str:
        """Issue an address and return it. A redelivered message has the address that it had."""
        with self._recording:
            self._issued.setdefault(code, (self._clock(), group))
            while len(self._issued) > MOST_ADDRESSES:
                self._issued.popitem(last=False)
        return self.url_for(code)

    def url_for(self, code: str) -> str:
        return f"{self.address}{RESPONSE_PATH}?response_code={code}"

    @property
    def posts(self) -> list[ResponsePost]:
        with self._recording:
            return list(self._posts)

    def of(self, code: str) -> list[ResponsePost]:
        """Return the POSTs to one address."""
        return [post for post in self.posts if post.code == code]

    @property
    def broken(self) -> list[str]:
        """Every rule that a POST broke."""
        return [f"{post.code}: {rule}" for post in self.posts for rule in post.broken]

    def record(self, code: str, media: str, body: Any) -> ResponsePost:
        with self._recording:
            used = any(post.code == code for post in self._posts)
            issued, group = self._issued.get(code, (self._clock(), False))
            post = read_post(code, media, body, used=used, group=group, age=self._clock() - issued)
            self._posts.append(post)
        return post


def read_post(code: str, media: str, body: Any, *, used: bool, group: bool = False, age: float = 0.0) -> ResponsePost:
    """Return a request as a post, with the rules that it breaks."""
    markdown = body.get("markdown") if isinstance(body, dict) else None
    content = markdown.get("content") if isinstance(markdown, dict) else None
    broken = message_violations(body, code=code, media=media, used=used, group=group, age=age)
    return ResponsePost(code, content if isinstance(content, str) else "", tuple(map(str, broken)))


class _ResponseHandler(Handler):
    mock: ResponseServer

    def get(self) -> None:
        self.reply({"errcode": 43002, "errmsg": "require POST"}, 405)

    def post(self) -> None:
        address = urlsplit(self.path)
        if address.path != RESPONSE_PATH:
            self.reply({"errcode": 404, "errmsg": "no such path"}, 404)
            return
        code = parse_qs(address.query).get("response_code", [""])[0]
        body = self.json_body()
        if self.cut:
            # The client was killed while it sent: no message has arrived.
            return
        post = self.mock.record(code, self.headers.get("Content-Type", ""), body)
        self.mock.before_reply(post)
        reply = json.dumps({"errcode": self.mock.errcode, "errmsg": "ok"}).encode()
        headers = {"Location": self.mock.location} if self.mock.location else {}
        self.send(self.mock.status, reply, headers=headers)
