"""Checks a callback address as WeCom does: an encrypted echo must come back as its exact plaintext."""

from __future__ import annotations

import json
import re
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import requests

from config.bots import BotSettings
from services.ops.remedies import explained
from services.wecom.crypto import WXBizJsonMsgCrypt
from tools._doctor.checks import Finding

#: Seconds WeCom waits for the echo when an administrator saves the callback address.
LIMIT = 1.0
#: Seconds to connect, and to wait for the reply: longer than WeCom waits, to distinguish slow from unreachable.
TIMEOUT = (2.0, 2.5)
MAX_BODY = 4096

_STATUS = {
    401: "a proxy or firewall asks for a login: let /wechat/callback through",
    403: "a proxy or firewall refuses it: let /wechat/callback through",
    404: "the path does not lead to the gateway: it ends in /wechat/callback, or /wechat/callback/<bot>",
    405: "the path does not lead to the gateway: it ends in /wechat/callback, or /wechat/callback/<bot>",
    502: "the proxy does not reach the gateway: see that it runs, and the proxy's upstream",
    503: "the proxy does not reach the gateway: see that it runs, and the proxy's upstream",
    504: "the proxy does not reach the gateway in time: see that it runs, and the proxy's upstream",
}
_FAILURES = (
    (
        "certificate",
        "renew the certificate: it must be valid for this name and from a public authority "
        "(REQUESTS_CA_BUNDLE: one that only this machine trusts)",
    ),
    ("ssl", "see that the port speaks TLS, or use http:// in --url"),
    ("timed out", "open the port to the outside: something drops the packets, or the gateway hangs"),
    ("resolve", "correct the name, or make its DNS record"),
    ("name or service", "correct the name, or make its DNS record"),
    ("refused", "start the gateway (gunicorn), or give its address with --url"),
)


@dataclass(frozen=True, slots=True)
class EchoReply:
    status: int
    body: bytes
    seconds: float
    location: str = ""


def callback_urls(base: str, bots: Mapping[str, BotSettings]) -> dict[str, str]:
    """Return the address of each bot in callback mode. `base` is the default bot's address, or ends in a bot's name."""
    served = [name for name, bot in bots.items() if bot.mode == "callback"]
    base = base.rstrip("/")
    last = base.rpartition("/")[2]
    if last in served and last != "default":
        return {last: base}
    return {name: base if name == "default" else f"{base}/{name}" for name in served}


def check_callback(
    name: str, bot: BotSettings, url: str, *, limit: float = LIMIT, clock: Callable[[], float] = time.monotonic
) -> Iterator[Finding]:
    """Yield a finding on whether WeCom's console would accept this address for the bot."""
    check = f"callback {name}"
    try:
        plain, answer = _echo(bot, url, clock)
        if answer.body == plain.encode() and answer.seconds > limit:
            # The first request may be slow because of a cold worker, DNS and TLS.
            plain, answer = _echo(bot, url, clock)
    except requests.RequestException as exc:
        yield Finding(check, "failed", f"{url}: {_words(exc)}", explained(_cause(exc), _FAILURES, "correct --url"))
        return
    text, remedy = judged(plain, answer, limit)
    if remedy:
        yield Finding(check, "failed", f"{url}: {text}", remedy)
    else:
        yield Finding(check, "ok", f"{url} echoes as WeCom wants it, in {answer.seconds * 1000:.0f} ms")


def _echo(bot: BotSettings, url: str, clock: Callable[[], float]) -> tuple[str, EchoReply]:
    """Send an encrypted echo; return its plaintext and the reply."""
    plain = str(secrets.randbelow(10**19))
    nonce = str(secrets.randbelow(10**10))
    crypt = WXBizJsonMsgCrypt(bot.tokens[0], bot.aes_keys[0], bot.receive_id)
    _, envelope = crypt.EncryptMsg(plain, nonce, str(int(time.time())))
    sealed = json.loads(envelope or "{}")
    signed = {"msg_signature": sealed["msgsignature"], "timestamp": str(sealed["timestamp"]), "nonce": nonce}
    return plain, _get(url, {**signed, "echostr": sealed["encrypt"]}, clock)


def _get(url: str, params: Mapping[str, str], clock: Callable[[], float]) -> EchoReply:
    # Requests to this machine must not go through a proxy set in the environment.
    local = urlsplit(url).hostname in ("127.0.0.1", "::1", "localhost")
    proxies: Any = dict.fromkeys(("http", "https", "all")) if local else {}
    began = clock()
    with requests.get(
        url, params=dict(params), timeout=TIMEOUT, proxies=proxies, allow_redirects=False, stream=True
    ) as reply:
        body = reply.raw.read(MAX_BODY, decode_content=True)
        return EchoReply(reply.status_code, body, clock() - began, reply.headers.get("Location", ""))


def judged(plain: str, answer: EchoReply, limit: float) -> tuple[str, str]:
    """Return the problem and its remedy, both "" if there is none."""
    if answer.status != 200:
        return _status(answer)
    if answer.body != plain.encode():
        return _body(plain, answer.body)
    if answer.seconds > limit:
        text = f"right, but after {answer.seconds:.1f} s; WeCom waits {limit:g} s"
        return text, "find what is slow on the way: the proxy, TLS, a machine without CPU to spare"
    return "", ""


def _status(answer: EchoReply) -> tuple[str, str]:
    if 300 <= answer.status < 400:
        where = answer.location.partition("?")[0]
        return f"HTTP {answer.status}, a redirect to {where}", "give WeCom the address it leads to, or end the redirect"
    if b"callback_refused" in answer.body:
        return "the gateway refused it", (
            "its log line 'callback refused' names the check: bad_signature or bad_ciphertext: WECHAT_TOKEN and "
            "WECHAT_ENCODING_AES_KEY there and here differ; stale_timestamp: set the clocks; unknown_bot: no such bot"
        )
    return f"HTTP {answer.status}", _STATUS.get(answer.status, "see the logs of the gateway and of the proxy before it")


def _body(plain: str, body: bytes) -> tuple[str, str]:
    if body.removeprefix(b"\xef\xbb\xbf").strip() == plain.encode():
        return "the echo has a line end or a byte order mark around it", "take away what adds it on the way"
    if body.strip().strip(b"\"'") == plain.encode():
        return "the echo has quotes around it", "take away what makes JSON of the answer on the way"
    if body.lstrip().startswith(b"<"):
        return "a web page answers, not the gateway", "let the proxy pass /wechat/callback on, without a login page"
    return "something else answers than the gateway", "correct the address, or the proxy's upstream"


def _cause(exc: requests.RequestException) -> str:
    """Return an error's text without the address, whose random parts may contain any of the words searched for."""
    return re.sub(r"with url: \S+", "", str(exc))


def _words(exc: requests.RequestException) -> str:
    """Return the error in words, without the query, which contains the echo."""
    text = _cause(exc)
    for known in ("certificate verify failed", "timed out", "Failed to resolve", "Connection refused"):
        if known.lower() in text.lower():
            return known
    return type(exc).__name__
