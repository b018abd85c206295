"""The pages for people and administrators: each is one document with a content security policy by hashes.

A page is rendered once and is the same for everybody; its content comes later through its socket or REST. It also
carries the server's sentences in the other language, for a reader who switches: a sentence without gaps by its code,
one with gaps, such as "At most {limit} …", by its template.
"""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Literal, TypedDict

from flask import Blueprint, Response, render_template, request
from markupsafe import Markup

from channels.web.guarded import Administrators, admin_errors
from channels.web.rest import Operation, RestModel, envelope
from config.texts import FALLBACK, LOCALES, Texts
from config.texts.requests import ZH_REQUESTS

HTML = Path(__file__).parent / "html"

#: The address the chat page connects to.
CHAT_PATH = "/ws/chat/"

#: Folders of a missing address from which the page leads back by a relative address; below, the error is JSON.
DEEPEST = 4
#: The policy's word for no source at all.
NONE = "'none'"
_GAP = re.compile(r"\{(\w+)\}")
#: What scripts and styles have for their readers: comments with lines of their own, indentation, empty lines. No
#: text of a script goes over several lines.
_FOR_READERS = re.compile(r"^[ \t]*(?:(?://.*|/\*(?:[^*]|\*(?!/))*\*/[ \t]*)?\n|(?=\S))", re.MULTILINE)
_INLINE = re.compile(r"<(script|style)(?: [^>]*)?>(.*?)</\1>", re.DOTALL)


class Index(RestModel):
    """The product and its addresses, as paths of this host."""

    name: str
    version: str
    status: Literal["running"]
    docs_url: str
    chat_url: str
    websocket: str
    health: str


OPERATIONS = (
    Operation("GET", "/", "Name, version and main addresses", "operations", answers={200: Index}, auth="none"),
)


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


def admin_page_blueprint(administrators: Administrators, *, texts: Texts, app_name: str) -> Blueprint:
    """Return GET /admin: a form for the token or, with a session, the administrators' views.

    It is the same for everybody who is signed in: figures and words come from /api/admin/, which checks the role.
    """
    routes = Blueprint("admin_page", __name__, template_folder=str(HTML))
    admin_errors(routes)

    @cache
    def rendered(signed_in: bool) -> RenderedPage:
        return render_page("admin/admin.html", texts=texts, app_name=app_name, socket_path="", signed_in=signed_in)

    @routes.get("/admin")
    def admin() -> Response:
        reply = page_reply(rendered(administrators.has_session()))
        reply.vary.add("Cookie")
        return reply

    return routes


def index_blueprint(*, name: str, version: str, realtime_path: str, texts: Texts) -> Blueprint:
    """Return GET /; `websocket` is the address for transcripts (the chat page knows its own)."""
    routes = Blueprint("index", __name__, template_folder=str(HTML))
    addresses = {"docs_url": "/docs", "chat_url": "/chat", "websocket": realtime_path, "health": "/health"}
    shown = Index(name=name, version=version, status="running", **addresses).model_dump()

    @cache
    def page() -> RenderedPage:
        return render_page("start/start.html", texts=texts, app_name=name, version=version)

    @routes.get("/")
    def index() -> Response:
        reply = page_reply(page()) if _names_html() else envelope(shown)
        reply.vary.add("Accept")
        return reply

    return routes


def missing_page(*, texts: Texts, app_name: str) -> Callable[[], Response | None]:
    """Return a function that returns the page for an address that does not exist; None for a program's request."""

    @cache
    def rendered(depth: int) -> RenderedPage:
        return render_page("missing/missing.html", texts=texts, app_name=app_name, up="../" * depth)

    def page() -> Response | None:
        depth = request.path.count("/") - 1
        if request.method not in ("GET", "HEAD") or depth > DEEPEST or not _names_html():
            return None
        return _guarded(rendered(depth), 404)

    return page


def render_page(name: str, *, texts: Texts, own_files: bool = False, **values: object) -> RenderedPage:
    """Render a template of `html/` as a page; `texts` are the server's sentences.

    With `own_files` the page may load scripts and styles of this host, which write HTML as they like: Swagger UI.
    """
    sentences = _script_json(other_sentences(texts))
    html = render_template(name, part=_part, locale=texts.locale, sentences=sentences, **values)
    return finished(html, own_files=own_files)


def finished(html: str, *, own_files: bool = False) -> RenderedPage:
    """Return the page with a policy that allows its own inline scripts and style, and this host's with `own_files`."""
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
    reply = _guarded(page, 200)
    reply.set_etag(page.etag)
    reply.headers["Cache-Control"] = "no-cache"
    reply.make_conditional(request)
    return reply


def _guarded(page: RenderedPage, status: int) -> Response:
    reply = Response(page.html, status, mimetype="text/html")
    reply.headers["Content-Security-Policy"] = page.policy + _sockets(request.host)
    reply.headers["Permissions-Policy"] = "microphone=(self), camera=(), geolocation=()"
    reply.headers["Referrer-Policy"] = "no-referrer"
    reply.headers["X-Content-Type-Options"] = "nosniff"
    return reply


def _sockets(host: str) -> str:
    """Return the page's host as WebSocket sources, because 'self' does not cover ws: and wss: in older browsers.

    werkzeug returns "" for an invalid Host header, so that nothing can be injected into this one.
    """
    return f" ws://{host} wss://{host}" if host else ""


def _part(name: str) -> Markup:
    """Return a file of the pages unescaped, for inclusion in a page, without the comments for readers of the source."""
    return Markup(_FOR_READERS.sub("", (HTML / name).read_text("utf-8")))


def _script_json(value: object) -> Markup:
    """Return JSON for a script element, which only `<` could end. Chinese stays: escaped it is twice as long."""
    return Markup(json.dumps(value, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c"))


def _hash(text: str) -> str:
    return b64encode(sha256(text.encode()).digest()).decode()


def _names_html() -> bool:
    """Return whether the client names text/html; a program that accepts anything gets JSON."""
    return any(media == "text/html" and quality > 0 for media, quality in request.accept_mimetypes)


#: Codes that may come with the sentence of a rule, which has no translation: found by the built-in sentence alone.
_OF_RULES = ("not_allowed",)


class Sentences(TypedDict):
    """The data with which a page shows the server's sentences in the language that the server does not use."""

    #: By code, the sentences without placeholders.
    codes: dict[str, str]
    #: Pairs of templates: the server's, and the one in the other language.
    templates: list[tuple[str, str]]
    #: What the realtime socket puts around the sentence of a failed answer; pages show the sentence alone.
    around: str


def other_sentences(texts: Texts) -> Sentences:
    """Return the sentences of `texts`, and those about wrong requests, in the other language.

    A sentence of TEXTS_FILE with fewer placeholders than the built-in one has no translation.
    """
    other = LOCALES["en" if texts.locale == "zh" else "zh"]
    codes = {code: said for code, said in other.items() if code not in _OF_RULES and not _GAP.search(said)}
    # A code that the server does not know has the sentence of FALLBACK.
    named = [(texts.template(code), other[code]) for code in other if code not in codes or code == FALLBACK]
    pairs = [*named, *_about_requests(texts.locale)]
    templates = [(own, shown) for own, shown in pairs if _gaps(shown) <= _gaps(own)]
    return {"codes": codes, "templates": templates, "around": texts.template("rag_error")}


def _about_requests(locale: str) -> Iterator[tuple[str, str]]:
    for english, chinese in ZH_REQUESTS.items():
        yield (chinese, english) if locale == "zh" else (english, chinese)


def _gaps(template: str) -> set[str]:
    return set(_GAP.findall(template))
