"""The root address: a start page for people; for programs the product's name and version, and its addresses."""

from __future__ import annotations

from functools import cache
from typing import Literal

from flask import Blueprint, Response, request

from channels.web.envelope import envelope
from channels.web.pages.pages import HTML, RenderedPage, page_reply, render_page
from channels.web.rest import Operation, RestModel
from config.texts import Texts


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


def _names_html() -> bool:
    """Tell whether the client names text/html; a program that accepts anything gets JSON."""
    return any(media == "text/html" and quality > 0 for media, quality in request.accept_mimetypes)
