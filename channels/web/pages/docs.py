"""The page for developers: lists WeCom's addresses, sockets and pages, lets them try REST, and serves both schemas."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from flask import Blueprint, Flask, Response, abort, current_app, request

from channels.web.openapi.document import document
from channels.web.pages.pages import HTML, RenderedPage, page_reply, render_page
from channels.web.rest import Operation
from config.texts import Texts

#: JSON Schema 2020-12 of every frame of both WebSocket channels.
FRAMES = Path(__file__).with_name("schema") / "websocket.json"
#: The package that contains Swagger UI's files; none of its Python code is run.
UI_PACKAGE = "flask_openapi3_swagger"
UI_FILES = ("templates/swagger/js/swagger-ui-bundle.js", "templates/swagger/css/swagger-ui.css")

#: One year, the longest lifetime that caches respect.
CACHE = "public, max-age=31536000, immutable"
#: Characters of the digest in a name.
DIGITS = 16

_MEDIA = {".js": "text/javascript", ".css": "text/css"}

OPERATIONS = (
    Operation("GET", "/openapi.json", "The OpenAPI 3.1 document of the REST addresses", "operations", auth="none",
              answers={200: None}, media={200: "application/json"}),
)  # fmt: skip


class ListedAddress(NamedTuple):
    """One row of the page: a method or WS, a path, and the key of its description in docs/words.js."""

    method: str
    path: str
    text: str
    #: Whether it can be opened in a browser.
    opens: bool = False


@dataclass(frozen=True, slots=True)
class Asset:
    """One file, ready to be sent."""

    content: bytes
    media: str

    def reply(self) -> Response:
        reply = Response(self.content, mimetype=self.media)
        reply.headers["Cache-Control"] = CACHE
        reply.headers["X-Content-Type-Options"] = "nosniff"
        return reply


class Assets:
    """A set of static files that browsers may cache for ever: each name contains a digest of the content."""

    def __init__(self, paths: Iterable[Path]) -> None:
        contents = {path: path.read_bytes() for path in paths}
        #: The served name of each file by its name on disk.
        self.names: Mapping[str, str] = {path.name: _name(path, content) for path, content in contents.items()}
        self._served = {self.names[path.name]: Asset(contents[path], _MEDIA[path.suffix]) for path in contents}

    def find(self, name: str) -> Asset | None:
        return self._served.get(name)


def _name(path: Path, content: bytes) -> str:
    return f"{path.stem}-{sha256(content).hexdigest()[:DIGITS]}{path.suffix}"


def addresses(realtime_path: str) -> tuple[ListedAddress, ...]:
    """Return the addresses that are not in the OpenAPI document: WeCom's, sockets and pages."""
    return (
        ListedAddress("GET", "/wechat/callback", "verifies"),
        ListedAddress("POST", "/wechat/callback", "messages"),
        ListedAddress("GET", "/wechat/callback/<bot>", "verifiesNamed"),
        ListedAddress("POST", "/wechat/callback/<bot>", "messagesNamed"),
        ListedAddress("WS", "/ws/chat", "chatSocket"),
        ListedAddress("WS", "/ws/chat/<client_id>", "chatSocketNamed"),
        ListedAddress("WS", realtime_path, "realtimeSocket"),
        ListedAddress("GET", "/chat", "chatPage", opens=True),
        ListedAddress("GET", "/realtime", "realtimePage", opens=True),
        ListedAddress("GET", "/batch", "batchPage", opens=True),
        ListedAddress("GET", "/admin", "adminPage", opens=True),
        ListedAddress("GET", "/docs", "docsPage"),
        ListedAddress("GET", "/docs/assets/<name>", "docsFiles"),
        ListedAddress("GET", "/docs/websocket.json", "socketSchema", opens=True),
    )


def operations_of(app: Flask) -> tuple[Operation, ...]:
    """Return the OPERATIONS of every module with a registered blueprint, in the order of registration."""
    modules = dict.fromkeys(blueprint.import_name for blueprint in app.blueprints.values())
    return tuple(operation for name in modules for operation in getattr(sys.modules[name], "OPERATIONS", ()))


def docs_blueprint(
    *, name: str, version: str, realtime_path: str, texts: Texts, open_to_all: bool = False
) -> Blueprint:
    """Return /docs and its assets, /docs/websocket.json and /openapi.json; with `open_to_all` REST needs no key."""
    routes = Blueprint("docs", __name__, template_folder=str(HTML))
    frames = FRAMES.read_bytes()
    assets = cache(_assets)

    @cache
    def page() -> RenderedPage:
        listed = addresses(realtime_path)
        values = {"app_name": name, "version": version, "addresses": listed, "assets": assets().names}
        return render_page("docs/docs.html", texts=texts, own_files=True, **values)

    @cache
    def openapi() -> str:
        listed = operations_of(current_app)
        made = document(listed, name=name, version=version, open_to_all=open_to_all)
        return json.dumps(made, ensure_ascii=False)

    @routes.get("/docs")
    def show() -> Response:
        return page_reply(page())

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


def _secured(response: Response) -> Response:
    """Keep browsers from showing a document as anything but text, and let them revalidate it each time."""
    response.headers["Content-Security-Policy"] = "default-src 'none'; frame-ancestors 'none'"
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Referrer-Policy"] = "no-referrer"
    response.headers["Cache-Control"] = "no-cache"
    response.add_etag()
    response.make_conditional(request)
    return response
