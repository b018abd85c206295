"""What a developer opens first: a page that names every address there is, and the schema of the sockets' frames."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from html import escape
from pathlib import Path
from typing import NamedTuple

from flask import Blueprint, Response

#: JSON Schema 2020-12 of every frame of both doors.
FRAMES = Path(__file__).with_name("schema") / "websocket.json"

_STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif }
body { margin: 2rem auto; max-width: 60rem; padding: 0 1rem }
table { border-collapse: collapse; width: 100% }
th, td { border-bottom: 1px solid #8886; padding: .35rem .75rem .35rem 0; text-align: left; vertical-align: top }
code { overflow-wrap: anywhere }
"""
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{name} {version}</title>
<style>{style}</style>
</head>
<body>
<main>
<h1>{name} {version}</h1>
<p>One question, one stream of its answer, several doors. The frames of the sockets:
<a href="docs/websocket.json">JSON Schema</a>.</p>
<table>
<thead><tr><th scope="col">Address</th><th scope="col">What it is</th></tr></thead>
<tbody>
{rows}
</tbody>
</table>
</main>
</body>
</html>
"""


class Address(NamedTuple):
    """One line of the page: WS or a method, a path as its clients write it, and what is there."""

    method: str
    path: str
    what: str
    #: Whether a person can open it here and now.
    opens: bool = False


def addresses(realtime_path: str) -> tuple[Address, ...]:
    """Return every address this product serves, in the order of its doors."""
    return (
        Address("GET", "/wechat/callback", "WeCom verifies the default bot's callback address"),
        Address("POST", "/wechat/callback", "WeCom's messages to the default bot"),
        Address("GET", "/wechat/callback/<bot>", "the same of a named bot"),
        Address("POST", "/wechat/callback/<bot>", "the same of a named bot"),
        Address("WS", "/ws/chat", "chat: questions in, answers out while they grow"),
        Address("WS", "/ws/chat/<client_id>", "the same under a name of the client's own"),
        Address("GET", "/chat", "the page of that door", opens=True),
        Address("WS", realtime_path, "transcripts of speech in, answers to the questions in them out"),
        Address("GET", "/realtime", "the page of that door", opens=True),
        Address("GET", "/api/ws/connections", "administrators: who is connected"),
        Address("POST", "/api/ws/disconnect/<client_id>", "administrators: close a connection"),
        Address("GET", "/healthz", "is the process alive", opens=True),
        Address("GET", "/readyz", "may this replica get traffic", opens=True),
        Address("GET", "/health", "how its parts are", opens=True),
        Address("GET", "/metrics", "what was counted, for Prometheus"),
        Address("GET", "/docs", "this page"),
        Address("GET", "/docs/websocket.json", "JSON Schema of the frames of both sockets", opens=True),
    )


def docs_blueprint(*, name: str, version: str, realtime_path: str) -> Blueprint:
    """Return /docs and /docs/websocket.json."""
    routes = Blueprint("docs", __name__)
    page = _PAGE.format(name=escape(name), version=escape(version), style=_STYLE, rows=_rows(addresses(realtime_path)))
    frames = FRAMES.read_bytes()

    @routes.get("/docs")
    def show() -> Response:
        return _secured(Response(page, content_type="text/html; charset=utf-8"))

    @routes.get("/docs/websocket.json")
    def schema() -> Response:
        return _secured(Response(frames, content_type="application/schema+json"))

    return routes


def _rows(listed: Iterable[Address]) -> str:
    return "\n".join(f"<tr><td>{_shown(a)}</td><td>{escape(a.what)}</td></tr>" for a in listed)


def _shown(address: Address) -> str:
    path = escape(address.path)
    # Relative, so that it also leads there behind a proxy that adds a prefix.
    linked = f'<a href="{path[1:]}"><code>{path}</code></a>' if address.opens else f"<code>{path}</code>"
    return f"{address.method} {linked}"


def _secured(response: Response) -> Response:
    """Let the page do nothing but look: no script, no other host, no frame around it."""
    digest = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
    response.headers["Content-Security-Policy"] = (
        f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Referrer-Policy"] = "no-referrer"
    return response
