"""The queue of a conversation: a question enters it with its stream, waits for the turn, and leaves at its end."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping
from typing import Any

from services.conversations.memory import PAUSE, through_outage
from services.conversations.store import ConversationStore, Memory, QueuePosition
from services.errors import AnswerError
from services.redis.store import Call
from services.streams.answer_events import Waiting
from services.streams.store import StreamStore
from utils.deadline import Deadline

#: Leases for which a waiting question sees the head of its queue without an owner before it removes the head. Until
#: then another replica may take the head over.
EVICT_LEASES = 3


class ConversationQueue:
    """The queues of all conversations. A question without a conversation (its key is "") waits for no other."""

    def __init__(
        self,
        conversations: ConversationStore,
        streams: StreamStore,
        *,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._conversations = conversations
        self._streams = streams
        self._sleep = sleep
        self._clock = clock

    def enter_calls(self, key: str, stream_id: str) -> dict[str, Call]:
        """Return by name the calls that enter a stream into the queue of the conversation `key`."""
        if not key:
            return {}
        return {"turns": self._conversations.turn_call(key, stream_id), **self._conversations.former_calls(key)}

    def position(self, key: str, stream_id: str, replies: Mapping[str, Any]) -> QueuePosition:
        """Return a stream's position in the queue, from the replies to `enter_calls` by name."""
        if not key:
            return QueuePosition(0, False, stream_id, Memory("", ""))
        former = {one: replies[one] for one in self._conversations.former_calls(key)}
        return QueuePosition.from_replies(replies["turns"], former)

    def memory(self, key: str) -> Memory:
        """Return the memory of a conversation in whose queue the question is not: that of another app."""
        return through_outage(lambda: self._conversations.load(key))

    def reset_calls(self, key: str, stream_id: str) -> list[Call]:
        """Return the calls that begin the conversation anew; see `ConversationStore.reset_calls`."""
        return self._conversations.reset_calls(key, stream_id)

    def leave_calls(self, key: str, stream_id: str) -> tuple[Call, ...]:
        """Return the call that removes a stream from the queue; none without a conversation."""
        return (self._conversations.leave_call(key, stream_id),) if key else ()

    def wait(self, key: str, stream_id: str, deadline: Deadline, *, begun: bool) -> Generator[Waiting, None, Memory]:
        """Wait until the stream heads its conversation's queue; a head that no owner writes any more is removed.

        Return the conversation's memory at that moment. A full queue refuses a question, but not an answer that has
        `begun`.
        """
        tried, watch = False, LateHead(EVICT_LEASES * self._streams.lease, self._clock)
        while (queue := through_outage(lambda: self._conversations.enter(key, stream_id))).position != 0:
            full = queue.position < 0
            if full and tried and not begun:
                raise AnswerError(code="turns_full")
            if deadline.over:
                raise AnswerError(code="answer_timeout")
            gone = through_outage(lambda: self._evict(key, queue.head, watch))
            # A full queue refuses the question only where its head could not be removed.
            tried = full and not gone
            if not tried or begun:
                yield Waiting(True)
                self._sleep(0.0 if gone else PAUSE)
        yield Waiting(False)
        return queue.memory

    def _evict(self, key: str, head: str, watch: LateHead) -> bool:
        """Remove the queue's head if it has ended or lost its owner for too long; return whether it was removed."""
        status, late = self._streams.standing(head)
        gone = status != "processing" or watch.over(head, late)
        if gone:
            self._conversations.leave(key, head)
        return gone


class LateHead:
    """Measures for how long one waiting question has seen the head of its queue without a lease."""

    def __init__(self, timeout: float, clock: Callable[[], float]) -> None:
        self._timeout = timeout
        self._clock = clock
        self._head = ""
        self._since = 0.0

    def over(self, head: str, late: float) -> bool:
        """Note that the head's lease ended `late` seconds ago; return whether this was seen for over `timeout`."""
        if late <= 0.0 or head != self._head:
            self._head, self._since = head if late > 0.0 else "", self._clock()
        return bool(self._head) and self._clock() - self._since > self._timeout
