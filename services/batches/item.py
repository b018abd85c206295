"""One item of a batch: asked through the gateway and followed to its end, by the replica that holds its lane.

Its stream's id is made of task, index and attempt: an attempt that is asked again, on any replica, finds its stream. So
a replica that stops in the middle (it lost the lane, leaves or dies) leaves nothing behind that would be asked twice.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from config.bots import DEFAULT_BOT
from services.answers.gateway import Gateway
from services.batches.records import Claimed, Input, Order
from services.errors import STORE_CODES, StoreUnavailable, StreamUnknown
from services.models import Question
from services.streams.following import Following
from services.streams.long_text import FullAnswer
from services.streams.records import Snapshot

log = logging.getLogger(__name__)

#: Seconds between two checks whether to continue with the item, and between attempts after an error.
LOOK = 0.5
#: Seconds for which this replica may reject an item because it is full, before the lane is released to others.
REFUSED_SECONDS = 5.0
#: Seconds that a cancelled stream's owner has to close its request to the provider before the lane continues.
CANCEL_SECONDS = 0.3

#: Errors that the next attempt may not have. Errors of the question, the key or the app are not among them.
RETRYABLE = frozenset(
    (
        *("provider_busy", "provider_unreachable", "provider_timeout", "provider_error", "provider_truncated"),
        *("interrupted", "store_unavailable", "auth_unavailable", "replica_full", "draining"),
    )
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of an item's attempt: an answer, or an error code and a partial answer."""

    code: str = ""
    content: str = field(default="", repr=False)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    sources: tuple[Mapping[str, Any], ...] = ()
    usage: Mapping[str, Any] = field(default_factory=dict)
    #: Seconds that the provider asks to wait; 0.0 without `Retry-After`.
    retry_after: float = 0.0

    @classmethod
    def of(cls, full: FullAnswer) -> Outcome:
        """Return the result of an ended stream."""
        metadata = {**full.metadata, "mock": True} if full.mock else full.metadata
        if full.status == "completed":
            return cls("", full.text, metadata, full.sources, full.usage.figures())
        code = full.error_code or "answer_failed"
        return cls(code, full.text, metadata, full.sources, full.usage.known, full.retry_after)

    @property
    def answer(self) -> dict[str, Any]:
        """The answer or partial answer, with the keywords of the store."""
        return {name: getattr(self, name) for name in ("content", "metadata", "sources", "usage")}

    @property
    def retryable(self) -> bool:
        return self.code in RETRYABLE


def question_of(
    order: Order, index: int, attempt: int, text: str = "", inputs: Mapping[str, Input] | None = None
) -> Question:
    """Return the question of an item's attempt; without `text` and `inputs` it is enough to find the stream."""
    return Question(
        text,
        "batch",
        DEFAULT_BOT,
        order.owner,
        msgid=f"{order.task_id}/{index}/{attempt}",
        inputs={**order.options.inputs, **(inputs or {})},
        credential=order.credential,
    )


class ItemAsker:
    """Asks items through the gateway; one per process, safe in threads."""

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
        """Ask the item and wait for its end; None if `going_on` became false or this replica stayed full.

        `opened` gets the stream's id.
        """
        question = question_of(claimed.task, claimed.index, claimed.attempt, claimed.text, claimed.inputs)
        snapshot = self._open(question, going_on)
        if snapshot is None:
            return None
        opened(snapshot.stream_id)
        person = question.principal
        following = self._gateway.follow_end(snapshot.stream_id, bot=question.bot, principal=person)
        try:
            full = self._followed(following, going_on)
        except StreamUnknown:
            # Redis lost the stream, and its owner is gone.
            return Outcome("interrupted")
        if full and full.status == "cancelled":
            self._sleep(CANCEL_SECONDS)
        return Outcome.of(full) if full else None

    def cancel(self, order: Order, stream_id: str) -> None:
        """Cancel an item's stream, also at the provider; raises `StoreUnavailable`."""
        self._gateway.cancel(stream_id, bot=DEFAULT_BOT, principal=order.owner)

    def cancel_attempt(self, order: Order, index: int, attempt: int) -> None:
        """Cancel the stream of an attempt on any replica, if it exists yet; raises `StoreUnavailable`."""
        if snapshot := self._gateway.find(question_of(order, index, attempt)):
            self.cancel(order, snapshot.stream_id)

    def _open(self, question: Question, going_on: Callable[[], bool]) -> Snapshot | None:
        """Open or find the question's stream; None if `going_on` became false or this replica stayed full.

        An outage of Redis is waited through.
        """
        began = self._clock()
        while going_on():
            snapshot = self._gateway.ask(question)
            # A rejected question opens no stream, and its snapshot has no readers.
            if snapshot.access:
                return snapshot
            if snapshot.error_code not in STORE_CODES and self._clock() - began > REFUSED_SECONDS:
                return None
            self._sleep(LOOK)
        return None

    def _followed(self, following: Following, going_on: Callable[[], bool]) -> FullAnswer | None:
        """Follow the stream to its end and return its full answer; None if `going_on` became false."""
        ended = False
        while going_on():
            try:
                if ended:
                    return following.full_answer().complete()
                update = following.next(LOOK)
                ended = bool(update and update.ended)
            except StoreUnavailable:
                self._sleep(LOOK)
        return None
