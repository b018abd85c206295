"""What was said in a conversation, for providers that keep none themselves.

    {dify_conversation:…}:history   list of "<stream id> <JSON {question, answer, time}>", the newest last

The key stands beside the conversation's others, in their slot of a cluster. People's words are in it: it lives no
longer than the conversation, CONVERSATION_TTL from its last turn, and starting anew deletes it.
"""

from __future__ import annotations

import json
import time
from bisect import bisect_right
from collections.abc import Callable

from services.models import Turn
from services.redis.store import Call, ScriptRunner, script
from utils.tokens import estimate_tokens

#: Turns kept of one conversation, and characters of one answer or question in them.
MAX_TURNS = 50
MAX_CHARACTERS = 8_000
#: What stands at the end of what was cut.
_CUT = "…"


class HistoryStore:
    """Owns the key above; every method is one round trip and may raise `StoreUnavailable`.

    A question is told at most `max_tokens` of earlier turns, by a rough count, none of them older than `max_seconds`;
    the last one is cut where it alone would be more.
    """

    def __init__(
        self,
        runner: ScriptRunner,
        *,
        ttl: float,
        max_tokens: int = 3000,
        max_seconds: float = 86400.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._runner = runner
        self._ttl = ttl
        self._max_tokens = max_tokens
        self._max_seconds = max_seconds
        self._clock = clock

    def load(self, key: str) -> tuple[Turn, ...]:
        """Return a conversation's last turns that a question is told, the oldest first."""
        (entries,) = self._runner.run([Call(None, ("LRANGE", history_key(key)), (-MAX_TURNS, -1))])
        oldest, left = self._clock() - self._max_seconds, self._max_tokens
        turns: list[Turn] = []
        for entry in reversed(entries):
            written = json.loads(entry.partition(" ")[2])
            turn = Turn(written["question"], written["answer"])
            turn = turn if turns else _fitting(turn, self._max_tokens)
            left -= estimate_tokens(turn.question) + estimate_tokens(turn.answer)
            if left < 0 or written["time"] < oldest:
                break
            turns.append(turn)
        return tuple(reversed(turns))

    def add(self, key: str, resets: str, stream_id: str, turn: Turn) -> None:
        """Keep a turn, unless the person started anew since: `resets` is what the question was asked under."""
        said = {"question": turn.question[:MAX_CHARACTERS], "answer": turn.answer[:MAX_CHARACTERS]}
        written = json.dumps({**said, "time": self._clock()}, ensure_ascii=False, separators=(",", ":"))
        keys = (history_key(key), f"{{{key}}}:resets")
        self._runner.run([Call(script("history_add"), keys, (stream_id, written, resets, MAX_TURNS, self._ttl))])


def _fitting(turn: Turn, tokens: int) -> Turn:
    """Return a turn of at most so many tokens; of question and answer a short one leaves its room to the other."""
    question, answer = estimate_tokens(turn.question), estimate_tokens(turn.answer)
    half = tokens // 2
    return Turn(_cut(turn.question, max(half, tokens - answer)), _cut(turn.answer, max(half, tokens - question)))


def _cut(text: str, tokens: int) -> str:
    if estimate_tokens(text) <= tokens:
        return text
    fitting = bisect_right(range(len(text)), tokens, key=lambda length: estimate_tokens(text[:length] + _CUT))
    return text[: max(0, fitting - 1)] + _CUT


def history_key(key: str) -> str:
    """Return where the turns of a conversation lie."""
    return f"{{{key}}}:history"
