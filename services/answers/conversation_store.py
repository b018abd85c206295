"""A conversation's memory and its line: the provider's conversation id, and whose turn it is.

    dify_conversation:<app>:<channel>:<principal>:<chat>      string, the provider's conversation id
    {dify_conversation:…}:turns                               list of stream ids, the head has the turn
    {dify_conversation:…}:resets                              how often the person started anew
    {dify_conversation:…}:reset_by                            list of the last commands' stream ids

`app` names the provider's app, `chat` the group or a socket's session; the last three parts are keyed hashes, so that
the keys tell nobody who talks to whom. What lies under the name that a former key gives is carried over, once, by the
first question that finds nothing under the present name; it stays where it was for replicas that know only that key.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from services.answers.history_store import MAX_TURNS, history_key
from services.models import Question
from services.redis.store import Call, ScriptRunner, script
from utils.keyring import Keyring, keys_of


class ConversationKey(str):
    """A conversation's key, with those it has under former secrets."""

    former: tuple[str, ...] = ()

    @classmethod
    def of(cls, names: Sequence[str]) -> ConversationKey:
        """Return the first of these names; the others are the former ones."""
        key = cls(names[0])
        key.former = tuple(dict.fromkeys(name for name in names[1:] if name != names[0]))
        return key


class Memory(NamedTuple):
    """The provider's conversation id ("" for none) and the reset count it belongs to."""

    conversation_id: str
    resets: str
    #: The former key under which the conversation still lies; "" where nothing is to be carried over.
    former: str = ""


class Place(NamedTuple):
    """A stream's place in a conversation's line: 0 has the turn, -1 found the line full."""

    place: int
    entered: bool
    head: str
    #: What the conversation remembered at that moment: nobody else changes it while the stream has the turn.
    memory: Memory

    @classmethod
    def from_replies(cls, reply: Sequence[Any], former: Mapping[str, int] | None = None) -> Place:
        """Take the reply of `turn_call`, and those of `former_calls` by key."""
        place, entered, head, conversation_id, resets, unused = reply
        found = _first(former or {}) if unused else ""
        return cls(place, entered == 1, head, Memory(conversation_id, resets, found))


class ConversationStore:
    """Owns the keys above; every method is one round trip and may raise `StoreUnavailable`."""

    def __init__(
        self,
        runner: ScriptRunner,
        *,
        secret: bytes | Mapping[str, Keyring],
        ttl: float,
        line: int = 4,
        line_ttl: float = 1800.0,
    ) -> None:
        """Take what names are hashed with: one secret, or keyrings by bot, "" for no bot."""
        self._runner = runner
        self._secret = secret
        self._ttl = ttl
        #: How many streams may stand in one line, the running one included.
        self._line = line
        self._line_ttl = line_ttl
        # A question's key is asked for three times on its way, and most of its parts are everybody's.
        self._hidden = lru_cache(1024)(_hide)

    def key(self, app: str, question: Question, *, bot: str = "", shared: bool = False) -> ConversationKey:
        """Return the conversation of a question; a `shared` group has one for everybody in it.

        `bot` is the bot whose keys name it, "" for the keys of no bot.

        Raises:
            StoreUnavailable: the secret lies in Redis, which is away.
        """
        principal = "" if shared and question.chat else question.principal
        parts = (question.channel, f"{question.bot}/{principal}", question.chat or question.session)
        keyring = self._secret if isinstance(self._secret, bytes) else self._secret[bot]
        hidden = ((self._hidden(secret, part) for part in parts) for secret in keys_of(keyring))
        return ConversationKey.of([":".join(("dify_conversation", app, *each)) for each in hidden])

    def turn_call(self, key: str, stream_id: str) -> Call:
        """Return the call that stands a stream in line; its reply goes through `Place.from_replies`."""
        keys = (turns_key(key), key, resets_key(key))
        return Call(script("turn"), keys, (stream_id, self._line, self._line_ttl, self._ttl))

    def former_calls(self, key: str) -> dict[str, Call]:
        """Return by former key the call that tells whether anything lies there."""
        return {one: Call(None, ("EXISTS", one, resets_key(one), history_key(one))) for one in _former(key)}

    def leave_call(self, key: str, stream_id: str) -> Call:
        return Call(None, ("LREM", turns_key(key)), (0, stream_id))

    def reset_call(self, key: str, stream_id: str) -> Call:
        """Return the call that starts the conversation anew; an answer under way no longer changes it.

        `stream_id` is the command's own stream: the same command, delivered again, resets nothing.
        """
        keys = (key, resets_key(key), reset_by_key(key), history_key(key))
        return Call(script("reset"), keys, (self._ttl, stream_id))

    def reset_calls(self, key: str, stream_id: str) -> list[Call]:
        """Return `reset_call` for the key and its former ones: nothing of before is carried over."""
        return [self.reset_call(one, stream_id) for one in (key, *_former(key))]

    def place(self, key: str, stream_id: str) -> Place:
        """Return where a stream stands, standing it at the end when it is not there."""
        former = self.former_calls(key)
        turn, *found = self._runner.run([self.turn_call(key, stream_id), *former.values()])
        return Place.from_replies(turn, dict(zip(former, found, strict=True)))

    def leave(self, key: str, stream_id: str) -> None:
        self._runner.run([self.leave_call(key, stream_id)])

    def load(self, key: str) -> Memory:
        former = self.former_calls(key)
        (known, *found) = self._runner.run([_memory_call(key), *former.values()])
        carried = "" if any(known) else _first(dict(zip(former, found, strict=True)))
        return _memory(known)._replace(former=carried)

    def carry_over(self, key: str, former: str) -> Memory:
        """Copy what lies under a former key, unless the conversation was used meanwhile; return what is remembered.

        It is two round trips, once for a conversation. The caller's stream has the turn.
        """
        turns_call = Call(None, ("LRANGE", history_key(former)), (-MAX_TURNS, -1))
        known, turns = self._runner.run([_memory_call(former), turns_call])
        conversation_id, resets, _ = _memory(known)
        call = Call(
            script("carry"),
            (key, resets_key(key), history_key(key)),
            (self._ttl, conversation_id, resets, *turns),
        )
        return _memory(self._runner.run([call])[0])

    def remember(self, key: str, memory: Memory) -> None:
        """Keep a conversation id from its last use on ("" forgets it), unless there was a reset meanwhile."""
        args = (memory.conversation_id, memory.resets, self._ttl)
        self._runner.run([Call(script("remember"), (key, resets_key(key)), args)])


def _hide(secret: bytes, part: str) -> str:
    return hmac.digest(secret, part.encode(), "sha256").hex()[:24]


def _former(key: str) -> tuple[str, ...]:
    return key.former if isinstance(key, ConversationKey) else ()


def _first(found: Mapping[str, int]) -> str:
    """Return the first key under which something lies, "" for none."""
    return next((key for key, count in found.items() if count), "")


def _memory_call(key: str) -> Call:
    return Call(None, ("MGET", key, resets_key(key)))


def _memory(known: Sequence[str | None]) -> Memory:
    conversation_id, resets = known
    return Memory(conversation_id or "", resets or "0")


def turns_key(key: str) -> str:
    return f"{{{key}}}:turns"


def resets_key(key: str) -> str:
    return f"{{{key}}}:resets"


def reset_by_key(key: str) -> str:
    return f"{{{key}}}:reset_by"
