"""What a rating needs to know of an answer: people rate long after the answer's stream has expired.

    {dify_stream:<id>}:answer   hash: status access asker user_info provider message_id conversation_id mock, as the
                                stream's hash had them at its end; 7 days from then, or from the last rating

The step that frees what an ended stream held writes it (`note_call`), and a rating that comes earlier.
"""

from __future__ import annotations

from services.feedback.records import RatedAnswer
from services.redis.store import Call, ScriptRunner, script
from services.streams.store import stream_keys

#: Seconds for which an answer can be rated after its end, and after its last rating.
KEPT_SECONDS = 604_800.0


def note_call(stream_id: str) -> Call:
    """Return the call that notes an answer, unless no provider was asked; its reply is for `RatedAnswer`."""
    keys = (stream_keys(stream_id).hash, f"{{dify_stream:{stream_id}}}:answer")
    return Call(script("feedback_note"), keys, (KEPT_SECONDS,))


class AnsweredStore:
    """Owns the key above."""

    def __init__(self, runner: ScriptRunner) -> None:
        self._runner = runner

    def find(self, stream_id: str) -> RatedAnswer | None:
        """Return what is known of an answer, running ones included; None if it is unknown or was too long ago.

        Raises:
            StoreUnavailable: Redis is away.
        """
        reply = self._runner.run([note_call(stream_id)])[0]
        return RatedAnswer.from_reply(reply) if reply else None
