"""The start, chat, realtime and batch pages: each is one document with a content security policy by hashes.

A page is rendered once and is the same for everybody; its content comes later through its socket or REST.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path

from flask import Blueprint, Response, render_template, request
from markupsafe import Markup

from channels.web.pages.sentences import other_sentences
from config.texts import Texts

HTML = Path(__file__).parent / "html"

#: The address the chat page connects to.
CHAT_PATH = "/ws/chat/"

#: The policy's word for no source at all.
NONE = "'none'"
_INLINE = re.compile(r"<(script|style)(?: [^>]*)?>(.*?)</\1>", re.DOTALL)


@dataclass(frozen=True, slots=True)
class RenderedPage:
    """A page, ready to be sent."""

    html: str
    etag: str
    #: The policy without the last sources of connect-src, which depend on the request's host.
    policy: str


def pages_blueprint(*, texts: Texts, app_name: str, ws_path: str) -> Blueprint:
    """Return GET /chat, /realtime and /batch; `ws_path` is the address of the realtime channel."""
    routes = Blueprint("pages", __name__, template_folder=str(HTML))

    def page(name: str, socket_path: str) -> Callable[[], Response]:
        @cache
        def rendered() -> RenderedPage:
            return render_page(name, texts=texts, app_name=app_name, socket_path=socket_path)

        return lambda: page_reply(rendered())

    routes.add_url_rule("/chat", "chat", page("chat/chat.html", CHAT_PATH))
    routes.add_url_rule("/realtime", "realtime", page("realtime/realtime.html", ws_path))
    routes.add_url_rule("/batch", "batch", page("batch/batch.html", ""))
    return routes


def render_page(name: str, *, texts: Texts, own_files: bool = False, **values: object) -> RenderedPage:
    """Render a template of `html/` as a page; `texts` are the server's sentences.

    With `own_files` the page may load scripts and styles of this host, which write HTML as they like: Swagger UI.
    """
    sentences = other_sentences(texts)
    html = render_template(name, part=_part, locale=texts.locale, sentences=sentences, **values)
    return finished(html, own_files=own_files)


def finished(html: str, *, own_files: bool = False) -> RenderedPage:
    """Return the page with a policy that allows only its own inline scripts and style, and what `own_files` says."""
    hashes = {
        kind: [f"'sha256-{_hash(text)}'" for found, text in _INLINE.findall(html) if found == kind and text]
        for kind in ("script", "style")
    }
    allowed = {kind: " ".join(["'self'"] * own_files + found) or NONE for kind, found in hashes.items()}
    types = "" if own_files else "require-trusted-types-for 'script'; trusted-types answers; "
    policy = (
        f"default-src 'none'; script-src {allowed['script']}; style-src {allowed['style']}; "
        "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        f"{types}connect-src 'self'"
    )
    return RenderedPage(html, sha256(html.encode()).hexdigest()[:32], policy)


def page_reply(page: RenderedPage) -> Response:
    """Return the page with its security headers, or 304 if the browser has it."""
    reply = Response(page.html, mimetype="text/html")
    reply.set_etag(page.etag)
    reply.headers["Cache-Control"] = "no-cache"
    reply.headers["Content-Security-Policy"] = page.policy + _sockets(request.host)
    reply.headers["Permissions-Policy"] = "microphone=(self), camera=(), geolocation=()"
    reply.headers["Referrer-Policy"] = "no-referrer"
    reply.headers["X-Content-Type-Options"] = "nosniff"
    reply.make_conditional(request)
    return reply


def _sockets(host: str) -> str:
    """Return the page's host as WebSocket sources, because 'self' does not cover ws: and wss: in older browsers.

    werkzeug returns "" for an invalid Host header, so that nothing can be injected into this one.
    """
    return f" ws://{host} wss://{host}" if host else ""


def _part(name: str) -> Markup:
    """Return a file of the pages unescaped, for inclusion in a page."""
    return Markup((HTML / name).read_text("utf-8"))


def _hash(text: str) -> str:
    return b64encode(sha256(text.encode()).digest()).decode()
