"""Carries ratings from the queue in Redis to SQL and to the provider, in a thread of each replica.

A failed delivery is repeated after 1, 2, 4 … 300 seconds, for a day; then it is counted and logged as lost, for SQL and
the provider separately. After a failure of SQL or of an app, no answer in the queue is delivered to it for up to a
minute.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

from config.apps import provider_name
from config.errors import LaibaoError
from config.texts import Texts
from services import metrics
from services.errors import AuthError, ProviderError, StoreUnavailable
from services.feedback.rating_store import ClaimedRatings, RatingStore
from services.feedback.records import RatedAnswer, Rating, Ratings, SealedRating
from services.feedback.sql_store import SqlFeedbackStore
from services.models import Question
from services.providers.base import BaseRAGProvider
from services.rounds import Rounds
from services.streams.access import Access

log = logging.getLogger(__name__)

#: Seconds between two looks at the queue, and deliveries between two such pauses.
PAUSE = 5.0
AT_ONCE = 50
#: Seconds after which an undelivered rating is given up.
GIVE_UP_SECONDS = 86_400.0
#: The longest pauses in seconds: between two attempts for one answer, and for SQL or an app that is away.
LONGEST_DELAY, LONGEST_AWAY = 300.0, 60.0
#: Seconds between two deletions of old rows.
EXPIRE_SECONDS = 21_600.0
STOP_SECONDS = 3.0
#: HTTP statuses of a provider's reply that a later attempt may change; 0 is no reply.
MAY_PASS = (0, 200, 401, 403, 408, 429)
#: Codes of an authentication that failed for everybody; ratings wait until it works.
AUTH_AWAY = ("auth_unavailable", "store_refused")

Receiver = Literal["sql", "provider"]


@dataclass(slots=True)
class _Away:
    """A party that failed lately: it is not tried again before `until`."""

    until: float
    pause: float


class FeedbackDelivery:
    """Works off the queue of ratings, together with all other replicas."""

    def __init__(
        self,
        ratings: RatingStore,
        access: Access,
        *,
        sql: SqlFeedbackStore | None,
        providers: Mapping[str, BaseRAGProvider],
        texts: Texts,
        token: Callable[[RatedAnswer], str],
        traced: Callable[[str, RatedAnswer, Rating], None] | None = None,
        give_up: float = GIVE_UP_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take the providers by `provider_name`; without `sql` ratings go to the provider only.

        `token` returns the token of the person who asked, for providers that need it, or raises `AuthError`. `traced`
        records what the provider got, by the stream's id. `give_up` is the seconds after which an undelivered rating is
        given up.
        """
        self._ratings = ratings
        self._access = access
        self._sql = sql
        self._providers = providers
        self._texts = texts
        self._token = token
        self._traced = traced
        self._give_up = give_up
        self._clock = clock
        self._away: dict[str, _Away] = {}
        self._expire_at = clock() + EXPIRE_SECONDS / 6
        self._rounds = Rounds("feedback", self.work, pause=PAUSE)

    def start(self) -> None:
        self._rounds.start()

    def wake(self) -> None:
        """Look at the queue now."""
        self._rounds.wake()

    def close(self) -> None:
        """End the thread; another replica later delivers the ratings that it has claimed."""
        self._rounds.stop()
        self._rounds.join(STOP_SECONDS)
        if self._sql:
            self._sql.close()

    def work(self) -> float:
        """Deliver the ratings that are due; return the seconds until the next call.

        Raises:
            StoreUnavailable: Redis is away.
        """
        self._expire()
        for _ in range(AT_ONCE):
            claimed = self._ratings.claim()
            metrics.FEEDBACK_WAITING.set(claimed.waiting)
            if not claimed.stream_id:
                return min(PAUSE, claimed.wait)
            self._try(claimed)
        return 0.0

    def _try(self, claimed: ClaimedRatings) -> None:
        """Deliver an answer's ratings; an unreadable one must not keep others from being delivered."""
        try:
            self._deliver(claimed)
        except StoreUnavailable:
            raise
        except Exception:
            log.exception("feedback failed", extra={"stream_id": claimed.stream_id})
            self._ratings.settle(claimed.stream_id, 0, saved=False, sent=False, delay=LONGEST_DELAY)

    def _deliver(self, claimed: ClaimedRatings) -> None:
        stream_id, ratings = claimed.stream_id, self._ratings.load(claimed.stream_id)
        answer = self._ratings.find(stream_id) if ratings else None
        if ratings is None or answer is None:
            self._lose("provider", stream_id, "the answer has expired")
            self._ratings.settle(stream_id, ratings.seq if ratings else 0, saved=True, sent=True, delay=0.0)
            return
        over = claimed.now - ratings.since > self._give_up
        saved = ratings.saved >= ratings.seq or self._saved(stream_id, answer, ratings, over)
        sent = ratings.sent >= ratings.seq
        if not sent:
            sent = self._sent(stream_id, answer, ratings, over)
            if sent and self._traced and answer.trace.is_sampled:
                self._traced(stream_id, answer, self._latest(answer, ratings))
        delay = min(2.0 ** min(ratings.tries, 16), LONGEST_DELAY)
        self._ratings.settle(stream_id, ratings.seq, saved=saved, sent=sent, delay=delay)

    def _saved(self, stream_id: str, answer: RatedAnswer, ratings: Ratings, over: bool) -> bool:
        """Store the ratings that SQL lacks; return whether there is nothing more to do."""
        sql = self._sql
        if sql is None:
            return True
        rows = [(one.person, one.seq, self._opened(answer, one)) for one in ratings.people if one.seq > ratings.saved]

        return self._done("sql", "sql", stream_id, partial(sql.save, stream_id, answer, rows), over)

    def _sent(self, stream_id: str, answer: RatedAnswer, ratings: Ratings, over: bool) -> bool:
        """Send the provider the answer's rating; return whether there is nothing more to do."""
        name = provider_name(answer.bot, answer.app)
        provider = self._providers.get(name)
        if provider is None or not provider.takes_ratings or provider.name != answer.provider or answer.mock:
            return True
        if not answer.message_id:
            # A running answer gets its message id from the provider; one that failed early never has one.
            return over or answer.status != "processing"
        rating = self._latest(answer, ratings)
        reasons = [self._texts.get(f"feedback_reason_{number}") for number in rating.reasons if number in REASONS]
        words = "\n".join(filter(None, (rating.content, *reasons)))

        def send() -> None:
            token = self._token(answer) if provider.sends_user_tokens else ""
            provider.rate(answer.message_id, answer.user, rating.kind, words, token=token)

        return self._done("provider", f"provider:{name}", stream_id, send, over)

    def _done(self, target: Receiver, party: str, stream_id: str, deliver: Callable[[], None], over: bool) -> bool:
        """Deliver; return False where it has to be tried again."""
        away = self._away.get(party)
        if away and self._clock() < away.until and not over:
            return False
        try:
            deliver()
        except (ProviderError, AuthError, StoreUnavailable) as exc:
            if _may_pass(exc) and not over:
                self._note_away(target, party, exc, away)
                return False
            self._lose(target, stream_id, f"{exc.code}: {exc}")
            return True
        except Exception:
            # A plug-in may raise any exception.
            log.exception("feedback failed", extra={"stream_id": stream_id})
            self._lose(target, stream_id, "unexpected")
            return True
        self._away.pop(party, None)
        metrics.FEEDBACK_DELIVERED.labels(target, "done").inc()
        return True

    def _note_away(self, target: Receiver, party: str, error: LaibaoError, away: _Away | None) -> None:
        pause = min(2 * away.pause, LONGEST_AWAY) if away else 1.0
        asked = error.retry_after if isinstance(error, ProviderError) else 0.0
        self._away[party] = _Away(self._clock() + max(pause, min(asked, LONGEST_AWAY)), pause)
        metrics.FEEDBACK_DELIVERED.labels(target, "retried").inc()
        if away is None:
            log.warning("feedback waits", extra={"target": party, "cause": f"{error.code}: {error}"})

    def _lose(self, target: Receiver, stream_id: str, cause: str) -> None:
        metrics.FEEDBACK_DELIVERED.labels(target, "lost").inc()
        log.error("feedback lost", extra={"stream_id": stream_id, "target": target, "cause": cause})

    def _latest(self, answer: RatedAnswer, ratings: Ratings) -> Rating:
        """Return the rating for the provider: the last one of any person that was not withdrawn, else a withdrawal.

        The provider takes one rating of an answer, in the name of the person who asked.
        """
        opened = [self._opened(answer, one) for one in sorted(ratings.people, key=lambda one: (one.at, one.seq))]
        return next((rating for rating in reversed(opened) if rating.kind), Rating(""))

    def _opened(self, answer: RatedAnswer, one: SealedRating) -> Rating:
        """Decrypt a rating; without its key it counts as withdrawn."""
        try:
            text = self._access.unsealed(Question("", "", answer.bot, ""), one.sealed)
            return Rating.from_json(text, one.at)
        except (ValueError, KeyError, TypeError):
            log.warning("a rating cannot be decrypted", extra={"bot": answer.bot, "person": one.person})
            return Rating("", at=one.at)

    def _expire(self) -> None:
        """Delete old rows a few times a day; a failure is tried again at the next time."""
        if self._sql is None or self._clock() < self._expire_at:
            return
        self._expire_at = self._clock() + EXPIRE_SECONDS
        try:
            while count := self._sql.expire():
                log.info("feedback removed", extra={"rows": count})
        except StoreUnavailable as exc:
            # The table may not exist yet.
            log.debug("feedback not removed", extra={"cause": str(exc)})


#: WeCom's numbers of reasons that have a sentence.
REASONS = range(1, 5)


def _may_pass(error: Exception) -> bool:
    """Return whether a later attempt may succeed."""
    if isinstance(error, ProviderError):
        return error.http_status in MAY_PASS or error.http_status >= 500
    return isinstance(error, StoreUnavailable) or (isinstance(error, AuthError) and error.code in AUTH_AWAY)
