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

from flask import Flask, Response, jsonify, redirect, request
from werkzeug.exceptions import BadRequest, HTTPException, NotFound
from werkzeug.serving import WSGIRequestHandler, make_server

from demo.page.bubble_html import render, split_thinking
from demo.page.cast import DIFY_MODES, PEOPLE
from demo.page.conversations import Conversations
from demo.page.media import SENDS
from demo.wecom.feedback import RATES, Rate
from demo.wecom.picture_rules import media_type
from demo.wecom.samples import photo
from demo.wecom.simulator import BubbleFrame, CallbackFailed, ResponsePost, RuleBroken

PAGES = Path(__file__).parent / "html"
#: Content-Security-Policy: the page loads everything from this server, and markup in an answer can load or run nothing.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; base-uri 'none'"
)
#: Paths of the gateway's pages, which this server redirects to.
GATEWAY_PAGES = ("/chat", "/realtime", "/batch", "/docs")
#: The largest request body, in bytes.
MAX_BODY = 64 * 1024


def create_page(conversations: Conversations, set_mode: Callable[[str], None] | None, *, gateway: str = "") -> Flask:
    """Build the page's application. `set_mode` selects the mock Dify's mode; None if a real Dify answers.

    `gateway` is the gateway's URL; requests for its pages are redirected there.
    """
    app = Flask("demo", static_folder=str(PAGES), static_url_path="")
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY
    modes = DIFY_MODES if set_mode else ()

    @app.get("/")
    def index() -> Response:
        return app.send_static_file("index.html")

    @app.get("/choices")
    def choices() -> Response:
        return jsonify(people=[asdict(person) for person in PEOPLE], modes=[asdict(mode) for mode in modes])

    @app.post("/enter")
    def enter() -> Response:
        welcome = conversations.enter(_choice("user", PEOPLE))
        return jsonify(html=render(welcome))

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

    @app.get("/photo.png")
    def sample() -> Response:
        return Response(photo(), mimetype="image/png")

    _add_bubbles(app, conversations)
    for path in GATEWAY_PAGES if gateway else ():
        app.add_url_rule(path, path, partial(redirect, f"{gateway}{path}"))
    _add_errors(app)
    app.after_request(_guard)
    return app


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

    @app.post("/late")
    def late() -> Response:
        return jsonify(messages=[_message(post) for post in conversations.late(_text("bubble"))])


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


def _shown(frame: BubbleFrame) -> dict[str, Any]:
    thinking, answer = split_thinking(frame.content)
    return {
        "html": render(answer),
        "pictures": [_data_url(picture) for picture in frame.pictures],
        "thinking": render(thinking),
        "finish": frame.finish,
        "bytes": frame.size,
        "at": round(frame.at, 1),
        "ms": round(frame.ms),
        "empty": frame.empty,
        "broken": [str(violation) for violation in frame.broken],
    }


def _data_url(picture: bytes) -> str:
    return f"data:{media_type(picture)};base64,{base64.b64encode(picture).decode()}"


def _message(post: ResponsePost) -> dict[str, Any]:
    return {"html": render(post.content), "bytes": len(post.content.encode()), "broken": list(post.broken)}


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
