"""Who may read a stream, and which stream a message has: fingerprints under each bot's own key, the same everywhere."""

from __future__ import annotations

import hmac
import json
import secrets
from collections.abc import Mapping

from services.models import Question
from utils.sealed import seal


class Access:
    """Makes and checks the fingerprints; they tell nobody who talks to whom."""

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        """Take each bot's key."""
        self._keys = keys

    def stream_id(self, question: Question) -> str:
        """Return the id a message always has, on every replica; a random one where the client names none."""
        if not question.msgid:
            return secrets.token_hex(16)
        # The person is part of it: a message id alone must not lead to another person's answer.
        parts = [question.channel, question.bot, question.principal, question.msgid]
        return self._tag(question.bot, f"stream:{json.dumps(parts)}", 32)

    def readers(self, question: Question) -> str:
        """Return the fingerprints of those who may read its stream: the person, and the group it was asked in."""
        return " ".join(self._tags(question.bot, question.principal, question.chat))

    def allows(self, readers: str, bot: str, principal: str, chat: str) -> bool:
        """Tell whether this person, in this chat, is one of them."""
        tags = self._tags(bot, principal, chat)
        return any(hmac.compare_digest(tag, known) for tag in tags for known in readers.split())

    def sealed(self, question: Question, secret: str) -> str:
        """Return a secret as it may lie in Redis."""
        return seal(self._keys[question.bot], secret)

    def _tags(self, bot: str, principal: str, chat: str) -> list[str]:
        names = [f"user:{bot}:{principal}", *([f"chat:{bot}:{chat}"] if chat else [])]
        return [self._tag(bot, name) for name in names]

    def _tag(self, bot: str, text: str, digits: int = 16) -> str:
        return hmac.digest(self._keys[bot], text.encode(), "sha256").hex()[:digits]
