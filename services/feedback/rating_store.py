"""Ratings in Redis: the answers that can be rated, their ratings, and the queue of those not delivered yet.

    {dify_stream:<id>}:answer      hash: status access asker user_info provider message_id conversation_id mock, as the
                                   stream's hash had them at its end; 7 days from then, or from the last rating
    {dify_feedback}:queue          sorted set of stream ids by the time they are due; at most 10,000
    {dify_feedback}:<id>           hash, by stream id: of each person the time and place (a:), the sealed rating (r:)
                                   and the last event ids (e:); people, seq, saved, sent, tries, since; 8 days from the
                                   last rating

People rate long after the answer's stream has expired. The step that frees what an ended stream held notes the answer
(`note_call`), and so does a rating that comes earlier. The tag of the other two keeps them in one slot of a Redis
Cluster, so that a rating is taken and queued in one step; all replicas share the queue.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from services.feedback.records import Outcome, RatedAnswer, Rating, Ratings
from services.redis.store import Call, ScriptRunner, script
from services.streams.store import stream_keys

QUEUE = "{dify_feedback}:queue"
#: Seconds for which an answer can be rated after its end, and after its last rating.
KEPT_SECONDS = 604_800.0
#: Answers in the queue, and people who rate one answer; more are refused.
MOST_WAITING = 10_000
MOST_PEOPLE = 500
#: Seconds the ratings of an answer live: longer than the note of the answer, so that no replay finds them gone.
TTL = 691_200.0
#: Seconds for which a claimed entry is no other replica's: longer than the waits of one delivery together.
LEASE = 45.0


class ClaimedRatings(NamedTuple):
    """The reply of lua/feedback_claim.lua."""

    #: Seconds since 1970 by Redis's clock.
    now: float
    #: Answers in the queue, this one included.
    waiting: int
    #: "" if none is due.
    stream_id: str
    #: If none is due: seconds until the first one is; infinite for an empty queue.
    wait: float


class RatingStore:
    """Owns the keys above. Every method is one round trip, and raises `StoreUnavailable` when Redis is away."""

    def __init__(self, runner: ScriptRunner, *, most_waiting: int = MOST_WAITING, now: str = "") -> None:
        """`now` is the time that scripts use, in seconds; "" for Redis's own clock."""
        self._runner = runner
        self._most_waiting = most_waiting
        self.now = now

    def find(self, stream_id: str) -> RatedAnswer | None:
        """Return an answer, also a running one; None if it is unknown or ended too long ago."""
        reply = self._runner.run([note_call(stream_id)])[0]
        return RatedAnswer.from_reply(reply) if reply else None

    def add(self, stream_id: str, person: str, rating: Rating, sealed: str) -> Outcome:
        """Take a rating and queue it; `sealed` is its JSON, encrypted."""
        args = (self.now, stream_id, person, rating.at, rating.event_id, sealed, TTL, self._most_waiting, MOST_PEOPLE)
        call = Call(script("feedback_add"), _keys(stream_id), args)
        outcome: Outcome = self._runner.run([call])[0]
        return outcome

    def claim(self) -> ClaimedRatings:
        """Claim the answer that is due first; it is due again after `LEASE` seconds."""
        call = Call(script("feedback_claim"), (QUEUE,), (self.now, LEASE))
        now, waiting, stream_id, wait = self._runner.run([call])[0]
        return ClaimedRatings(float(now), waiting, stream_id, float(wait) if wait else math.inf)

    def load(self, stream_id: str) -> Ratings | None:
        """Return the ratings of an answer; None if there are none any more."""
        fields = self._runner.run([Call(None, ("HGETALL", _keys(stream_id)[0]))])[0]
        return Ratings.from_fields(fields) if fields else None

    def settle(self, stream_id: str, seq: int, *, saved: bool, sent: bool, delay: float) -> bool:
        """Store how far the ratings up to `seq` were delivered; return whether all are.

        If not, the answer is due again in `delay` seconds, or at once if there are later ratings.
        """
        marks = ("1" if saved else "", "1" if sent else "")
        call = Call(script("feedback_settle"), _keys(stream_id), (self.now, stream_id, seq, *marks, delay))
        return bool(self._runner.run([call])[0] == 1)


def note_call(stream_id: str) -> Call:
    """Return the call that notes an answer, unless no provider was asked; its reply is for `RatedAnswer`."""
    keys = (stream_keys(stream_id).hash, f"{{dify_stream:{stream_id}}}:answer")
    return Call(script("feedback_note"), keys, (KEPT_SECONDS,))


def _keys(stream_id: str) -> tuple[str, str]:
    return f"{{dify_feedback}}:{stream_id}", QUEUE
