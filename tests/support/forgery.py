"""Signed WeCom callbacks: a valid one, and for each check one that fails it."""

from __future__ import annotations

import base64
import json
import secrets
import time
from dataclasses import replace
from typing import Any

from Crypto.Cipher import AES

from demo.wecom.simulator import Callback
from services.wecom.crypto import Prpcrypt, decode_key, signature
from tests.support.replicas import AES_KEY, TOKEN

OTHER_KEY = "NotARealEncodingAESKeyxxxxxxxxxxxxxxxxxxxxx"


def sign(encrypted: str, *, timestamp: float | None = None, token: str = TOKEN) -> dict[str, str]:
    """Return the query of a callback with this ciphertext, signed as WeCom signs it."""
    stamp, nonce = str(int(time.time() if timestamp is None else timestamp)), secrets.token_hex(5)
    return {"msg_signature": signature(token, stamp, nonce, encrypted), "timestamp": stamp, "nonce": nonce}


def echo(text: str) -> dict[str, str]:
    encrypted = Prpcrypt(decode_key(AES_KEY)).encrypt(text, "")
    return {**sign(encrypted), "echostr": encrypted}


def callback(text: str, *, key: str = AES_KEY, receiver: str = "", **how: Any) -> Callback:
    """Return a signed callback whose encrypted message is `text`, valid or not."""
    encrypted = Prpcrypt(decode_key(key)).encrypt(text, receiver)
    return Callback(sign(encrypted, **how), json.dumps({"encrypt": encrypted}).encode())


def raw_callback(padded: bytes) -> Callback:
    """Return a signed callback whose plaintext is `padded` as it is: its padding is part of the input."""
    key = decode_key(AES_KEY)
    encrypted = base64.b64encode(AES.new(key, AES.MODE_CBC, key[:16]).encrypt(padded)).decode()
    return Callback(sign(encrypted), json.dumps({"encrypt": encrypted}).encode())


def a_text() -> str:
    message = {"msgid": "m-1", "aibotid": "aibEXAMPLE", "chattype": "single", "from": {"userid": "zhangsan"}}
    return json.dumps({**message, "msgtype": "text", "text": {"content": "年假怎么申请"}})


def good() -> Callback:
    return callback(a_text())


def without(name: str) -> Callback:
    return replace(good(), params={key: value for key, value in good().params.items() if key != name})


#: By the check that must refuse the callback (the first word); the rest of a key tells callbacks of one check apart.
FORGED: dict[str, Any] = {
    "bad_signature": lambda: replace(good(), params={**good().params, "msg_signature": "0" * 40}),
    "bad_signature of another token": lambda: callback(a_text(), token="ANOTHERTOKEN"),
    "bad_signature of another body": lambda: replace(good(), params=good().params),
    "bad_ciphertext by its padding": lambda: raw_callback(b"x" * 63 + b"\x21"),
    "bad_ciphertext by its length": lambda: raw_callback(b"x" * 16 + b"\xff\xff\xff\xff" + b"x" * 12 + b"\x20" * 32),
    "bad_ciphertext of another key": lambda: callback(a_text(), key=OTHER_KEY),
    "bad_ciphertext that is no base64": lambda: Callback(sign("不是"), json.dumps({"encrypt": "不是"}).encode()),
    "bad_ciphertext of another receiveid": lambda: callback(a_text(), receiver="wwANOTHER"),
    "bad_json": lambda: replace(good(), body=b'{"encrypt": '),
    "bad_json of an empty body": lambda: replace(good(), body=b""),
    "bad_json of a list": lambda: replace(good(), body=b"[]"),
    "xml_body": lambda: replace(good(), body=b"<xml><Encrypt>x</Encrypt></xml>"),
    "missing_parameter encrypt": lambda: replace(good(), body=b"{}"),
    "missing_parameter msg_signature": lambda: without("msg_signature"),
    "missing_parameter timestamp": lambda: without("timestamp"),
    "missing_parameter nonce": lambda: without("nonce"),
    "stale_timestamp of the past": lambda: callback(a_text(), timestamp=time.time() - 3600),
    "stale_timestamp of the future": lambda: callback(a_text(), timestamp=time.time() + 3600),
    "stale_timestamp that is none": lambda: replace(good(), params={**good().params, "timestamp": "soon"}),
    "bad_ciphertext of a message that is no JSON": lambda: callback("hello"),
    "bad_ciphertext of a message without a sender": lambda: callback(
        '{"msgid": "m", "msgtype": "text", "text": {"content": "x"}}'
    ),
    "bad_ciphertext of a message without a type": lambda: callback('{"msgid": "m", "from": {"userid": "zhangsan"}}'),
}
