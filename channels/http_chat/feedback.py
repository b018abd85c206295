"""The endpoint at which a caller rates an answer of its own."""

from __future__ import annotations

import secrets

from flask import Blueprint, Response, request

from channels.http_chat.ends import refusal
from channels.http_chat.models import ChatRated, ChatRating
from channels.http_chat.requests import checked
from channels.web import rest
from channels.web.envelope import envelope
from channels.web.rest import Operation
from config.bots import DEFAULT_BOT
from config.texts import Texts
from services.feedback.inbox import FeedbackInbox
from services.feedback.records import Outcome, Rating

#: Bytes of the largest request body: the longest words, escaped.
MAX_BYTES = 64 * 1024
#: Error codes by what became of a rating; every other outcome is a success.
CODES: dict[Outcome, str] = {
    "unknown": "stream_unknown",
    "running": "answer_running",
    "no_answer": "not_rateable",
    "full": "feedback_full",
}


def feedback_blueprint(inbox: FeedbackInbox, callers: rest.ProgramChecker, texts: Texts) -> Blueprint:
    """Return POST /api/chat/<stream_id>/feedback."""
    routes = Blueprint("http_chat_feedback", __name__)

    @routes.post("/api/chat/<stream_id>/feedback")
    def rate(stream_id: str) -> Response:
        caller = rest.caller(callers, request)
        asked = rest.body(ChatRating, max_bytes=MAX_BYTES)
        rating = Rating(asked.rating or "", asked.content if asked.rating else "", event_id=secrets.token_hex(8))
        reader = {"bot": DEFAULT_BOT, "principal": caller.principal}
        outcome = inbox.rate(checked(stream_id), rating, **reader, running=False)
        if code := CODES.get(outcome):
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
        answers={200: ChatRated, 404: None, 409: None, 503: None},
    ),
)
