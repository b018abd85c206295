"""Who may read a stream, and which stream a message has: fingerprints under each bot's own key, the same everywhere."""

from __future__ import annotations

import hmac
import json
import secrets
from collections.abc import Mapping

from services.models import Question
from utils.keyring import Keyring, keys_of
from utils.sealed import seal


class Access:
    """Makes and checks the fingerprints; they tell nobody who talks to whom.

    Every method may raise `StoreUnavailable` where a bot's keys lie in Redis.
    """

    def __init__(self, keys: Mapping[str, Keyring]) -> None:
        """Take each bot's keys."""
        self._keys = keys

    def stream_id(self, question: Question) -> str:
        """Return the id a message always has, on every replica; a random one where the client names none."""
        if not question.msgid:
            return secrets.token_hex(16)
        # The person is part of it: a message id alone must not lead to another person's answer.
        parts = [question.channel, question.bot, question.principal, question.msgid]
        return _tag(keys_of(self._keys[question.bot])[0], f"stream:{json.dumps(parts)}", 32)

    def readers(self, question: Question) -> str:
        """Return the fingerprints of those who may read its stream: the person, and the group it was asked in.

        Under every key: a replica that has only one of them knows the readers too.
        """
        names = _names(question.bot, question.principal, question.chat)
        return " ".join(_tag(key, name) for key in keys_of(self._keys[question.bot]) for name in names)

    def person(self, question: Question) -> str:
        """Return what the log calls the person who asks: their fingerprint, which is the same on every replica."""
        return person_of(self.readers(question))

    def allows(self, readers: str, bot: str, principal: str, chat: str) -> bool:
        """Tell whether this person, in this chat, is one of them."""
        known, names = readers.split(), _names(bot, principal, chat)
        tags = (_tag(key, name) for key in keys_of(self._keys[bot]) for name in names)
        return any(hmac.compare_digest(tag, other) for tag in tags for other in known)

    def sealed(self, question: Question, secret: str) -> str:
        """Return a secret of WeCom's, which only a bot's questions have, as it may lie in Redis."""
        return seal(keys_of(self._keys[question.bot])[0], secret) if secret else ""


def _names(bot: str, principal: str, chat: str) -> list[str]:
    return [f"user:{bot}:{principal}", *([f"chat:{bot}:{chat}"] if chat else [])]


def _tag(key: bytes, text: str, digits: int = 16) -> str:
    return hmac.digest(key, text.encode(), "sha256").hex()[:digits]


def person_of(readers: str) -> str:
    """Return the fingerprint of the person who asked, out of those of all who may read the stream."""
    return readers.partition(" ")[0]
