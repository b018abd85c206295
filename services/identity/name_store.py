"""The names of the bots' users, as WeCom's directory or the user table had them when they asked.

    dify_user_name:<bot>:<principal>   string, the name; 7 days from the last question

A callback may wait for neither, so each question leaves the name here for the callbacks of later ones.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress

from services.errors import StoreUnavailable
from services.models import Question
from services.redis.store import Call, ScriptRunner

#: Seconds a name is kept, and seconds after which a question writes an unchanged name again.
TTL = 604_800
FRESH = 3600.0
#: Users whose last write this process remembers.
MOST_KNOWN = 4096


#: Pattern of all keys of the store.
EVERY_NAME = "dify_user_name:*"


class NameStore:
    """Owns the key above; every method is one round trip at most."""

    def __init__(self, runner: ScriptRunner, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._runner = runner
        self._clock = clock
        #: Key → the name that this process wrote, and when.
        self._written: OrderedDict[str, tuple[str, float]] = OrderedDict()

    def note(self, question: Question, name: str) -> None:
        """Store the name of the person who asks, unless this process did so lately. An outage of Redis is ignored."""
        key, now = _key(question), self._clock()
        written, at = self._written.get(key, ("", 0.0))
        if not name or (written == name and now - at < FRESH):
            return
        with suppress(StoreUnavailable):
            self._runner.run([Call(None, ("SET", key), (name, "EX", TTL))])
            self._written[key] = (name, now)
            self._written.move_to_end(key)
            while len(self._written) > MOST_KNOWN:
                self._written.popitem(last=False)

    def name(self, question: Question) -> str:
        """Return the name of the person who asks; "" if it is unknown.

        Raises:
            StoreUnavailable: Redis is away.
        """
        return self._runner.run([self.call(question)])[0] or ""

    def call(self, question: Question) -> Call:
        """Return the call that reads the name; its reply is None if it is unknown."""
        return Call(None, ("GET", _key(question)))


def _key(question: Question) -> str:
    return f"dify_user_name:{question.bot}:{question.principal}"


def bot_and_person(key: str) -> tuple[str, str]:
    """Return the bot and the userid of a key that `EVERY_NAME` matches."""
    _, bot, person = key.split(":", 2)
    return bot, person
