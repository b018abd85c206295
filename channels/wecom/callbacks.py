"""Serves WeCom's callbacks before Flask: nearly all are polls, and Flask alone costs three times as much as a poll.

Only `POST /wechat/callback[/<bot>]` is served here; other requests go to the application behind.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from typing import Any, Protocol
from urllib.parse import parse_qsl

from channels.web.middleware import Wsgi
from services.errors import CallbackRefused

log = logging.getLogger(__name__)

#: Bytes of the largest callback accepted (the limit of WeCom's own plugin).
MAX_BODY = 1024 * 1024
#: Maximum characters of a bot's name, and digits of a timestamp, in the log of a refused callback.
MOST_NAME, MOST_DIGITS = 64, 12
PATH = "/wechat/callback"
TEXT, JSON = "text/plain; charset=utf-8", "application/json"

#: Status, content type, body.
Reply = tuple[int, str, bytes]


class CallbackReceiver(Protocol):
    def receive(self, bot: str, args: dict[str, str], body: bytes) -> bytes: ...


class CallbackEndpoint:
    """WSGI middleware that answers callbacks."""

    def __init__(self, behind: Wsgi, channel: CallbackReceiver, refused: Callable[[CallbackRefused], None]) -> None:
        """`behind` is the wrapped application; `refused` is called with each refused callback."""
        self._behind = behind
        self._channel = channel
        self._refused = refused

    #: The prefix of callback paths.
    path = PATH

    def reply(self, path: str, query: str, body: bytes) -> Reply | None:
        """Return status, content type and body of the reply to one callback; called by the worker without WSGI.

        None when the path is not a callback's, or when the callback is refused. The worker then makes a WSGI request of
        it, which is refused again and logged with the sender's address.
        """
        bot = _bot(path)
        try:
            return self._answer(bot, query, lambda: body) if bot else None
        except CallbackRefused:
            return None

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
        bot = _bot(environ["PATH_INFO"]) if environ["REQUEST_METHOD"] == "POST" else ""
        if not bot:
            return self._behind(environ, start_response)
        query = environ.get("QUERY_STRING", "")
        try:
            status, kind, body = self._answer(bot, query, lambda: _body(environ))
        except CallbackRefused as error:
            error.about = about_refusal(bot, environ.get("REMOTE_ADDR", ""), _arguments(query))
            self._refused(error)
            # Every failed check gets the same reply; the log names the check.
            status, kind, body = error.status, JSON, _code(CallbackRefused.code)
        start_response(
            f"{status} {HTTPStatus(status).phrase}", [("Content-Type", kind), ("Content-Length", str(len(body)))]
        )
        return (body,)

    def _answer(self, bot: str, query: str, read: Callable[[], bytes]) -> Reply:
        try:
            return 200, TEXT, self._channel.receive(bot, _arguments(query), read())
        except CallbackRefused:
            raise
        except Exception:
            log.exception("callback failed", extra={"bot": bot})
            return 500, JSON, _code("unknown")


def about_refusal(bot: str, peer: str, args: Mapping[str, str]) -> dict[str, object]:
    """Return the log fields of a refused callback; `skew_seconds` is our clock minus its timestamp."""
    stamped = args.get("timestamp", "")
    known: dict[str, object] = {"bot": bot[:MOST_NAME], "peer": peer}
    if not (stamped.isascii() and stamped.isdigit() and len(stamped) <= MOST_DIGITS):
        return known
    return {**known, "skew_seconds": round(time.time()) - int(stamped)}


def _bot(path: str) -> str:
    """Return the name of the bot with this path, "" for none. WSGI decodes the path as Latin-1."""
    if path == PATH:
        return "default"
    base, _, name = path.rpartition("/")
    return name.encode("latin-1", "replace").decode("utf-8", "replace") if base == PATH else ""


def _arguments(query: str) -> dict[str, str]:
    """Parse a query string; of a repeated argument the first counts."""
    if "%" in query or "+" in query:
        pairs = parse_qsl(query, keep_blank_values=True, errors="replace")
    else:
        pairs = [(name, value) for name, _, value in (pair.partition("=") for pair in query.split("&"))]
    return dict(reversed(pairs))


def _body(environ: dict[str, Any]) -> bytes:
    """Return the whole body.

    Raises:
        CallbackRefused: it is too large or incomplete.
    """
    length = environ.get("CONTENT_LENGTH") or ""
    if not length and not environ.get("wsgi.input_terminated"):
        return b""
    announced = int(length) if length.isdecimal() else MAX_BODY + 1
    if announced > MAX_BODY + 1:
        raise CallbackRefused(code="body_too_large")
    try:
        body: bytes = environ["wsgi.input"].read(announced)
    except OSError as exc:
        raise CallbackRefused(code="broken_body") from exc
    if length and len(body) < announced:
        raise CallbackRefused(code="broken_body")
    if len(body) > MAX_BODY:
        raise CallbackRefused(code="body_too_large")
    return body


def _code(code: str) -> bytes:
    return json.dumps({"code": code}).encode()
