"""The endpoint at which a caller rates an answer of its own."""

from __future__ import annotations

from flask import Blueprint, Response, request

from channels.http_chat.ends import refusal
from channels.http_chat.models import ChatRated, ChatRating
from channels.http_chat.requests import checked
from channels.options import AskableBots, ChatReader
from channels.rating import RatingInbox
from channels.rating import rate as take
from channels.web import rest
from channels.web.envelope import envelope
from channels.web.rest import Operation
from config.texts import Texts

#: Bytes of the largest request body: the longest words, escaped.
MAX_BYTES = 64 * 1024


def feedback_blueprint(inbox: RatingInbox, bots: AskableBots, callers: rest.ProgramChecker, texts: Texts) -> Blueprint:
    """Return POST /api/chat/<stream_id>/feedback."""
    routes = Blueprint("http_chat_feedback", __name__)

    @routes.post("/api/chat/<stream_id>/feedback")
    def rate(stream_id: str) -> Response:
        caller = rest.caller(callers, request)
        asked = rest.body(ChatRating, max_bytes=MAX_BYTES)
        reader = bots.reader(rest.params(ChatReader), caller)
        if code := take(inbox, checked(stream_id), asked.rating, asked.content, **reader):
            raise refusal(code, texts)
        return envelope({"stream_id": stream_id, "rating": asked.rating})

    return routes


OPERATIONS = (
    Operation(
        "POST",
        "/api/chat/{stream_id}/feedback",
        "Rate an answer, or withdraw the rating, also when the answer itself has expired",
        "chat",
        body=ChatRating,
        query=ChatReader,
        answers={200: ChatRated, 404: None, 409: None, 503: None},
    ),
)
