"""Takes ratings from channels. It waits for Redis only, two round trips at most.

WeCom sends the event of a rating once, whatever becomes of it. While Redis is away such ratings are kept in this
process, and queued when Redis is back; a process that is killed meanwhile loses them.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from services import metrics
from services.errors import STORE_CODES, StoreUnavailable
from services.feedback.rating_store import RatingStore
from services.feedback.records import NAMES, Outcome, Rating
from services.models import Question
from services.rounds import Rounds
from services.streams.access import Access

log = logging.getLogger(__name__)

#: Ratings that one process keeps while Redis is away; a further one is lost, logged and counted.
MAX_KEPT_RATINGS = 1000
#: Seconds between two attempts to queue them, until a look while there are none, and for the last attempt of a leaving
#: process.
PAUSE, IDLE, STOP_SECONDS = 1.0, 3600.0, 3.0


@dataclass(frozen=True, slots=True)
class _Given:
    """A rating with its reader."""

    stream_id: str
    rating: Rating
    bot: str
    principal: str
    chat: str
    #: Whether an answer that goes on may be rated.
    running: bool


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
        # Guards `_kept`; held briefly.
        self._lock = threading.Lock()
        self._kept: deque[_Given] = deque()
        self._rounds = Rounds("feedback-kept", self.take_kept, pause=PAUSE)

    def start(self) -> None:
        self._rounds.start()

    def close(self) -> None:
        """End the thread; ratings that Redis does not take now are lost."""
        self._rounds.stop()
        self._rounds.join(STOP_SECONDS)
        if self._kept:
            metrics.FEEDBACK_REFUSED.labels(StoreUnavailable.code).inc(len(self._kept))
            metrics.FEEDBACK_KEPT.set(0)
            log.error("kept feedback lost", extra={"count": len(self._kept)})

    def rate(
        self,
        stream_id: str,
        rating: Rating,
        *,
        bot: str,
        principal: str,
        chat: str = "",
        running: bool = True,
        keep: bool = False,
    ) -> Outcome:
        """Take a reader's rating of an answer; `running` tells whether an answer that goes on may be rated.

        `keep`: the rating comes only once. While Redis is away it is "kept", up to `MAX_KEPT_RATINGS` of them.

        Raises:
            StoreUnavailable: Redis is away; the rating may have been taken.
        """
        given = _Given(stream_id, rating, bot, principal, chat, running)
        try:
            return self._taken(given)
        except StoreUnavailable as exc:
            if keep and self._keep(given):
                self._note(given, "kept")
                self._rounds.wake()
                return "kept"
            self._note(given, exc.code)
            raise

    def take_kept(self) -> float:
        """Queue the ratings that were kept; return the seconds until the next call.

        Raises:
            StoreUnavailable: Redis is still away.
        """
        while given := self._first_kept():
            try:
                self._taken(given)
            except StoreUnavailable:
                self._keep(given, first=True)
                raise
        return IDLE

    def _keep(self, given: _Given, *, first: bool = False) -> bool:
        with self._lock:
            if len(self._kept) >= MAX_KEPT_RATINGS and not first:
                return False
            self._kept.appendleft(given) if first else self._kept.append(given)
            metrics.FEEDBACK_KEPT.set(len(self._kept))
            return True

    def _first_kept(self) -> _Given | None:
        with self._lock:
            given = self._kept.popleft() if self._kept else None
            metrics.FEEDBACK_KEPT.set(len(self._kept))
            return given

    def _taken(self, given: _Given) -> Outcome:
        outcome = self._take(given)
        self._note(given, outcome)
        if outcome == "taken":
            self._wake()
        return outcome

    def _take(self, given: _Given) -> Outcome:
        answer = self._ratings.find(given.stream_id)
        if answer is None or not self._access.allows(answer.access, given.bot, given.principal, given.chat):
            return "unknown"
        if answer.status == "processing" and not given.running:
            return "running"
        if not answer.asked:
            return "no_answer"
        sealed = self._access.sealed(Question("", "", given.bot, ""), given.rating.to_json())
        return self._ratings.add(given.stream_id, self._person(given), given.rating, sealed)

    def _person(self, given: _Given) -> str:
        # The fingerprint of a person does not depend on the question.
        return self._access.person(Question("", "", given.bot, given.principal))

    def _note(self, given: _Given, outcome: str) -> None:
        """Count and log one rating, without its words."""
        rating, name = given.rating, NAMES[given.rating.kind]
        if outcome == "taken":
            metrics.FEEDBACK.labels(given.bot, name).inc()
        elif outcome != "kept":
            metrics.FEEDBACK_REFUSED.labels(outcome).inc()
        person = given.principal if self._log_content else self._person(given)
        about = {"stream_id": given.stream_id, "bot": given.bot, "person": person}
        lost = outcome == "full" or outcome in STORE_CODES
        fields = {"rating": name, "reasons": list(rating.reasons), "words": bool(rating.content), "outcome": outcome}
        log.log(logging.WARNING if lost else logging.INFO, "feedback", extra={**about, **fields})
