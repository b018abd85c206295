"""Builds WeCom's callbacks as bytes, encrypted and signed before the measurement, and decrypts their replies."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlencode

from services.wecom.crypto import WXBizJsonMsgCrypt

#: Test values of the same length as real ones; not secrets.
TOKEN = "bench-token-not-secret"
AES_KEY = "benchKEYnotSECRETbenchKEYnotSECRETbenchKEYA"
PATH = "/wechat/callback"


class Callbacks:
    """WeCom's side of one bot. Its requests are valid within the receiver's window of timestamps."""

    def __init__(self, token: str = TOKEN, aes_key: str = AES_KEY, *, clock: Callable[[], float] = time.time) -> None:
        self._crypt = WXBizJsonMsgCrypt(token, aes_key, "")
        self._clock = clock

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
        code, sealed = self._crypt.EncryptMsg(text, str(secrets.randbelow(10**10)), int(self._clock()))
        if sealed is None:
            raise ValueError(f"this token and key cannot seal: {code}")
        envelope = json.loads(sealed)
        names = {"msg_signature": "msgsignature", "timestamp": "timestamp", "nonce": "nonce"}
        query = urlencode({name: envelope[inside] for name, inside in names.items()})
        body = json.dumps({"encrypt": envelope["encrypt"]}).encode()
        head = (
            f"POST {PATH}?{query} HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: Mozilla/4.0\r\nAccept: */*\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body
