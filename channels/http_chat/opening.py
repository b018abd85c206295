"""The endpoint that tells a page how to begin: the app's opening statement, its questions, and what files it takes."""

from __future__ import annotations

from flask import Blueprint, Response, request

from channels.asking import MAX_FILES
from channels.http_chat.models import ChatOpening
from channels.web import rest
from channels.web.envelope import envelope
from channels.web.rest import Operation
from services.answers.extras import KeptOpening
from services.files.uploads import FileUploads
from utils.markdown.blocks import render_markdown


def opening_blueprint(opening: KeptOpening, uploads: FileUploads, callers: rest.ProgramChecker) -> Blueprint:
    """Return GET /api/chat/opening."""
    routes = Blueprint("http_chat_opening", __name__)

    # Its address is also that of an answer: what is said of OPTIONS would have the methods of both.
    @routes.get("/api/chat/opening", provide_automatic_options=False)
    def show() -> Response:
        rest.caller(callers, request)
        shown = opening.current()
        words = {"opening": shown.statement, "html": render_markdown(shown.statement)}
        files = {"allowed": uploads.takes_files, "max_bytes": uploads.max_bytes, "max_files": MAX_FILES}
        return envelope({**words, "suggested_questions": list(shown.questions), "files": files})

    @routes.route("/api/chat/opening", methods=["OPTIONS"])
    def options() -> Response:
        return Response(headers={"Allow": "GET, HEAD, OPTIONS"})

    return routes


OPERATIONS = (
    Operation(
        "GET",
        "/api/chat/opening",
        "Show how the app opens a chat, and which files it takes",
        "chat",
        answers={200: ChatOpening},
        description="Kept for five minutes. The opening is empty for providers without one, and while they fail.",
    ),
)
