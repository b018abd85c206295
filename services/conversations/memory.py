"""The memory of a question's conversation: the provider's conversation id, or the earlier exchanges."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TypeVar

from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from services.conversations.earlier import with_earlier
from services.conversations.history_store import HistoryStore
from services.conversations.store import ConversationStore, Memory
from services.errors import StoreUnavailable
from services.models import Exchange, Query
from services.providers.base import BaseRAGProvider
from utils.thinking import fold_thinking

log = logging.getLogger(__name__)

T = TypeVar("T")

_NOTHING = Memory("", "")
#: Seconds of an outage of Redis that a producer waits through, and seconds between two tries.
OUTAGE_SECONDS = 20.0
PAUSE = 0.2
#: Seconds for which the end of an answer waits until its conversation is stored.
MEMORY_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class MemoryStores:
    """The stores of conversations."""

    conversations: ConversationStore
    #: Exchanges, for providers that keep no conversations themselves.
    history: HistoryStore
    #: Seconds for which the end of an answer waits until its conversation is stored.
    timeout: float = MEMORY_SECONDS


class ConversationMemory:
    """The memory of one conversation while one of its questions is answered; without a key there is none.

    A failed write costs the conversation its memory of this question, not the answer.
    """

    def __init__(
        self,
        key: str,
        stores: MemoryStores,
        *,
        provider: BaseRAGProvider,
        resets: str = "",
        memory: Memory | None = None,
    ) -> None:
        """Load the memory of the conversation `key`, unless `memory` has it already.

        A `provider` that keeps conversations itself gets no exchanges. `resets` is the reset count that an earlier
        owner of the stream found: if it differs now, the person has reset the conversation since, and this question
        belongs to none.
        """
        self._key = key
        self._conversations = stores.conversations
        self._history = history = None if provider.keeps_conversations else stores.history
        self._provider = provider
        self._timeout = stores.timeout
        self._memory = _NOTHING if not key else memory or through_outage(lambda: stores.conversations.load(key))
        if former := self._memory.former:
            self._memory = through_outage(lambda: stores.conversations.carry_over(key, former))
        if resets and self._memory.resets != resets:
            self._key, self._memory = "", Memory("", resets)
        self._earlier: tuple[Exchange, ...] = through_outage(lambda: history.load(key)) if self._key and history else ()

    @property
    def resets(self) -> str:
        """How often the conversation had been begun anew when this question was asked; "" for no conversation."""
        return self._memory.resets

    @property
    def conversation_id(self) -> str:
        """The provider's id of the conversation, "" for a new one."""
        return self._memory.conversation_id

    def recalled(self, query: Query) -> Query:
        """Return the query with the conversation id and the earlier exchanges.

        Messages that the client sent with the question are used where nothing is remembered.
        """
        known = replace(query, conversation_id=self.conversation_id, history=self._earlier)
        return with_earlier(known, self._provider, known=bool(self.conversation_id or self._earlier))

    def forget(self) -> None:
        """Drop a conversation id that the provider has deleted."""
        self._memory = self._memory._replace(conversation_id="")
        self.note("")

    def note(self, conversation_id: str, *, wait: bool = False) -> bool:
        """Store the provider's conversation id; return False where Redis did not take it.

        An id that is stored already is not written again. With `wait` it is tried again during an outage of Redis.
        """
        if not self._key or self._history or conversation_id == self._memory.conversation_id != "":
            return True
        memory = self._memory._replace(conversation_id=conversation_id)
        return self._written(lambda: self._conversations.remember(self._key, memory), wait=wait)

    def keep(self, question: str, answer: str, stream_id: str) -> None:
        """Store a finished exchange, where the provider does not do it itself.

        A model's thinking is left out: models are not sent it again, and it would take the room of other exchanges.
        """
        history = self._history
        if self._key and history and (text := fold_thinking(answer, "hide")).strip():
            exchange = Exchange(question, text)
            self._written(lambda: history.add(self._key, self._memory.resets, stream_id, exchange), wait=True)

    def _written(self, write: Callable[[], None], *, wait: bool) -> bool:
        try:
            if wait:
                through_outage(write, self._timeout)
            else:
                write()
        except StoreUnavailable:
            log.warning("conversation not remembered")
            return False
        return True


def through_outage(call: Callable[[], T], seconds: float = OUTAGE_SECONDS) -> T:
    """Call a store, and try again for `seconds` while Redis is away.

    Raises:
        StoreUnavailable: Redis is still away then.
    """
    # Redis nearly always answers, and to set up the retries takes as long as the call itself.
    with suppress(StoreUnavailable):
        return call()
    retrying = Retrying(
        retry=retry_if_exception_type(StoreUnavailable),
        stop=stop_after_delay(seconds),
        wait=wait_fixed(PAUSE),
        reraise=True,
    )
    return retrying(call)
