"""One item of a batch, put to the gateway and followed to its end, by whichever replica works its lane at the moment.

Its stream's id is made of task, index and attempt: asked again, on any replica, an attempt finds its stream. So whoever
gives up in the middle (its lane is another's, the replica leaves or dies) leaves nothing behind that is asked twice.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from config.bots import DEFAULT_BOT
from services.answers.gateway import Gateway
from services.batches.records import Claimed, Order
from services.errors import StoreUnavailable, StreamUnknown
from services.models import Question
from services.streams.following import Following
from services.streams.records import Snapshot, Whole

log = logging.getLogger(__name__)

#: Seconds between two looks at whether the item is still to be followed, and between tries of what failed.
LOOK = 0.5
#: Seconds this replica may refuse an item, for want of room, until others get a chance.
REFUSED_SECONDS = 5.0
#: Seconds a cancelled stream's owner is given to let go of the provider before the lane goes on.
LET_GO = 0.3

#: What may be gone at the next try. What is wrong with the question, the key or the app is not.
RETRYABLE = frozenset(
    (
        *("provider_busy", "provider_unreachable", "provider_timeout", "provider_error", "provider_truncated"),
        *("interrupted", "store_unavailable", "auth_unavailable", "replica_full", "draining"),
    )
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an item's attempt ended: with an answer, or with a code and what there was of an answer."""

    code: str = ""
    content: str = field(default="", repr=False)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    sources: tuple[Mapping[str, Any], ...] = ()
    usage: Mapping[str, Any] = field(default_factory=dict)
    #: Seconds for which the provider wants to be left alone; 0.0 where it did not say.
    retry_after: float = 0.0

    @classmethod
    def of(cls, whole: Whole) -> Outcome:
        """Return what an ended stream comes to."""
        metadata = {**whole.metadata, "mock": True} if whole.mock else whole.metadata
        if whole.status == "completed":
            return cls("", whole.text, metadata, whole.sources, whole.usage.figures())
        code = whole.error_code or "answer_failed"
        return cls(code, whole.text, metadata, whole.sources, whole.usage.known, whole.retry_after)

    @property
    def said(self) -> dict[str, Any]:
        """What there was of an answer, by the names that the store has for it."""
        return {name: getattr(self, name) for name in ("content", "metadata", "sources", "usage")}

    @property
    def retryable(self) -> bool:
        return self.code in RETRYABLE


def question_of(order: Order, index: int, attempt: int, text: str = "") -> Question:
    """Return the question of an item's attempt; without its text it is enough to find the stream."""
    return Question(
        text,
        "batch",
        DEFAULT_BOT,
        order.owner,
        msgid=f"{order.task_id}/{index}/{attempt}",
        inputs=order.options.inputs,
        credential=order.credential,
    )


class ItemAsker:
    """Asks items by the gateway; one for the process, safe in many threads."""

    def __init__(
        self,
        gateway: Gateway,
        *,
        sleep: Callable[[float], object] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._gateway = gateway
        self._sleep = sleep
        self._clock = clock

    def ask(
        self, claimed: Claimed, *, going_on: Callable[[], bool], opened: Callable[[str], None] = lambda _: None
    ) -> Outcome | None:
        """Ask the item and wait for its end; None when it is no longer `going_on` here, and goes on without us.

        `opened` is told its stream.
        """
        question = question_of(claimed.task, claimed.index, claimed.attempt, claimed.text)
        snapshot = self._open(question, going_on)
        if snapshot is None:
            return None
        opened(snapshot.stream_id)
        person = question.principal
        following = self._gateway.follow(snapshot.stream_id, bot=question.bot, principal=person, text=False)
        try:
            whole = self._followed(following, going_on)
        except StreamUnknown:
            # Redis has lost it, and its owner too.
            return Outcome("interrupted")
        if whole and whole.status == "cancelled":
            self._sleep(LET_GO)
        return Outcome.of(whole) if whole else None

    def cancel(self, order: Order, stream_id: str) -> None:
        """End an item's stream, and have the provider told; raises `StoreUnavailable`."""
        self._gateway.cancel(stream_id, bot=DEFAULT_BOT, principal=order.owner)

    def cancel_attempt(self, order: Order, index: int, attempt: int) -> None:
        """The same by the attempt, wherever it runs, if its stream is there already; raises `StoreUnavailable`."""
        if snapshot := self._gateway.find(question_of(order, index, attempt)):
            self.cancel(order, snapshot.stream_id)

    def _open(self, question: Question, going_on: Callable[[], bool]) -> Snapshot | None:
        """Open or find the question's stream; None where it is given up, or this replica has had no room for a while.

        An outage of Redis is waited through.
        """
        began = self._clock()
        while going_on():
            snapshot = self._gateway.ask(question)
            # A refusal has no readers: nothing was opened.
            if snapshot.access:
                return snapshot
            if snapshot.error_code != "store_unavailable" and self._clock() - began > REFUSED_SECONDS:
                return None
            self._sleep(LOOK)
        return None

    def _followed(self, following: Following, going_on: Callable[[], bool]) -> Whole | None:
        """Follow the stream to its end, and return it whole; None where it is given up."""
        ended = False
        while going_on():
            try:
                if ended:
                    return following.whole().complete()
                news = following.next(LOOK)
                ended = bool(news and news.ended)
            except StoreUnavailable:
                self._sleep(LOOK)
        return None
