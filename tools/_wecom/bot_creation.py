"""Creates a bot by a QR code, over two addresses that only public code describes: WeCom documents neither.

    GET /ai/qc/generate?source=&plat=  {"data": {"scode", "auth_url"}}        auth_url is what the QR code shows
    GET /ai/qc/query_result?scode=     {"data": {"status"}}, at the end {"data": {"status": "success",
                                       "bot_info": {"botid", "secret"}}}

Who holds the scode can fetch the Secret, so both are in no error and no repr. Public code polls every three seconds,
for five minutes. The statuses below were seen in it; any other one than `success` may be a step on the way.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from services.errors import ProviderError
from services.http.connections import hide_parameters
from services.http.service import HTTPService
from utils.deadline import ended_in_time

WECOM = "https://work.weixin.qq.com"
#: Seconds that a QR code is valid, and seconds between two questions for its result.
LIFE, EVERY = 300.0, 3.0
#: Seconds for one exchange at most, and bytes of the longest reply that is read.
TIMEOUT = 15.0
MOST_REPLY = 65_536
#: The `plat` that public code sends, by `sys.platform`.
_PLATFORMS = {"darwin": 1, "win32": 2, "linux": 3}
_EXPIRED = ("expired", "expire", "timeout")
_DECLINED = (
    *("fail", "failed", "error", "cancel", "canceled", "cancelled"),
    *("decline", "declined", "deny", "denied", "refused", "reject", "rejected"),
)
#: A status is printed, so it is a short word.
_STATUS = re.compile(r"\w{1,32}", re.ASCII)
#: An id or a Secret goes into one line of a file.
_VALUE = re.compile(r"[!-~]{1,512}")
#: Added where a bot may have been made whose Secret did not arrive.
LOOK = "WeCom may have created a bot all the same: see WeCom's console, which shows its BotID and Secret"


class NotCreated(Exception):
    """There is no new bot here. The text says why and what to do; it quotes nothing of WeCom's reply but a status."""


@dataclass(frozen=True, slots=True)
class QRCode:
    """`link` is what the QR code shows; a person opens it in WeCom's app."""

    link: str
    scode: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class NewBot:
    bot_id: str
    secret: str = field(repr=False)


class BotCreation:
    """The creation of one bot, at WeCom or at a private WeCom's web address."""

    def __init__(self, url: str = WECOM) -> None:
        self._url = url.rstrip("/")
        self._http = HTTPService(pool_size=1)
        hide_parameters()

    def begin(self) -> QRCode:
        """Return a new QR code.

        Raises:
            NotCreated: WeCom could not be reached, or its answer was not understood.
        """
        given = {"source": "wechatlaibao", "plat": _PLATFORMS.get(sys.platform, 0)}
        try:
            data = self._get("generate", given, TIMEOUT)
        except ProviderError as exc:
            raise NotCreated(f"{self._url}: {exc}: see that it is open from here") from None
        scode, link = data.get("scode"), data.get("auth_url")
        if not _is_value(scode) or not _is_value(link) or not str(link).startswith(("https://", "http://")):
            raise _not_understood("generate", "it has no scode with an auth_url")
        return QRCode(str(link), str(scode))

    def wait(self, code: QRCode, *, timeout: float, every: float, tell: Callable[[str], object]) -> NewBot:
        """Return the bot once a person has confirmed it; `tell` gets each new status, and each problem that may pass.

        Raises:
            NotCreated: declined, expired, nothing within `timeout` seconds, or an answer that was not understood.
        """
        ends, told = time.monotonic() + timeout, ""
        while True:
            words, bot = self._asked(code, ends - time.monotonic())
            if bot:
                return bot
            if words != told:
                tell(words)
            told = words
            if time.monotonic() + every > ends:
                raise NotCreated(f"nobody confirmed the bot within {timeout:g} s: begin again for a new QR code")
            time.sleep(every)

    def close(self) -> None:
        """Close the pooled connections."""
        self._http.close()

    def _asked(self, code: QRCode, left: float) -> tuple[str, NewBot | None]:
        """Return the status in words, and the bot if there is one; take `left` seconds at most."""
        try:
            data = self._get("query_result", {"scode": code.scode}, min(left, TIMEOUT))
        except ProviderError as exc:
            return f"no answer from WeCom ({exc}): trying again", None
        status = data.get("status")
        if not isinstance(status, str) or not _STATUS.fullmatch(status):
            raise _not_understood("query_result", "it has no status")
        if status == "success":
            return "", _bot(data.get("bot_info"))
        if status in _EXPIRED:
            raise NotCreated("the QR code has expired: begin again for a new one")
        if status in _DECLINED:
            raise NotCreated(f"the bot was declined in WeCom (status {status}): begin again, and confirm it there")
        return f"WeCom's status: {status}", None

    def _get(self, call: str, params: Mapping[str, Any], timeout: float) -> dict[str, Any]:
        """Return the reply's `data`; take `timeout` seconds at most.

        Raises:
            NotCreated: the reply is not understood.
            ProviderError: no reply came, or one that broke off or says to try again (429, 5xx).
        """
        with (
            ended_in_time(timeout) as deadline,
            self._http.exchange(
                "GET",
                f"{self._url}/ai/qc/{call}",
                params=params,
                headers={"Accept": "application/json"},
                deadline=deadline,
                timeout=timeout,
            ) as reply,
        ):
            status, body = reply.status, reply.read_all(limit=MOST_REPLY, timeout=timeout)
            whole = reply.ended or len(body) == MOST_REPLY
        if status == 429 or status >= 500:
            raise ProviderError(f"HTTP {status}")
        if not whole:
            raise ProviderError("the reply broke off")
        if status != 200:
            raise _not_understood(call, f"HTTP {status}")
        return _data(call, body)


def _data(call: str, body: bytes) -> dict[str, Any]:
    try:
        reply = json.loads(body)
    except (ValueError, RecursionError):
        reply = None
    if not isinstance(reply, dict):
        raise _not_understood(call, "it is no JSON object")
    if isinstance(errcode := reply.get("errcode"), int) and errcode:
        raise NotCreated(f"WeCom refuses /ai/qc/{call} with errcode {errcode}")
    if not isinstance(data := reply.get("data"), dict):
        raise _not_understood(call, "it has no data object")
    return data


def _bot(found: Any) -> NewBot:
    bot_id, secret = (found.get("botid"), found.get("secret")) if isinstance(found, dict) else (None, None)
    if not _is_value(bot_id) or not _is_value(secret):
        raise _not_understood("query_result", f"it says success without a bot_info of botid and secret. {LOOK}")
    return NewBot(str(bot_id), str(secret))


def _is_value(value: Any) -> bool:
    return isinstance(value, str) and bool(_VALUE.fullmatch(value))


def _not_understood(call: str, why: str) -> NotCreated:
    return NotCreated(
        f"WeCom's answer to /ai/qc/{call} is not understood: {why}. The interface is not documented and may have "
        "changed: create the bot in WeCom's console instead (docs/connect-dify.md)"
    )
