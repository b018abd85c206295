"""The floor: the minimum cost of a poll in a Python server that answers each request separately.

A bare WSGI function behind the product's own gunicorn settings. It checks the signature, decrypts, reads the stream's
text from Redis in one round trip, encrypts and signs the reply: AES (the product's library) and SHA-1 twice each, JSON,
base64. There is no framework, no log, no metric, no other check. The read is a plain GET of the text, the cheapest
command; whether the stream has ended, is overdue, or belongs to this person is not checked.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import secrets
import struct
import time
from collections.abc import Callable, Iterable
from typing import Any, cast

import redis
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC

#: The padding's block size in bytes.
_BLOCK = 32

StartResponse = Callable[[str, list[tuple[str, str]]], object]


def create_app() -> Floor:
    """Build the floor's application from the product's settings."""
    aes_key = base64.b64decode(os.environ["WECHAT_ENCODING_AES_KEY"] + "=")
    return Floor(os.environ["WECHAT_TOKEN"], aes_key, redis.Redis.from_url(os.environ["REDIS_URL"]))


class Floor:
    """The WSGI application."""

    def __init__(self, token: str, aes_key: bytes, client: redis.Redis) -> None:
        self._token = token
        self._cipher = Cipher(AES(aes_key), CBC(aes_key[:16]))
        self._redis = client

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] == "GET":
            return _reply(start_response, "200 OK", b"ready")
        query = dict(pair.split("=", 1) for pair in environ["QUERY_STRING"].split("&"))
        encrypted = json.loads(environ["wsgi.input"].read())["encrypt"]
        expected = self._signature(query["timestamp"], query["nonce"], encrypted)
        if not hmac.compare_digest(expected, query["msg_signature"]):
            return _reply(start_response, "403 Forbidden", b"")
        stream_id = json.loads(self._decrypted(encrypted))["stream"]["id"]
        text = cast(bytes, self._redis.get(f"{{dify_stream:{stream_id}}}:text"))
        stream = {"id": stream_id, "finish": False, "content": text.decode()}
        message = json.dumps({"msgtype": "stream", "stream": stream}, ensure_ascii=False).encode()
        return _reply(start_response, "200 OK", self._envelope(message, query["nonce"]))

    def _envelope(self, message: bytes, nonce: str) -> bytes:
        encrypted, now = self._encrypted(message), int(time.time())
        signature = self._signature(str(now), nonce, encrypted)
        envelope = {"encrypt": encrypted, "msgsignature": signature, "timestamp": now, "nonce": nonce}
        return json.dumps(envelope).encode()

    def _signature(self, *parts: str) -> str:
        return hashlib.sha1("".join(sorted((self._token, *parts))).encode()).hexdigest()

    def _decrypted(self, encrypted: str) -> bytes:
        plain = self._cipher.decryptor().update(base64.b64decode(encrypted))
        (length,) = struct.unpack_from(">I", plain, 16)
        return plain[20 : 20 + length]

    def _encrypted(self, message: bytes) -> str:
        plain = secrets.token_bytes(16) + struct.pack(">I", len(message)) + message
        count = _BLOCK - len(plain) % _BLOCK
        return base64.b64encode(self._cipher.encryptor().update(plain + bytes([count]) * count)).decode()


def _reply(start_response: StartResponse, status: str, body: bytes) -> Iterable[bytes]:
    start_response(status, [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body)))])
    return [body]
