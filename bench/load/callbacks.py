"""WeCom's callbacks as bytes, encrypted and signed before the measurement; their replies are decrypted."""

from __future__ import annotations

import json
import secrets
import socket
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPResponse
from typing import Any
from urllib.parse import urlencode

from services.wecom.crypto import WXBizJsonMsgCrypt

#: Test values of the same length as real ones; not secrets.
TOKEN = "bench-token-not-secret"
AES_KEY = "benchKEYnotSECRETbenchKEYnotSECRETbenchKEYA"
PATH = "/wechat/callback"
#: Requests that `post_each` sends at once, and the timeout of one in seconds.
SENDERS, TIMEOUT = 16, 60.0


class Callbacks:
    """WeCom's side of one bot. Its requests are valid within the receiver's window of timestamps."""

    def __init__(self, token: str = TOKEN) -> None:
        self._crypt = WXBizJsonMsgCrypt(token, AES_KEY, "")

    def refresh(self, stream_id: str, userid: str) -> bytes:
        """Return the request that polls a stream."""
        return self._request({"msgtype": "stream", "stream": {"id": stream_id}}, userid)

    def question(self, text: str, userid: str) -> bytes:
        """Return the request with a new text message, with a unique id."""
        url = f"https://wecom.invalid/cgi-bin/aibot/response?response_code={secrets.token_hex(16)}"
        return self._request({"response_url": url, "msgtype": "text", "text": {"content": text}}, userid)

    def opened(self, body: bytes) -> dict[str, Any]:
        """Decrypt a reply and return its stream: id, finish, content.

        Raises:
            ValueError, LookupError: the reply has no stream, or is not encrypted and signed as WeCom requires.
        """
        envelope = json.loads(body)
        signed = (envelope["msgsignature"], str(envelope["timestamp"]), envelope["nonce"])
        code, text = self._crypt.DecryptMsg(body, *signed)
        if text is None:
            raise ValueError(f"a reply that WeCom would not open: {code}")
        stream: dict[str, Any] = json.loads(text)["stream"]
        return stream

    def _request(self, message: Mapping[str, Any], userid: str) -> bytes:
        common = {"msgid": secrets.token_hex(16), "aibotid": "aibBENCH", "chattype": "single"}
        text = json.dumps({**common, "from": {"userid": userid}, **message}, ensure_ascii=False)
        code, sealed = self._crypt.EncryptMsg(text, str(secrets.randbelow(10**10)), int(time.time()))
        if sealed is None:
            raise ValueError(f"the message cannot be encrypted: {code}")
        envelope = json.loads(sealed)
        names = {"msg_signature": "msgsignature", "timestamp": "timestamp", "nonce": "nonce"}
        query = urlencode({name: envelope[inside] for name, inside in names.items()})
        body = json.dumps({"encrypt": envelope["encrypt"]}).encode()
        head = (
            f"POST {PATH}?{query} HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: Mozilla/4.0\r\nAccept: */*\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body


def exchange(connection: socket.socket, request: bytes) -> bytes:
    """Send a request; return the body of its reply.

    Raises:
        OSError, HTTPException: there is no valid reply with status 200.
    """
    connection.sendall(request)
    with HTTPResponse(connection) as reply:
        reply.begin()
        if reply.status != 200:
            raise ConnectionError(f"the gateway answered {reply.status}")
        return reply.read()


def post_each(port: int, requests: Sequence[bytes], every: float) -> list[bytes]:
    """Send requests with at least this interval in seconds; return the bodies of their replies.

    Each request uses a new connection: with persistent ones most questions would go to one worker.
    """

    def post(request: bytes) -> bytes:
        with socket.create_connection(("127.0.0.1", port), TIMEOUT) as connection:
            return exchange(connection, request)

    began = time.monotonic()
    with ThreadPoolExecutor(SENDERS) as senders:
        replies = []
        for number, request in enumerate(requests):
            time.sleep(max(0.0, began + number * every - time.monotonic()))
            replies.append(senders.submit(post, request))
        return [reply.result() for reply in replies]
