"""The page for developers: lists every address, lets them try REST, and serves the OpenAPI and WebSocket schemas."""

from __future__ import annotations

import json
import sys
from base64 import b64encode
from collections.abc import Iterable
from functools import cache
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from flask import Blueprint, Flask, Response, abort, current_app, render_template, request
from markupsafe import Markup

from channels.web.openapi.document import document
from channels.web.pages.assets import Assets
from channels.web.rest import Operation

#: JSON Schema 2020-12 of every frame of both WebSocket channels.
FRAMES = Path(__file__).with_name("schema") / "websocket.json"
HTML = Path(__file__).with_name("html")
#: The package that contains Swagger UI's files; none of its Python code is run.
UI_PACKAGE = "flask_openapi3_swagger"
UI_FILES = ("templates/swagger/js/swagger-ui-bundle.js", "templates/swagger/css/swagger-ui.css")

OPERATIONS = (
    Operation("GET", "/openapi.json", "The OpenAPI 3.1 document of the REST addresses", "operations", auth="none",
              answers={200: None}, media={200: "application/json"}),
)  # fmt: skip


class ListedAddress(NamedTuple):
    """One row of the page: a method or WS, a path, and a description."""

    method: str
    path: str
    what: str
    #: Whether it can be opened in a browser.
    opens: bool = False


def addresses(realtime_path: str, operations: Iterable[Operation] = ()) -> tuple[ListedAddress, ...]:
    """Return all addresses of the product: channels, pages, and REST in the order of its modules."""
    return (
        ListedAddress("GET", "/wechat/callback", "WeCom verifies the default bot's callback address"),
        ListedAddress("POST", "/wechat/callback", "WeCom's messages to the default bot"),
        ListedAddress("GET", "/wechat/callback/<bot>", "the same for a named bot"),
        ListedAddress("POST", "/wechat/callback/<bot>", "the same for a named bot"),
        ListedAddress("WS", "/ws/chat", "chat: questions in, streamed answers out"),
        ListedAddress("WS", "/ws/chat/<client_id>", "the same with a client id chosen by the client"),
        ListedAddress("GET", "/chat", "the page of this channel", opens=True),
        ListedAddress("WS", realtime_path, "transcripts of speech in, answers to the questions in them out"),
        ListedAddress("GET", "/realtime", "the page of this channel", opens=True),
        ListedAddress(
            "GET", "/batch", "the page of batches: a file of questions in, a table of answers out", opens=True
        ),
        ListedAddress("GET", "/docs", "this page"),
        ListedAddress("GET", "/docs/assets/<name>", "files of this page"),
        ListedAddress("GET", "/docs/websocket.json", "JSON Schema of the frames of both sockets", opens=True),
        *(_address(operation) for operation in operations),
    )


def operations_of(app: Flask) -> tuple[Operation, ...]:
    """Return the OPERATIONS of every module with a registered blueprint, in the order of registration."""
    modules = dict.fromkeys(blueprint.import_name for blueprint in app.blueprints.values())
    return tuple(operation for name in modules for operation in getattr(sys.modules[name], "OPERATIONS", ()))


def docs_blueprint(*, name: str, version: str, realtime_path: str, open_to_all: bool = False) -> Blueprint:
    """Return /docs and its assets, /docs/websocket.json and /openapi.json; with `open_to_all` REST needs no key."""
    routes = Blueprint("docs", __name__, template_folder=str(HTML))
    frames = FRAMES.read_bytes()
    assets = cache(_assets)

    @cache
    def page() -> str:
        listed = addresses(realtime_path, operations_of(current_app))
        parts = {"style": _part("docs.css"), "script": _part("docs.js"), "assets": assets().names}
        return render_template("docs.html", name=name, version=version, addresses=listed, **parts)

    @cache
    def openapi() -> str:
        listed = operations_of(current_app)
        made = document(listed, name=name, version=version, open_to_all=open_to_all)
        return json.dumps(made, ensure_ascii=False)

    @routes.get("/docs")
    def show() -> Response:
        return _secured(Response(page(), mimetype="text/html"))

    @routes.get("/docs/assets/<name>")
    def asset(name: str) -> Response:
        return (assets().find(name) or abort(404)).reply()

    @routes.get("/docs/websocket.json")
    def schema() -> Response:
        return _secured(Response(frames, content_type="application/schema+json"))

    @routes.get("/openapi.json")
    def rest() -> Response:
        return _secured(Response(openapi(), mimetype="application/json"))

    return routes


def _assets() -> Assets:
    found = find_spec(UI_PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise ModuleNotFoundError(f"{UI_PACKAGE} of requirements.txt is not installed: /docs needs its files")
    folder = Path(found.submodule_search_locations[0])
    return Assets(folder / name for name in UI_FILES)


def _address(operation: Operation) -> ListedAddress:
    path = operation.path.replace("{", "<").replace("}", ">")
    opens = operation.method == "GET" and operation.auth == "none"
    return ListedAddress(operation.method, path, operation.summary, opens)


def _part(name: str) -> Markup:
    return Markup((HTML / name).read_text("utf-8"))


@cache
def _policy() -> str:
    script, style = (f"'sha256-{_digest(name)}'" for name in ("docs.js", "docs.css"))
    return (
        f"default-src 'none'; script-src 'self' {script}; style-src 'self' {style}; img-src 'self' data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def _digest(name: str) -> str:
    return b64encode(sha256((HTML / name).read_bytes()).digest()).decode()


def _secured(response: Response) -> Response:
    """Restrict the page to this host, its own script and style, and no frames.

    Browsers revalidate it each time, because the page of another version refers to other files.
    """
    response.headers["Content-Security-Policy"] = _policy()
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Referrer-Policy"] = "no-referrer"
    response.headers["Cache-Control"] = "no-cache"
    response.add_etag()
    response.make_conditional(request)
    return response
