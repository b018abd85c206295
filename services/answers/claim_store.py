"""Claims of late messages in the field `delivered` of ended streams. `streams/lua/append.lua` writes them."""

from __future__ import annotations

from services.redis.store import Call, ScriptRunner, script
from services.streams.store import StreamStore, stream_keys

#: Seconds after which a claim without an outcome counts as lost: a message takes a third of it at most.
CLAIM_SECONDS = 60.0


class ClaimStore:
    """Reads and ends claims. Every method is one round trip, and raises `StoreUnavailable` when Redis is away."""

    def __init__(self, runner: ScriptRunner, streams: StreamStore) -> None:
        self._runner = runner
        self._streams = streams

    def delivered(self, stream_id: str, owner: str, outcome: str) -> None:
        """Replace an owner's claim by the outcome of its late message, and remove the stream from the index."""
        call = Call(script("delivered"), stream_keys(stream_id), (owner, outcome))
        self._runner.run([call, *self._streams.ended_calls([stream_id])], attempts=3)

    def look(self, stream_id: str, seconds: float) -> tuple[str, str]:
        """Look at the claim of an ended stream, and give it up if it is older than `seconds`.

        Return "" (no claim), "waiting", or "lost" with the claim's owner.
        """
        call = Call(script("claim"), stream_keys(stream_id), (self._streams.now, seconds))
        outcome, *owner = self._runner.run([call])[0]
        return outcome, "".join(owner)
