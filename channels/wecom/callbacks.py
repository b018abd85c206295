"""WeCom's callbacks before the framework: nearly all requests are refreshes, and Flask costs as much as three of them.

Only `POST /wechat/callback[/<bot>]` is answered here; everything else is the application's that stands behind.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from typing import Any, Protocol
from urllib.parse import parse_qsl

from services.errors import CallbackRefused

log = logging.getLogger(__name__)

#: Bytes of the largest callback taken (the same bound as WeCom's own plugin has).
MAX_BODY = 1024 * 1024
#: Characters of a bot's name, and digits of a timestamp, that the log takes over from a refused callback.
MOST_NAME, MOST_DIGITS = 64, 12
PATH = "/wechat/callback"
TEXT, JSON = "text/plain; charset=utf-8", "application/json"

#: Status, content type, body.
Reply = tuple[int, str, bytes]
Wsgi = Callable[[dict[str, Any], Any], Iterable[bytes]]


class Channel(Protocol):
    def receive(self, bot: str, args: dict[str, str], body: bytes) -> bytes: ...


class CallbackEndpoint:
    """A WSGI application that stands before another one."""

    def __init__(self, behind: Wsgi, channel: Channel, refused: Callable[[CallbackRefused], None]) -> None:
        """Take the application behind, the channel, and who is told of callbacks that were refused."""
        self._behind = behind
        self._channel = channel
        self._refused = refused

    #: How the paths of callbacks begin.
    path = PATH

    def reply(self, path: str, query: str, body: bytes) -> Reply | None:
        """Return status, content type and body of the reply to one callback.

        None where the path is none's, or the callback is refused: as a WSGI request it is refused once more, and that
        knows who sent it.
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
            # Every failed check is answered alike; the log says which it was.
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
    """Return what the log says of a refused callback; `skew_seconds` is how far our clock is ahead of its timestamp."""
    stamped = args.get("timestamp", "")
    known: dict[str, object] = {"bot": bot[:MOST_NAME], "peer": peer}
    if not (stamped.isascii() and stamped.isdigit() and len(stamped) <= MOST_DIGITS):
        return known
    return {**known, "skew_seconds": round(time.time()) - int(stamped)}


def _bot(path: str) -> str:
    """Return the bot whose address this is, "" for none. WSGI has the path's bytes as Latin-1."""
    if path == PATH:
        return "default"
    base, _, name = path.rpartition("/")
    return name.encode("latin-1", "replace").decode("utf-8", "replace") if base == PATH else ""


def _arguments(query: str) -> dict[str, str]:
    """Return a URL's arguments; of one that comes twice the first."""
    if "%" in query or "+" in query:
        pairs = parse_qsl(query, keep_blank_values=True, errors="replace")
    else:
        pairs = [(name, value) for name, _, value in (pair.partition("=") for pair in query.split("&"))]
    return dict(reversed(pairs))


def _body(environ: dict[str, Any]) -> bytes:
    """Return the whole body.

    Raises:
        CallbackRefused: it is too large, or not all of it came.
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
