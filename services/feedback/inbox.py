"""Takes ratings from channels. It waits for Redis only, two round trips at most."""

from __future__ import annotations

import logging
from collections.abc import Callable

from services import metrics
from services.errors import StoreUnavailable
from services.feedback.rating_store import RatingStore
from services.feedback.records import NAMES, Outcome, Rating
from services.models import Question
from services.streams.access import Access

log = logging.getLogger(__name__)


class FeedbackInbox:
    """Checks the right to rate an answer, and queues the rating."""

    def __init__(
        self,
        ratings: RatingStore,
        access: Access,
        *,
        wake: Callable[[], None],
        log_content: bool = False,
    ) -> None:
        """`wake` is called when a rating was queued."""
        self._ratings = ratings
        self._access = access
        self._wake = wake
        self._log_content = log_content

    def rate(
        self, stream_id: str, rating: Rating, *, bot: str, principal: str, chat: str = "", running: bool = True
    ) -> Outcome:
        """Take a reader's rating of an answer; `running` tells whether an answer that goes on may be rated.

        Raises:
            StoreUnavailable: Redis is away; the rating may have been taken.
        """
        # The fingerprint of a person does not depend on the question.
        person = self._access.person(Question("", "", bot, principal))
        about = {"stream_id": stream_id, "bot": bot, "person": principal if self._log_content else person}
        try:
            outcome = self._take(stream_id, rating, person, (bot, principal, chat), running)
        except StoreUnavailable as exc:
            self._note(rating, exc.code, about)
            raise
        self._note(rating, outcome, about)
        if outcome == "taken":
            self._wake()
        return outcome

    def _take(
        self, stream_id: str, rating: Rating, person: str, reader: tuple[str, str, str], running: bool
    ) -> Outcome:
        answer = self._ratings.find(stream_id)
        if answer is None or not self._access.allows(answer.access, *reader):
            return "unknown"
        if answer.status == "processing" and not running:
            return "running"
        if not answer.asked:
            return "no_answer"
        sealed = self._access.sealed(Question("", "", reader[0], ""), rating.to_json())
        return self._ratings.add(stream_id, person, rating, sealed)

    def _note(self, rating: Rating, outcome: str, about: dict[str, str]) -> None:
        """Count and log one rating, without its words."""
        name = NAMES[rating.kind]
        if outcome == "taken":
            metrics.FEEDBACK.labels(about["bot"], name).inc()
        else:
            metrics.FEEDBACK_REFUSED.labels(outcome).inc()
        lost = outcome in ("full", StoreUnavailable.code)
        told = {"rating": name, "reasons": list(rating.reasons), "words": bool(rating.content), "outcome": outcome}
        log.log(logging.WARNING if lost else logging.INFO, "feedback", extra={**about, **told})
