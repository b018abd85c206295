"""Takes a reader's rating of an answer, for the chat socket and `POST /api/chat/<stream_id>/feedback`."""

from __future__ import annotations

import secrets
from typing import Literal, Protocol

from services.feedback.records import Outcome, Rating

#: Maximum characters of a reader's comment on an answer.
MAX_WORDS = 2000
#: Error codes by the outcome of a rating; every other outcome is a success.
CODES: dict[Outcome, str] = {
    "unknown": "stream_unknown",
    "running": "answer_running",
    "no_answer": "not_rateable",
    "full": "feedback_full",
}


class RatingInbox(Protocol):
    """The part of `services.feedback.inbox.FeedbackInbox` that channels use."""

    def rate(self, stream_id: str, rating: Rating, *, bot: str, principal: str, running: bool) -> Outcome: ...


def rate(
    inbox: RatingInbox, stream_id: str, kind: Literal["like", "dislike"] | None, words: str, *, bot: str, principal: str
) -> str:
    """Rate an answer; None withdraws. Return an error's code, "" when the rating was accepted.

    Raises:
        StoreUnavailable: Redis is away; the rating may have been accepted.
    """
    rating = Rating(kind or "", words if kind else "", event_id=secrets.token_hex(8))
    return CODES.get(inbox.rate(stream_id, rating, bot=bot, principal=principal, running=False), "")
