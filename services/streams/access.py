"""Access to streams: fingerprints of readers and stream ids, made with each bot's key, equal on every replica."""

from __future__ import annotations

import hmac
import json
import secrets
from collections.abc import Mapping

from services.models import Question
from utils.keyring import Keyring, keys_of
from utils.sealed import seal, unseal_any


class Access:
    """Makes and checks fingerprints, which do not reveal the people and chats.

    Every method may raise `StoreUnavailable` if a bot's keys are in Redis.
    """

    def __init__(self, keys: Mapping[str, Keyring]) -> None:
        """Take each bot's keys."""
        self._keys = keys

    def stream_id(self, question: Question) -> str:
        """Return the stream id of a message, equal on every replica; random if the message has no id."""
        if not question.msgid:
            return secrets.token_hex(16)
        # Includes the person: a known message id alone must not lead to another person's answer.
        parts = [question.channel, question.bot, question.principal, question.msgid]
        return _tag(keys_of(self._keys[question.bot])[0], f"stream:{json.dumps(parts)}", 32)

    def readers(self, question: Question) -> str:
        """Return the fingerprints of a stream's readers: the person, and the group chat if there is one.

        One for each key of the bot, so that a replica with only one of the keys recognizes the readers.
        """
        names = _names(question.bot, question.principal, question.chat)
        return " ".join(_tag(key, name) for key in keys_of(self._keys[question.bot]) for name in names)

    def person(self, question: Question) -> str:
        """Return the asking person's fingerprint for log lines; it is equal on every replica."""
        return person_of(self.readers(question))

    def allows(self, readers: str, bot: str, principal: str, chat: str) -> bool:
        """Tell whether this person, or a member of this chat, is one of the readers."""
        known, names = readers.split(), _names(bot, principal, chat)
        tags = (_tag(key, name) for key in keys_of(self._keys[bot]) for name in names)
        return any(hmac.compare_digest(tag, other) for tag in tags for other in known)

    def sealed(self, question: Question, secret: str) -> str:
        """Return a secret of WeCom encrypted for Redis, "" for ""."""
        return seal(keys_of(self._keys[question.bot])[0], secret) if secret else ""

    def unsealed(self, question: Question, sealed: str) -> str:
        """Return a secret that any key of the question's bot encrypted.

        Raises:
            ValueError: it was encrypted with none of them, or is damaged.
        """
        return unseal_any(keys_of(self._keys[question.bot]), sealed)

    def chat_names(self, question: Question) -> list[str]:
        """Return the names of a person in one chat with one bot, for keys in Redis: one for each key of the bot."""
        parts = json.dumps([question.channel, question.bot, question.principal, question.chat])
        return [_tag(key, f"asked:{parts}", 32) for key in keys_of(self._keys[question.bot])]


def _names(bot: str, principal: str, chat: str) -> list[str]:
    return [f"user:{bot}:{principal}", *([f"chat:{bot}:{chat}"] if chat else [])]


def _tag(key: bytes, text: str, digits: int = 16) -> str:
    return hmac.digest(key, text.encode(), "sha256").hex()[:digits]


def person_of(readers: str) -> str:
    """Return the asking person's fingerprint, which is the first one of the readers."""
    return readers.partition(" ")[0]
