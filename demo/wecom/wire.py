"""Send callbacks as WeCom does: encrypt and post them, and decrypt replies that WeCom would accept."""

from __future__ import annotations

import itertools
import json
import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import requests
from requests.adapters import HTTPAdapter

from demo.wecom.rules import RuleViolation, envelope_violations
from services.http.certificates import bundle_for, tls_failure
from services.wecom.crypto import WXBizJsonMsgCrypt

#: WeCom cuts the connection after this many seconds without an answer.
REPLY_TIMEOUT = 5.0
#: Maximum number of concurrent requests of one user; further ones wait for a connection.
CONNECTIONS = 64


class CallbackFailed(Exception):
    """The gateway did not reply with 200; `status` is the HTTP status, 0 without a response."""

    def __init__(self, reason: str, *, status: int = 0) -> None:
        super().__init__(reason)
        self.status = status


class RuleBroken(Exception):
    """The gateway replied, but WeCom would not show the reply, or show it wrongly."""


@dataclass(frozen=True)
class Callback:
    """One request as WeCom sends it; tests forge requests with `dataclasses.replace`."""

    #: Query parameters: msg_signature, timestamp, nonce; echostr in a verification.
    params: Mapping[str, str]
    body: bytes = b""


@dataclass(frozen=True)
class WireReply:
    """An HTTP response as it came."""

    status: int
    body: bytes
    #: Seconds until all of it was there.
    seconds: float


class Delivery(NamedTuple):
    """One decrypted reply of the gateway."""

    #: None for an empty one.
    reply: dict[str, Any] | None
    #: The rules of WeCom that it breaks.
    broken: tuple[RuleViolation, ...]
    #: Seconds of this request, without those of earlier tries.
    seconds: float


class WeComWire:
    """Sends messages of one bot to its callback; `urls` are used in turn, as by a load balancer."""

    def __init__(
        self,
        urls: Sequence[str],
        token: str,
        aes_key: str,
        receive_id: str = "",
        *,
        timeout: float = REPLY_TIMEOUT,
        clock: Callable[[], float] = time.time,
        proxies: bool = False,
    ) -> None:
        """`proxies` uses the proxies that the environment names."""
        self._urls = itertools.cycle(urls)
        self._lock = threading.Lock()
        self._crypt = WXBizJsonMsgCrypt(token, aes_key, receive_id)
        self._timeout = timeout
        self._clock = clock
        self._http = requests.Session()
        self._http.trust_env = proxies
        self._http.verify = bundle_for(urls[0])
        self._http.mount("http://", HTTPAdapter(pool_maxsize=CONNECTIONS, pool_block=True))

    def close(self) -> None:
        self._http.close()

    def seal(self, message: Mapping[str, Any]) -> Callback:
        """Encrypt and sign a message as WeCom does."""
        ciphertext, params = self._sealed(json.dumps(message, ensure_ascii=False))
        return Callback(params, json.dumps({"encrypt": ciphertext}).encode())

    def post(self, callback: Callback) -> dict[str, Any] | None:
        """Post a callback and return the decrypted reply; None for an empty reply.

        Raises:
            CallbackFailed: the gateway did not reply with 200.
            RuleBroken: WeCom would not accept the reply.
        """
        delivery = self.deliver(callback)
        if delivery.broken:
            raise RuleBroken("; ".join(map(str, delivery.broken)))
        return delivery.reply

    def deliver(self, callback: Callback) -> Delivery:
        """Do the same as `post`, but return the undocumented rules that the reply's envelope breaks."""
        reply = self._accepted("POST", callback)
        opened, broken = self.open(reply.body, callback.params["nonce"]) if reply.body else (None, [])
        return Delivery(opened, tuple(broken), reply.seconds)

    def verify(self) -> str:
        """Verify the URL as WeCom's console does on Save; return the plaintext that the callback replied.

        Raises:
            CallbackFailed: the gateway did not reply with 200.
            RuleBroken: the reply is not the plaintext of echostr.
        """
        plain, callback = self.seal_echo()
        body = self._accepted("GET", callback).body
        if body != plain.encode():
            raise RuleBroken("the answer to the verification is not the plaintext of echostr, byte for byte")
        return plain

    def seal_echo(self) -> tuple[str, Callback]:
        """Return the plaintext of a verification and its request."""
        plain = str(secrets.randbelow(10**19))
        ciphertext, params = self._sealed(plain)
        return plain, Callback({**params, "echostr": ciphertext})

    def _sealed(self, plain: str) -> tuple[str, dict[str, str]]:
        nonce = str(secrets.randbelow(10**10))
        code, sealed = self._crypt.EncryptMsg(plain, nonce, str(int(self._clock())))
        if code or sealed is None:
            raise ValueError(f"this token and AES key cannot encrypt: {code}")
        reply = json.loads(sealed)
        params = {"msg_signature": reply["msgsignature"], "timestamp": str(reply["timestamp"]), "nonce": nonce}
        return reply["encrypt"], params

    def _accepted(self, method: str, callback: Callback) -> WireReply:
        reply = self.exchange(method, callback)
        if reply.status != 200:
            raise CallbackFailed(f"the callback answered {reply.status}", status=reply.status)
        return reply

    def exchange(self, method: str, callback: Callback) -> WireReply:
        """Send a request and return the response, whatever its status.

        Raises:
            CallbackFailed: there is no response.
        """
        with self._lock:
            url = next(self._urls)
        began = time.monotonic()
        try:
            reply = self._http.request(
                method, url, params=callback.params, data=callback.body, timeout=self._timeout, allow_redirects=False
            )
        except requests.RequestException as exc:
            raise CallbackFailed(f"no answer from the callback: {tls_failure(exc) or type(exc).__name__}") from exc
        return WireReply(reply.status_code, reply.content, time.monotonic() - began)

    def open(self, body: bytes, nonce: str) -> tuple[dict[str, Any], list[RuleViolation]]:
        """Decrypt a reply; return it with the rules that its envelope breaks, but only undocumented ones.

        Raises:
            RuleBroken: WeCom would not accept the reply.
        """
        envelope = _object(body, "the reply")
        broken = envelope_violations(envelope, nonce)
        if serious := [str(each) for each in broken if each.documented]:
            raise RuleBroken("; ".join(serious))
        signature = str(envelope["msgsignature"])
        code, plain = self._crypt.DecryptMsg(body, signature, str(envelope["timestamp"]), nonce)
        if code or plain is None:
            raise RuleBroken(f"the reply cannot be opened: {code}")
        return _object(plain, "the decrypted reply"), broken


def _object(text: bytes | str, what: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as exc:
        raise RuleBroken(f"{what} is not JSON") from exc
    if not isinstance(value, dict):
        raise RuleBroken(f"{what} is not a JSON object")
    return value
