"""Finds the conversation that a request continues, and keeps it for the next one."""

from __future__ import annotations

import logging
import secrets

from channels.openai.errors import invalid
from channels.openai.requests import AskedCompletion
from services.conversations.session_store import ClaimedSession, SessionStore, Talk, TextDigest
from services.errors import StoreUnavailable
from services.models import Question

log = logging.getLogger(__name__)


class ClientConversations:
    """Conversations of clients that send all messages with each question."""

    def __init__(self, store: SessionStore, *, max_bytes: int) -> None:
        """Take the bytes of earlier messages that go along with a question at most."""
        self._store = store
        self._max_bytes = max_bytes

    def question(self, asked: AskedCompletion) -> Question:
        """Return the question of a request, in its conversation.

        Where the conversation is unknown, a new one begins, and the earlier messages go along.

        Raises:
            RestError: another request had the same Idempotency-Key, or the earlier messages are too long.
            StoreUnavailable: Redis is away.
        """
        claimed = self._claimed(asked)
        if not claimed.same:
            message = "Another request was sent with this Idempotency-Key."
            raise invalid(message, "Idempotency-Key", status=409, code="idempotency_key_reuse")
        fits = asked.earlier.size <= self._max_bytes
        if not (fits or claimed.found):
            message = f"The messages before the question are too long: {self._max_bytes} bytes are taken at most."
            raise invalid(message, "messages", code="context_length_exceeded")
        return asked.question(claimed.session, earlier=fits)

    def give_back(self, asked: AskedCompletion, question: Question) -> None:
        """Keep the conversation of a question that was refused, so that the client can ask again."""
        if asked.talk.messages and not (asked.conversation or asked.key):
            self._keep(asked.talk, question.session)

    def answered(self, asked: AskedCompletion, question: Question, answer: TextDigest) -> None:
        """Keep the conversation after an answer, by the messages that the client will send before its next question."""
        if not asked.conversation:
            self._keep(asked.talk.with_answer(TextDigest(asked.words).hex, answer.hex), question.session)

    def _claimed(self, asked: AskedCompletion) -> ClaimedSession:
        new = asked.conversation or secrets.token_hex(16)
        talk = asked.talk if asked.talk.messages and not asked.conversation else None
        if asked.key:
            return self._store.claim(asked.caller.principal, asked.key, asked.digest, talk=talk, new=new)
        return self._store.take(talk, new) if talk else ClaimedSession(new, found=False)

    def _keep(self, talk: Talk, session: str) -> None:
        """Keep a session; without Redis the next question begins a new one, and its earlier messages go along."""
        try:
            self._store.keep(talk, session)
        except StoreUnavailable:
            log.warning("conversation not kept for its next question")
