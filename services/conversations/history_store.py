"""The exchanges of a conversation, for providers that keep no conversations themselves.

    {dify_conversation:…}:history   list of "<stream id> <JSON {question, answer, time}>", the newest last

The key is in the same slot of a cluster as the conversation's other keys. It has users' texts in it, so it expires with
the conversation, CONVERSATION_TTL seconds after its last exchange, and a reset deletes it. Its limit in tokens is an
estimate without a model's tokenizer: not for billing.
"""

from __future__ import annotations

import json
import re
import time
from bisect import bisect_right
from collections.abc import Callable

from services.models import Exchange
from services.redis.store import Call, ScriptRunner, script

#: Characters of about one token each: Chinese, Japanese, Korean, their punctuation, emoji.
_WIDE = re.compile(r"[\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff\uff00-\uffef\U0001f000-\U0003ffff]")
#: Characters per token of other text.
_NARROW = 4

#: Exchanges stored of one conversation, and characters of each question and answer in them.
MAX_EXCHANGES = 50
MAX_CHARACTERS = 8_000
#: The last character of a cut text.
_CUT = "…"


def estimate_tokens(text: str) -> int:
    """Return the estimated number of tokens, rounded up."""
    wide = len(_WIDE.findall(text))
    return wide + -(-(len(text) - wide) // _NARROW)


class HistoryStore:
    """Owns the key above; every method is one round trip and may raise `StoreUnavailable`.

    A question is sent with at most `max_tokens` of earlier exchanges, by a rough count, that are not older than
    `max_seconds`. The latest exchange is cut where it alone would be longer.
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

    def load(self, key: str) -> tuple[Exchange, ...]:
        """Return the exchanges that a question is sent with, the oldest first."""
        (entries,) = self._runner.run([Call(None, ("LRANGE", history_key(key)), (-MAX_EXCHANGES, -1))])
        oldest, left = self._clock() - self._max_seconds, self._max_tokens
        exchanges: list[Exchange] = []
        for entry in reversed(entries):
            written = json.loads(entry.partition(" ")[2])
            exchange = Exchange(written["question"], written["answer"])
            exchange = exchange if exchanges else _fitting(exchange, self._max_tokens)
            left -= estimate_tokens(exchange.question) + estimate_tokens(exchange.answer)
            if left < 0 or written["time"] < oldest:
                break
            exchanges.append(exchange)
        return tuple(reversed(exchanges))

    def add(self, key: str, resets: str, stream_id: str, exchange: Exchange) -> None:
        """Store an exchange, unless the conversation was reset since the question was asked with the count `resets`."""
        texts = {"question": exchange.question[:MAX_CHARACTERS], "answer": exchange.answer[:MAX_CHARACTERS]}
        written = json.dumps({**texts, "time": self._clock()}, ensure_ascii=False, separators=(",", ":"))
        keys = (history_key(key), f"{{{key}}}:resets")
        self._runner.run([Call(script("history_add"), keys, (stream_id, written, resets, MAX_EXCHANGES, self._ttl))])


def _fitting(exchange: Exchange, tokens: int) -> Exchange:
    """Return an exchange of at most `tokens`; a short question leaves its room to the answer, and the reverse."""
    question, answer = estimate_tokens(exchange.question), estimate_tokens(exchange.answer)
    half = tokens // 2
    return Exchange(
        _cut(exchange.question, max(half, tokens - answer)), _cut(exchange.answer, max(half, tokens - question))
    )


def _cut(text: str, tokens: int) -> str:
    if estimate_tokens(text) <= tokens:
        return text
    fitting = bisect_right(range(len(text)), tokens, key=lambda length: estimate_tokens(text[:length] + _CUT))
    return text[: max(0, fitting - 1)] + _CUT


def history_key(key: str) -> str:
    """Return the key of a conversation's exchanges."""
    return f"{{{key}}}:history"
