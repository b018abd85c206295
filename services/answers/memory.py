"""What is remembered of one question's conversation: the provider's own id of it, or what was said."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import TypeVar

from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from services.answers.conversation_store import ConversationStore, Memory
from services.answers.history_store import HistoryStore
from services.errors import StoreUnavailable
from services.models import Query, Turn
from utils.thinking import fold_thinking

log = logging.getLogger(__name__)

T = TypeVar("T")

_NOTHING = Memory("", "")
#: Seconds of outage a producer waits through, and between two looks.
OUTAGE_SECONDS = 20.0
PAUSE = 0.2


class Recollection:
    """The memory of one conversation while one of its questions is answered; without a key there is none.

    What cannot be written costs the conversation, not the answer.
    """

    def __init__(
        self,
        key: str,
        *,
        conversations: ConversationStore,
        history: HistoryStore | None,
        seconds: float,
        resets: str = "",
        memory: Memory | None = None,
    ) -> None:
        """Take where it lies; `history` for a provider that keeps no conversations, `seconds` an answer's end waits.

        `memory` is what lies there, where that is known already. `resets` is what an earlier owner of the stream found:
        begun anew since, the conversation is another one, and the question has none.
        """
        self._key = key
        self._conversations = conversations
        self._history = history
        self._seconds = seconds
        self._memory = _NOTHING if not key else memory or patiently(lambda: conversations.load(key))
        if former := self._memory.former:
            self._memory = patiently(lambda: conversations.carry_over(key, former))
        if resets and self._memory.resets != resets:
            self._key, self._memory = "", Memory("", resets)
        told = bool(self._key and history)
        self._turns: tuple[Turn, ...] = patiently(lambda: history.load(key)) if told and history else ()

    @property
    def resets(self) -> str:
        """How often the conversation had been begun anew, as this question counts; "" for no conversation."""
        return self._memory.resets

    @property
    def conversation_id(self) -> str:
        """The provider's id of the conversation, "" for a new one."""
        return self._memory.conversation_id

    def recalled(self, query: Query) -> Query:
        """Return the question with what its provider is to know of the conversation."""
        return replace(query, conversation_id=self.conversation_id, history=self._turns)

    def forget(self) -> None:
        """Go on without the conversation, which the provider does not know any more."""
        self._memory = self._memory._replace(conversation_id="")
        self.note("")

    def note(self, conversation_id: str, *, patient: bool = False) -> bool:
        """Keep the provider's id, and return whether it was; the one that was there already lives on by itself."""
        if not self._key or self._history or conversation_id == self._memory.conversation_id != "":
            return True
        memory = self._memory._replace(conversation_id=conversation_id)
        return self._written(lambda: self._conversations.remember(self._key, memory), patient=patient)

    def keep(self, question: str, answer: str, stream_id: str) -> None:
        """Keep a turn that is over, where the provider does not do it itself; of a model's answer not its thoughts.

        Those would take the room of all that was said, and no model is told them again.
        """
        history = self._history
        if self._key and history and (said := fold_thinking(answer, "hide")).strip():
            turn = Turn(question, said)
            self._written(lambda: history.add(self._key, self._memory.resets, stream_id, turn), patient=True)

    def _written(self, write: Callable[[], None], *, patient: bool) -> bool:
        try:
            if patient:
                patiently(write, self._seconds)
            else:
                write()
        except StoreUnavailable:
            log.warning("conversation not remembered")
            return False
        return True


def patiently(call: Callable[[], T], seconds: float = OUTAGE_SECONDS) -> T:
    """Return what a store says, waiting through an outage of Redis that a producer survives."""
    # Nearly always Redis is there, and making ready for its absence takes as long as the call.
    with suppress(StoreUnavailable):
        return call()
    retrying = Retrying(
        retry=retry_if_exception_type(StoreUnavailable),
        stop=stop_after_delay(seconds),
        wait=wait_fixed(PAUSE),
        reraise=True,
    )
    return retrying(call)
