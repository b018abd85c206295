"""The root address: the product's name and version, and the addresses of its channels."""

from __future__ import annotations

from typing import Literal

from flask import Blueprint, Response

from channels.web.envelope import envelope
from channels.web.rest import Operation, RestModel


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


def index_blueprint(*, name: str, version: str, realtime_path: str) -> Blueprint:
    """Return GET /; `websocket` is the address for transcripts (the chat page knows its own)."""
    routes = Blueprint("index", __name__)
    addresses = {"docs_url": "/docs", "chat_url": "/chat", "websocket": realtime_path, "health": "/health"}
    shown = Index(name=name, version=version, status="running", **addresses).model_dump()

    @routes.get("/")
    def index() -> Response:
        return envelope(shown)

    return routes
