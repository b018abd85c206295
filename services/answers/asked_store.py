"""The last questions of a person in one chat with one bot, for the commands about them.

    {dify_asked:<name>}:streams   list of stream ids of the last questions and commands, oldest first
    {dify_asked:<name>}:last      hash: `question`, the last question as sealed JSON, and `stream_id` of its last answer

`name` is a keyed hash of channel, bot, person and chat. Both keys expire `ttl` seconds after the last question; a
command prolongs the first one only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from services.redis.store import Call, ScriptRunner, script

#: Stream ids in one list. A running answer delays the person's later questions in the chat, so the running ones are
#: among the last few.
MOST_STREAMS = 32


class Asked(NamedTuple):
    """The notes of a chat before a command."""

    #: Whether the command was noted before: it is a redelivery.
    seen: bool
    stream_ids: tuple[str, ...]
    #: The last question as sealed JSON, and the stream of its last answer; "" for none.
    question: str
    stream_id: str

    @classmethod
    def from_replies(cls, replies: Sequence[Sequence[Any]]) -> Asked:
        """Take the replies to the calls of all names of a chat."""
        ids = tuple(dict.fromkeys(stream_id for reply in replies for stream_id in reply[1]))
        question, stream_id = next(((reply[2], reply[3]) for reply in replies if reply[2]), ("", ""))
        return cls(any(reply[0] for reply in replies), ids, question, stream_id)


class AskedStore:
    """Owns the keys above."""

    def __init__(self, runner: ScriptRunner, *, ttl: float) -> None:
        self._runner = runner
        self._ttl = ttl

    def question_call(self, name: str, stream_id: str, sealed: str) -> Call:
        """Return the call that notes a question."""
        return self._call(name, stream_id, sealed, "")

    def note(self, names: Sequence[str], stream_id: str, *others: Call, answered: bool) -> tuple[Asked, list[Any]]:
        """Note a command; return the notes before it, and the replies to `others`. It is one round trip.

        `names` are the chat's names under all keys; `answered`: the command's stream is another answer to the last
        question.

        Raises:
            StoreUnavailable: Redis is away.
        """
        calls = [self._call(name, stream_id, "", "1" if answered else "") for name in names]
        replies = self._runner.run([*calls, *others])
        return Asked.from_replies(replies[: len(calls)]), replies[len(calls) :]

    def forget_call(self, name: str, stream_id: str) -> Call:
        """Return the call that forgets the stream of a question that was refused; the question stays the last one."""
        return Call(None, ("LREM", _streams_key(name)), (0, stream_id))

    def _call(self, name: str, *args: str) -> Call:
        keys = (_streams_key(name), f"{{dify_asked:{name}}}:last")
        return Call(script("asked"), keys, (*args, self._ttl, MOST_STREAMS))


def _streams_key(name: str) -> str:
    return f"{{dify_asked:{name}}}:streams"
