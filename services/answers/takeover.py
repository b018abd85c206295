"""Takes over the streams of lost owners. A poll, a reader or the sweep that every replica runs finds them.

The first replica that finds a lapsed lease marks the stream as suspect. Once the mark is old enough, exactly one of the
replicas that try becomes the owner (lua/takeover.lua). The mark protects healthy owners during an outage of Redis: the
owner's next write that succeeds removes it.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable

from services import metrics
from services.answers.answer import Answerer
from services.answers.quotas import SETTLED_BY
from services.conversations.memory import through_outage
from services.errors import StoreUnavailable
from services.models import Question
from services.streams.manager import StreamManager, is_whole
from services.streams.records import NewStream, Takeover, taken_stream
from services.streams.store import StreamStore

log = logging.getLogger(__name__)

#: Owners a stream may lose before its question is not asked any more, and before the stream is ended. In between the
#: answer is only looked up. The limits end a question that kills its owners. Handovers do not count.
MAX_TAKEOVERS = 5
MAX_LOOK_UPS = 8
#: Seconds a closing replica waits for its sweep to end.
STOP_SECONDS = 2.0


class TakeoverManager:
    """Looks for lapsed streams, and has this replica's manager continue those that it takes over."""

    def __init__(
        self,
        store: StreamStore,
        manager: StreamManager,
        answerer: Answerer,
        *,
        dice: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._store = store
        self._manager = manager
        self._answerer = answerer
        self._dice = dice
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sweep", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(STOP_SECONDS)

    def attempt(self, stream_id: str) -> str:
        """Mark a lapsed stream as suspect, or take it over when the mark is old enough; return the script's outcome.

        The outcomes are those of lua/takeover.lua. Nothing is tried, and "" returned, where this replica drains, is
        full, or writes the stream itself: the owner renews its lease or is refused with its next write.

        Raises:
            StoreUnavailable: Redis is away. If the script took the stream over, the new lease lapses in turn.
        """
        if self._manager.owns(stream_id) or self._manager.reserve():
            return ""
        going_on, owner = False, self._manager.new_owner()
        try:
            taken = self._store.takeover(stream_id, owner)
            if taken.outcome == "taken":
                metrics.TAKEOVERS.labels(taken.kind).inc()
                self._manager.start_thread(self._go_on, stream_id, owner, taken)
                going_on = True
            return taken.outcome
        finally:
            if not going_on:
                self._manager.give_back()

    def sweep(self) -> bool:
        """Try every indexed stream whose lease is over; return whether one of them is suspect now.

        Raises:
            StoreUnavailable: Redis is away.
        """
        suspects = False
        for stream_id in self._store.lapsed():
            # A failure of one stream, or of its Redis node, must not keep the others from being swept.
            try:
                outcome = self.attempt(stream_id)
                if outcome in ("ended", "gone"):
                    self._forget(stream_id)
                suspects = suspects or outcome == "suspect"
            except StoreUnavailable:
                log.debug("stream not swept", extra={"stream_id": stream_id})
            except Exception:
                log.exception("stream not swept", extra={"stream_id": stream_id})
        return suspects

    def _run(self) -> None:
        """Sweep about once a lease, at random moments; sooner when a suspect stream can be taken over sooner."""
        lease = self._store.lease
        pause = self._dice(0.0, lease)
        while not self._stopping.wait(pause):
            pause = self._dice(0.8, 1.2) * lease
            try:
                if self.sweep():
                    pause = min(pause, lease / 3 + 1 + self._dice(0.1, 0.5))
            except StoreUnavailable:
                log.debug("no sweep without redis")
            except Exception:
                log.exception("sweep failed")

    def _forget(self, stream_id: str) -> None:
        """Release the slot and the queue position of an ended stream whose owner was killed; remove it from the index.

        While its owner may be sending a late message, the stream stays there.
        """
        fields = self._store.fields(stream_id, "question", *SETTLED_BY)
        question = _question(fields["question"])
        after = [
            *self._answerer.leave_calls(question, stream_id),
            *self._answerer.quotas.settle_calls(stream_id, fields.get),
        ]
        claim, owner = self._store.look_at_claim(stream_id)
        if claim == "lost":
            metrics.LATE_ANSWERS.labels("lost").inc()
            log.error("late answer lost", extra={"stream_id": stream_id, "bot": question.bot, "former_owner": owner})
        ended = () if claim == "waiting" else self._store.ended_calls([stream_id])
        self._store.write([], *after, *ended)

    def _go_on(self, stream_id: str, owner: str, taken: Takeover) -> None:
        """Load the stream and produce the rest; from `resume` on, the manager releases the replica's slot."""
        try:
            fields, chunks = through_outage(lambda: self._store.load(stream_id))
            new = taken_stream(stream_id, owner, taken, fields, chunks, self._store.max_seconds)
            question = _question(fields.get("question", ""))
            known = self._answerer.knows(question, fields.get("app", ""))
            after = self._answerer.leave_calls(question, stream_id)
        except Exception:
            # The stream's lease lapses in turn, unless the stream has expired.
            log.exception("stream not gone on with", extra={"stream_id": stream_id, **_owners(owner, taken)})
            self._manager.give_back()
            return
        about = {"stream_id": stream_id, **self._manager.about(fields.get("access", ""), question)}
        log.warning("stream taken over", extra={**about, "kind": taken.kind, **_owners(owner, taken)})
        self._manager.resume(
            new,
            question,
            former_owner=taken.former_owner,
            seconds_left=taken.seconds_left,
            ending=_ending(new, taken, known=known),
            may_ask=taken.takeovers < MAX_TAKEOVERS,
            after=after,
        )


def _ending(stream: NewStream, taken: Takeover, *, known: bool) -> str | None:
    """Return the code that a taken stream ends with at once, "" for a whole answer; None where it is continued.

    A question of a bot, channel or app that this replica lacks (`known` is False) ends as interrupted.
    """
    if is_whole(stream):
        return ""
    if taken.seconds_left <= 0:
        return "answer_timeout"
    most = MAX_TAKEOVERS if stream.fields.get("asks") == "0" else MAX_LOOK_UPS
    return None if known and taken.takeovers < most else "interrupted"


def _owners(owner: str, taken: Takeover) -> dict[str, object]:
    return {"owner": owner, "former_owner": taken.former_owner, "epoch": taken.epoch}


def _question(written: str) -> Question:
    """Return a stream's question; where it cannot be read, a question of no bot and no channel."""
    try:
        return Question.from_json(written)
    except (KeyError, ValueError, TypeError):
        return Question("", "unknown", "", "")
