"""The open answers of long connections, with the progress of each, in Redis.

    {dify_long_connection:<bot>}:open          sorted set of stream ids by the time of their message
    {dify_long_connection:<bot>}:answer:<id>   hash: `target` (sealed, see `AnswerTarget`), `finish`, `messages`

A record expires with its stream, not with the end of its answer, so a redelivered message is not answered again.
`finish` is the state of the finish frame: "" (not sent), "sent" (it may have left), "done" (people see it), "refused"
(people do not see it, and get the whole answer as messages). `messages` is the number of further messages that were
sent; "3?" means that the third one may have been sent. A step that must not be repeated is recorded before its bytes
leave. Records are changed only under the fence of the bot's lease, so a former holder changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from services.redis.store import Call, ScriptRunner, script
from services.wecom.long_connection.lease_store import bot_key, lease_key

#: The most open answers of one bot; a further message is answered with an error sentence.
MOST_OPEN = 5000
#: Seconds for attempts to record a message's answer, before its stream is opened: a burst of messages, or a start of
#: workers beside them, may keep all connections to Redis in use for a second and more.
ADD_SECONDS = 2.0

Finish = Literal["", "sent", "done", "refused"]


@dataclass(frozen=True, slots=True)
class OpenAnswer:
    """An answer that was not sent completely yet. Its repr hides the target."""

    bot: str
    stream_id: str
    #: Sealed; see `AnswerTarget`.
    target: str = field(repr=False)
    finish: Finish = ""
    #: Further messages that were claimed.
    messages: int = 0
    #: Whether the outcome of the last one is unknown.
    unsure: bool = False


class FenceRefused(Exception):
    """Another replica holds the bot's connection by now, or the answer is not open any more."""


class OpenAnswersStore:
    """Owns the keys above. Every method is one round trip, and raises `StoreUnavailable` when Redis is away."""

    def __init__(self, runner: ScriptRunner, *, ttl: float, now: str = "") -> None:
        """`ttl`: seconds that a record lives, as long as its stream; `now`: the time in seconds, "" for Redis's."""
        self._runner = runner
        self._ttl = ttl
        self._now = now

    def add(self, bot: str, stream_id: str, target: str) -> bool:
        """Record an open answer; return False if `MOST_OPEN` are open. An existing record is not changed."""
        keys = (_open_key(bot), _answer_key(bot, stream_id))
        call = Call(script("answer_add"), keys, (self._now, stream_id, target, self._ttl, MOST_OPEN))
        return bool(self._runner.run([call], attempts=6, retry_seconds=ADD_SECONDS)[0])

    def open(self, bot: str, fence: int) -> tuple[list[str], int]:
        """Return the streams whose answers are open, the oldest first, and how many expired unsent.

        Raises:
            FenceRefused: another replica holds the bot's connection.
        """
        call = Call(script("answers_open"), (lease_key(bot), _open_key(bot)), (self._now, fence, self._ttl))
        reply = self._runner.run([call])[0]
        if not reply:
            raise FenceRefused
        expired, *ids = reply
        return ids, expired

    def read(self, bot: str, stream_id: str) -> OpenAnswer | None:
        """Return the record of an answer; None without one."""
        call = Call(None, ("HMGET", _answer_key(bot, stream_id)), ("target", "finish", "messages"))
        target, finish, messages = self._runner.run([call])[0]
        if target is None:
            return None
        sent = messages or "0"
        return OpenAnswer(bot, stream_id, target, finish or "", int(sent.rstrip("?")), sent.endswith("?"))

    def mark_finish(self, fence: int, answer: OpenAnswer, finish: Finish) -> OpenAnswer:
        """Store the state of the finish frame; return the answer with it. Raises: FenceRefused."""
        self._set(fence, answer, "finish", finish)
        return replace(answer, finish=finish)

    def mark_messages(self, fence: int, answer: OpenAnswer, messages: int, *, unsure: bool) -> OpenAnswer:
        """Store how many further messages were claimed; return the answer with it. Raises: FenceRefused.

        `unsure`: the outcome of the last one is unknown, because it is about to be sent.
        """
        self._set(fence, answer, "messages", f"{messages}{'?' if unsure else ''}")
        return replace(answer, messages=messages, unsure=unsure)

    def close(self, bot: str, stream_id: str) -> None:
        """Remove an answer from the open ones: it was sent completely."""
        self._runner.run([Call(None, ("ZREM", _open_key(bot), stream_id))], attempts=3)

    def _set(self, fence: int, answer: OpenAnswer, name: str, value: str) -> None:
        keys = (lease_key(answer.bot), _answer_key(answer.bot, answer.stream_id))
        if not self._runner.run([Call(script("answer_set"), keys, (fence, name, value))], attempts=3)[0]:
            raise FenceRefused


def _open_key(bot: str) -> str:
    return bot_key(bot, "open")


def _answer_key(bot: str, stream_id: str) -> str:
    return bot_key(bot, f"answer:{stream_id}")
