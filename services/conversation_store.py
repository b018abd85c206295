"""A conversation's memory and its line: the provider's conversation id, and whose turn it is.

    dify_conversation:<app>:<channel>:<principal>:<chat>      string, the provider's conversation id
    {dify_conversation:…}:turns                               list of stream ids, the head has the turn
    {dify_conversation:…}:resets                              how often the person started anew
    {dify_conversation:…}:reset_by                            list of the last commands' stream ids

`app` names the provider's app, `chat` the group or a socket's session; the last three parts are keyed hashes, so that
the keys tell nobody who talks to whom.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from services.history_store import history_key
from services.models import Question
from services.redis_store import Call, ScriptRunner, script


class Memory(NamedTuple):
    """The provider's conversation id ("" for none) and the reset count it belongs to."""

    conversation_id: str
    resets: str


class Place(NamedTuple):
    """A stream's place in a conversation's line: 0 has the turn, -1 found the line full."""

    place: int
    entered: bool
    head: str
    #: What the conversation remembered at that moment: nobody else changes it while the stream has the turn.
    memory: Memory

    @classmethod
    def from_reply(cls, reply: Sequence[Any]) -> Place:
        place, entered, head, conversation_id, resets = reply
        return cls(place, entered == 1, head, Memory(conversation_id, resets))


class ConversationStore:
    """Owns the keys above; every method is one round trip and may raise `StoreUnavailable`."""

    def __init__(
        self, runner: ScriptRunner, *, secret: bytes, ttl: float, line: int = 4, line_ttl: float = 1800.0
    ) -> None:
        self._runner = runner
        self._secret = secret
        self._ttl = ttl
        #: How many streams may stand in one line, the running one included.
        self._line = line
        self._line_ttl = line_ttl
        # A question's key is asked for three times on its way, and most of its parts are everybody's.
        self._hidden = lru_cache(1024)(self._hide)

    def key(self, app: str, question: Question, *, shared: bool = False) -> str:
        """Return the conversation of a question; a `shared` group has one for everybody in it."""
        principal = "" if shared and question.chat else question.principal
        parts = (question.channel, f"{question.bot}/{principal}", question.chat or question.session)
        return ":".join(("dify_conversation", app, *(self._hidden(part) for part in parts)))

    def turn_call(self, key: str, stream_id: str) -> Call:
        """Return the call that stands a stream in line; its reply goes through `Place.from_reply`."""
        keys = (turns_key(key), key, resets_key(key))
        return Call(script("turn"), keys, (stream_id, self._line, self._line_ttl, self._ttl))

    def leave_call(self, key: str, stream_id: str) -> Call:
        return Call(None, ("LREM", turns_key(key)), (0, stream_id))

    def reset_call(self, key: str, stream_id: str) -> Call:
        """Return the call that starts the conversation anew; an answer under way no longer changes it.

        `stream_id` is the command's own stream: the same command, delivered again, resets nothing.
        """
        keys = (key, resets_key(key), reset_by_key(key), history_key(key))
        return Call(script("reset"), keys, (self._ttl, stream_id))

    def place(self, key: str, stream_id: str) -> Place:
        """Return where a stream stands, standing it at the end when it is not there."""
        return Place.from_reply(self._runner.run([self.turn_call(key, stream_id)])[0])

    def leave(self, key: str, stream_id: str) -> None:
        self._runner.run([self.leave_call(key, stream_id)])

    def load(self, key: str) -> Memory:
        conversation_id, resets = self._runner.run([Call(None, ("MGET", key, resets_key(key)))])[0]
        return Memory(conversation_id or "", resets or "0")

    def remember(self, key: str, memory: Memory) -> None:
        """Keep a conversation id from its last use on ("" forgets it), unless there was a reset meanwhile."""
        args = (memory.conversation_id, memory.resets, self._ttl)
        self._runner.run([Call(script("remember"), (key, resets_key(key)), args)])

    def _hide(self, part: str) -> str:
        return hmac.digest(self._secret, part.encode(), "sha256").hex()[:24]


def turns_key(key: str) -> str:
    return f"{{{key}}}:turns"


def resets_key(key: str) -> str:
    return f"{{{key}}}:resets"


def reset_by_key(key: str) -> str:
    return f"{{{key}}}:reset_by"
