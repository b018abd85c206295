"""The counters of quotas in Redis.

    {dify_quota:<counter>:<period>}:used   hash: questions, tokens; max_questions, max_tokens: the limits at the last
                                           question, "" for none
    {dify_quota:<counter>:<period>}:held   sorted set of stream ids: those that hold a question of the counter, by the
                                           time until which at most; those that were settled, by its negative

Both live until a day after the period's end. `counter` is a keyed hash, `period` such as 2026-11-24, 2026-11 or
hour-1764000000. A stream's question is counted when it is held; if it is settled without having been asked, it is
counted no more. Tokens are counted when they are settled. A stream that settled once neither holds nor settles again.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from typing import Any, NamedTuple

from services.redis.store import Call, ScriptRunner, script
from services.rules.quotas import Counter, Period
from utils.keyring import Keyring, keys_of

#: Seconds that the keys live after the end of their period, and seconds for which a stream holds a question at most
#: beyond its life in Redis.
KEPT_SECONDS = 86_400
BEYOND_SECONDS = 60.0


class Place(NamedTuple):
    """A counter in the present period."""

    counter: Counter
    period: Period
    #: The part of the keys that names both.
    key: str


class Used(NamedTuple):
    """What a place has counted."""

    questions: int
    tokens: int
    #: The limits at the last question; None for none.
    max_questions: int | None
    max_tokens: int | None
    #: Streams that hold a question.
    held: int


class QuotaStore:
    """Owns the keys above."""

    def __init__(self, runner: ScriptRunner, *, secret: Keyring, stream_ttl: float, now: str = "") -> None:
        """`now` is the time for scripts, "" for Redis's."""
        self._runner = runner
        self._secret = secret
        self._hold = stream_ttl + BEYOND_SECONDS
        self.now = now

    def place(self, counter: Counter, period: Period) -> Place:
        """Return a counter's place; raises `StoreUnavailable` if the key of names is in Redis, which is away."""
        name = hmac.new(keys_of(self._secret)[0], counter.name.encode("utf-8", "replace"), hashlib.sha256).hexdigest()
        return Place(counter, period, f"{name[:24]}:{period.name}")

    def take_call(self, place: Place, stream_id: str) -> Call:
        """Return the call that takes a question for a stream; its reply is that of lua/quota_take.lua."""
        limits = ["" if limit is None else limit for limit in (place.counter.questions, place.counter.tokens)]
        times = (self._hold, place.period.end + KEPT_SECONDS)
        return Call(script("quota_take"), _keys(place.key), (self.now, stream_id, *limits, *times))

    def settle_call(self, key: str, stream_id: str, *, asked: bool = False, tokens: int = 0) -> Call:
        """Return the call that settles what a stream holds: counted if it was `asked`, with its tokens."""
        return Call(script("quota_settle"), _keys(key), (self.now, stream_id, int(asked), tokens, self._hold))

    def run(self, calls: Sequence[Call]) -> list[Any]:
        """Return the replies to calls of this store; raises `StoreUnavailable`."""
        return self._runner.run(calls)

    def used(self, places: Sequence[Place]) -> list[Used]:
        """Return what each place has counted, in one round trip; raises `StoreUnavailable`."""
        fields = ("questions", "tokens", "max_questions", "max_tokens")
        calls = [call for place in places for call in _read_calls(place.key, fields)]
        replies = self._runner.run(calls) if calls else []
        return [
            Used(int(values[0] or 0), int(values[1] or 0), _number(values[2]), _number(values[3]), held)
            for values, held in zip(replies[::2], replies[1::2], strict=True)
        ]


def _keys(key: str) -> tuple[str, str]:
    return f"{{dify_quota:{key}}}:used", f"{{dify_quota:{key}}}:held"


def _read_calls(key: str, fields: tuple[str, ...]) -> tuple[Call, Call]:
    used, held = _keys(key)
    return Call(None, ("HMGET", used), fields), Call(None, ("ZCOUNT", held), ("(0", "+inf"))


def _number(written: str | None) -> int | None:
    return int(written) if written else None
