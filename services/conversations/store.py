"""A conversation's memory and its queue: the provider's conversation id, and the stream that has the turn.

    dify_conversation:<app>:<channel>:<principal>:<chat>      string, the provider's conversation id
    {dify_conversation:…}:turns                               list of stream ids, the queue; the head has the turn
    {dify_conversation:…}:resets                              how often the user began the conversation anew
    {dify_conversation:…}:reset_by                            list of the stream ids of the last reset commands
    {dify_conversation:…}:forms                               open forms, see forms/form_store.py; a reset deletes them

`app` names the provider's app, `chat` the group or a client's session. A question waits in the queue of the bot's own
app, whichever app answers it. The last three parts are keyed hashes, so that the keys do not show which users talk in
which chats. After a change of secrets, the first question that finds nothing under the present name copies the values
under the name of a former secret. The copied keys stay where they are, for replicas that have only the former secret.
"""

from __future__ import annotations

import hmac
import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from services.conversations.history_store import MAX_EXCHANGES, history_key
from services.models import Question
from services.redis.store import Call, ScriptRunner, script
from utils.keyring import Keyring, keys_of


class ConversationKey(str):
    """A conversation's key, with its keys under former secrets."""

    former: tuple[str, ...] = ()

    @classmethod
    def of(cls, names: Sequence[str]) -> ConversationKey:
        """Return the first name as the key, and the others as its former keys."""
        key = cls(names[0])
        key.former = tuple(dict.fromkeys(name for name in names[1:] if name != names[0]))
        return key


class Memory(NamedTuple):
    """The provider's conversation id ("" for none) and the reset count it belongs to."""

    conversation_id: str
    resets: str
    #: The former key that still has the conversation; "" where nothing has to be carried over.
    former: str = ""
    #: Whether forms of the conversation wait for an answer.
    forms: bool = False


class QueuePosition(NamedTuple):
    """A stream's position in a conversation's queue: 0 has the turn, -1 found the queue full."""

    position: int
    #: Whether this call entered the stream.
    entered: bool
    head: str
    #: The conversation's memory at that moment. No other stream changes it while this one has the turn.
    memory: Memory

    @classmethod
    def from_replies(cls, reply: Sequence[Any], former: Mapping[str, int] | None = None) -> QueuePosition:
        """Take the reply of `turn_call`, and the replies of `former_calls` by key."""
        position, entered, head, conversation_id, resets, unused, forms = reply
        found = _first(former or {}) if unused else ""
        return cls(position, entered == 1, head, Memory(conversation_id, resets, found, forms == 1))


class ConversationStore:
    """Owns the keys above. Every method but `carry_over` is one round trip; each may raise `StoreUnavailable`."""

    def __init__(
        self,
        runner: ScriptRunner,
        *,
        secret: bytes | Mapping[str, Keyring],
        ttl: float,
        queue: int = 4,
        queue_ttl: float = 1800.0,
    ) -> None:
        """Take the `secret` that names are hashed with: one for all, or keyrings by bot, "" for no bot.

        `ttl` and `queue_ttl` are seconds from the last use of a conversation and of its queue.
        """
        self._runner = runner
        self._secret = secret
        self._ttl = ttl
        #: Streams in one queue at most, the running one included.
        self._queue = queue
        self._queue_ttl = queue_ttl
        # A question's key is made several times, and most of its parts are common to many questions.
        self._hidden = lru_cache(1024)(_hide)

    def key(self, app: str, question: Question, *, bot: str = "", shared: bool = False) -> ConversationKey:
        """Return the key of a question's conversation; all members of a `shared` group have the same one.

        `bot` is the bot whose keys name it, "" for the keys of no bot.

        Raises:
            StoreUnavailable: the secret is stored in Redis, which is away.
        """
        principal = "" if shared and question.chat else question.principal
        parts = (question.channel, f"{question.bot}/{principal}", question.chat or question.session)
        keyring = self._secret if isinstance(self._secret, bytes) else self._secret[bot]
        hidden = ((self._hidden(secret, part) for part in parts) for secret in keys_of(keyring))
        return ConversationKey.of([":".join(("dify_conversation", app, *each)) for each in hidden])

    def turn_call(self, key: str, stream_id: str) -> Call:
        """Return the call that enters a stream into the queue; `QueuePosition.from_replies` reads its reply."""
        keys = (turns_key(key), key, resets_key(key), forms_key(key))
        return Call(script("turn"), keys, (stream_id, self._queue, self._queue_ttl, self._ttl))

    def former_calls(self, key: str) -> dict[str, Call]:
        """Return by former key the call that tells whether anything is stored there."""
        return {one: Call(None, ("EXISTS", one, resets_key(one), history_key(one))) for one in _former(key)}

    def leave_call(self, key: str, stream_id: str) -> Call:
        return Call(None, ("LREM", turns_key(key)), (0, stream_id))

    def reset_call(self, key: str, stream_id: str) -> Call:
        """Return the call that begins the conversation anew; a running answer no longer changes it.

        `stream_id` is the command's own stream: a redelivery of the same command resets nothing.
        """
        keys = (key, resets_key(key), reset_by_key(key), history_key(key), forms_key(key))
        return Call(script("reset"), keys, (self._ttl, stream_id))

    def reset_calls(self, key: str, stream_id: str) -> list[Call]:
        """Return `reset_call` for the key and its former keys, so that nothing is carried over afterwards."""
        return [self.reset_call(one, stream_id) for one in (key, *_former(key))]

    def enter(self, key: str, stream_id: str) -> QueuePosition:
        """Return a stream's position in the queue; a stream that is not in it is added at the end."""
        former = self.former_calls(key)
        turn, *found = self._runner.run([self.turn_call(key, stream_id), *former.values()])
        return QueuePosition.from_replies(turn, dict(zip(former, found, strict=True)))

    def leave(self, key: str, stream_id: str) -> None:
        self._runner.run([self.leave_call(key, stream_id)])

    def load(self, key: str) -> Memory:
        """Return the conversation's memory; its provider's id lives on from now."""
        former, life = self.former_calls(key), Call(None, ("PEXPIRE", key), (math.ceil(self._ttl * 1000),))
        calls = [_memory_call(key), Call(None, ("EXISTS", forms_key(key))), life, *former.values()]
        known, forms, _, *found = self._runner.run(calls)
        carried = "" if any(known) else _first(dict(zip(former, found, strict=True)))
        return _memory(known)._replace(former=carried, forms=forms == 1)

    def carry_over(self, key: str, former: str) -> Memory:
        """Copy the values under a former key, unless the conversation was used meanwhile; return its memory.

        It takes two round trips, once for a conversation. The caller's stream has to have the turn.
        """
        history_call = Call(None, ("LRANGE", history_key(former)), (-MAX_EXCHANGES, -1))
        known, history = self._runner.run([_memory_call(former), history_call])
        conversation_id, resets, *_ = _memory(known)
        call = Call(
            script("carry"),
            (key, resets_key(key), history_key(key)),
            (self._ttl, conversation_id, resets, *history),
        )
        return _memory(self._runner.run([call])[0])

    def remember(self, key: str, memory: Memory) -> None:
        """Store a conversation id for `ttl` seconds ("" deletes it), unless there was a reset meanwhile."""
        args = (memory.conversation_id, memory.resets, self._ttl)
        self._runner.run([Call(script("remember"), (key, resets_key(key)), args)])


def _hide(secret: bytes, part: str) -> str:
    return hmac.digest(secret, part.encode(), "sha256").hex()[:24]


def _former(key: str) -> tuple[str, ...]:
    return key.former if isinstance(key, ConversationKey) else ()


def _first(found: Mapping[str, int]) -> str:
    """Return the first key under which something is stored, "" for none."""
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


def forms_key(key: str) -> str:
    return f"{{{key}}}:forms"
