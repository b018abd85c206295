"""Serve the page that plays WeCom. The server encrypts and polls the real callback; the browser gets plain JSON."""

from __future__ import annotations

import base64
import socket
import threading
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from flask import Flask, Response, jsonify, redirect, request, send_from_directory
from werkzeug.exceptions import BadRequest, HTTPException, NotFound
from werkzeug.serving import WSGIRequestHandler, make_server

from channels.web.pages.pages import HTML
from demo.page.cards import shown_card
from demo.page.cast import DIFY_MODES, PEOPLE
from demo.page.conversations import Conversations
from demo.page.media import SENDS
from demo.page.messages import message_json
from demo.wecom.feedback import RATES, Rate
from demo.wecom.picture_rules import media_type
from demo.wecom.samples import photo
from demo.wecom.simulator import BubbleFrame, CallbackFailed, RuleBroken
from utils.markdown.blocks import render_markdown

PAGES = Path(__file__).parent / "html"
#: Files that the gateway's pages are made of, too: the looks of answers, and what both kinds of pages do with them.
SHARED = ("theme.css", "answer.css", "preferences.js", "elements.js", "pictures.js", "citations.js", "answer_html.js")
#: Content-Security-Policy: the page loads everything from this server, and markup in an answer can load or run nothing.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; require-trusted-types-for 'script'; trusted-types answers"
)
#: Paths of the gateway's pages, which this server redirects to.
GATEWAY_PAGES = ("/chat", "/realtime", "/batch", "/docs")
#: The largest request body, in bytes.
MAX_BODY = 64 * 1024


def create_page(
    conversations: Conversations,
    set_mode: Callable[[str], None] | None,
    *,
    gateway: str = "",
    push: Callable[[str, str], tuple[str, str]] | None = None,
) -> Flask:
    """Build the page's application. `set_mode` selects the mock Dify's mode; None if a real Dify answers.

    `gateway` is the gateway's URL; requests for its pages are redirected there. `push` sends a text to a person and
    returns the push's state and error; None with callbacks, which have no pushes.
    """
    app = Flask("demo", static_folder=str(PAGES), static_url_path="")
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY
    modes = DIFY_MODES if set_mode else ()

    @app.get("/choices")
    def choices() -> Response:
        people, shown = [asdict(person) for person in PEOPLE], [asdict(mode) for mode in modes]
        return jsonify(people=people, modes=shown, connection="websocket" if push else "callback")

    @app.post("/enter")
    def enter() -> Response:
        welcome = conversations.enter(_choice("user", PEOPLE))
        return jsonify(html=render_markdown(welcome))

    @app.post("/send")
    def send() -> Response:
        userid, text = _choice("user", PEOPLE), _text("text")
        if set_mode:
            set_mode(_choice("mode", modes))
        key, frame = conversations.send(userid, text)
        return jsonify(bubble=key, frame=_shown(frame), rateable=conversations.rateable(key))

    @app.post("/media")
    def media() -> Response:
        userid, kind, words = _choice("user", PEOPLE), _text("kind"), _words("text")
        if kind not in SENDS:
            raise BadRequest("unknown kind")
        if set_mode:
            set_mode(_choice("mode", modes))
        key, frame = conversations.send(userid, words, kind)
        return jsonify(bubble=key, frame=_shown(frame), rateable=conversations.rateable(key))

    _add_files(app)
    _add_bubbles(app, conversations)
    if push:
        _add_pushes(app, conversations, push)
    for path in GATEWAY_PAGES if gateway else ():
        app.add_url_rule(path, path, partial(redirect, f"{gateway}{path}"))
    _add_errors(app)
    app.after_request(_guard)
    return app


def _add_files(app: Flask) -> None:
    @app.get("/")
    def index() -> Response:
        return app.send_static_file("index.html")

    @app.get(f"/shared/<any({','.join(map(repr, SHARED))}):name>")
    def shared(name: str) -> Response:
        return send_from_directory(HTML / "shared", name)

    @app.get("/photo.png")
    def sample() -> Response:
        return Response(photo(), mimetype="image/png")


def _add_bubbles(app: Flask, conversations: Conversations) -> None:
    @app.post("/poll")
    def poll() -> Response:
        try:
            return jsonify(frame=_shown(conversations.poll(_text("bubble"))))
        except KeyError:
            raise NotFound("unknown bubble") from None

    @app.post("/rate")
    def rate() -> Response:
        rating, content, reasons = _rating()
        try:
            conversations.rate(_text("bubble"), rating, content, reasons)
        except KeyError:
            raise NotFound("unknown bubble") from None
        return jsonify(rating=rating)

    @app.post("/click")
    def click() -> Response:
        try:
            key, clicked = conversations.click(_text("bubble"), _text("button"), _selected())
        except LookupError:
            raise NotFound("unknown bubble or button") from None
        broken = [str(violation) for violation in clicked.broken]
        return jsonify(click=key, card=shown_card(clicked.card), broken=broken)

    @app.post("/late")
    def late() -> Response:
        return jsonify(messages=[message_json(each) for each in conversations.late(_text("bubble"))[_count("since") :]])


def _add_pushes(app: Flask, conversations: Conversations, push: Callable[[str, str], tuple[str, str]]) -> None:
    @app.post("/push")
    def send_push() -> Response:
        state, error = push(_choice("user", PEOPLE), _text("text"))
        return jsonify(state=state, error=error)

    @app.post("/pushes")
    def pushes() -> Response:
        found = conversations.pushes(_choice("user", PEOPLE))
        return jsonify(messages=[message_json(each) for each in found[_count("since") :]])


def _add_errors(app: Flask) -> None:
    @app.errorhandler(CallbackFailed)
    def callback_failed(error: CallbackFailed) -> tuple[Response, int]:
        return jsonify(error="refused" if error.status else "unreachable", detail=str(error), status=error.status), 502

    @app.errorhandler(RuleBroken)
    def rule_broken(error: RuleBroken) -> tuple[Response, int]:
        return jsonify(error="rule_broken", detail=str(error)), 502

    @app.errorhandler(HTTPException)
    def http_error(error: HTTPException) -> tuple[Response, int]:
        return jsonify(error="bad_request", detail=error.description), error.code or 500


def _guard(response: Response) -> Response:
    response.headers["Content-Security-Policy"] = POLICY
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Referrer-Policy"] = "no-referrer"
    response.headers["Cache-Control"] = "no-store"
    return response


def _text(name: str) -> str:
    value = _words(name)
    if not value:
        raise BadRequest(f"{name} is missing")
    return value


def _words(name: str) -> str:
    """Return a text of the request, "" for none."""
    body = request.get_json()
    value = body.get(name) if isinstance(body, dict) else None
    if not isinstance(value, str) or not value.strip():
        return ""
    # JSON may contain a lone surrogate, which a message cannot be encoded with.
    return value.encode("utf-8", "replace").decode()


def _count(name: str) -> int:
    """Return a number of messages that the page has already."""
    body = request.get_json()
    count = body.get(name, 0) if isinstance(body, dict) else 0
    if type(count) is not int or count < 0:
        raise BadRequest(f"{name} is no number")
    return count


def _choice(name: str, choices: tuple[Any, ...]) -> str:
    value = _text(name)
    if value not in {choice.id for choice in choices}:
        raise BadRequest(f"unknown {name}")
    return value


def _rating() -> tuple[Rate, str, list[int]]:
    """Return rating, words and reasons of the body."""
    rating, body = _text("rating"), request.get_json()
    content, reasons = body.get("content", ""), body.get("reasons", [])
    listed = isinstance(reasons, list) and all(isinstance(reason, int) for reason in reasons)
    if rating not in RATES or not isinstance(content, str) or not listed:
        raise BadRequest("rating, content or reasons are wrong")
    # `in` does not tell mypy that it is one of them.
    return next(one for one in RATES if one == rating), content.encode("utf-8", "replace").decode(), reasons


def _selected() -> dict[str, list[str]]:
    """Return the ids of the options that are selected, by their lists."""
    selected = request.get_json().get("selected", {})
    if not isinstance(selected, dict) or not all(isinstance(ids, list) for ids in selected.values()):
        raise BadRequest("selected is wrong")
    return {key: [str(each) for each in ids] for key, ids in selected.items()}


def _shown(frame: BubbleFrame) -> dict[str, Any]:
    return {
        "html": render_markdown(frame.content),
        "pictures": [_data_url(picture) for picture in frame.pictures],
        "card": shown_card(frame.card),
        "finish": frame.finish,
        "bytes": frame.size,
        "at": round(frame.at, 1),
        "ms": round(frame.ms),
        "empty": frame.empty,
        "broken": [str(violation) for violation in frame.broken],
    }


def _data_url(picture: bytes) -> str:
    return f"data:{media_type(picture)};base64,{base64.b64encode(picture).decode()}"


class PageServer:
    """A context manager that serves the page on a listening socket, in threads of this process.

    The caller binds the socket, because werkzeug exits the process if the port is in use.
    """

    def __init__(self, app: Flask, listener: socket.socket) -> None:
        host, port = listener.getsockname()[:2]
        self.url = f"http://{host}:{port}"
        self._server = make_server(host, port, app, threaded=True, request_handler=_QuietHandler, fd=listener.fileno())
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self._server.shutdown()
        self._thread.join(5.0)
        self._server.server_close()


class _QuietHandler(WSGIRequestHandler):
    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Log nothing: the terminal shows the demo's output."""
