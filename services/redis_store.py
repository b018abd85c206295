"""The one way to Redis: a bounded pool, scripts in pipelines, and our error instead of the client's.

Clients never retry by themselves (redis-py's default of ten retries doubled chunks and held a call for a minute);
every script may be run twice, so `ScriptRunner.run` does it once more when a connection broke.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from services.errors import SettingsError, StoreUnavailable

log = logging.getLogger(__name__)

LUA = Path(__file__).parent / "lua"
#: Seconds one Redis call may take; a callback needs two and has two seconds.
SOCKET_TIMEOUT = 0.5
#: Seconds without a failure after which Redis counts as back: one that refuses writes still answers reads.
QUIET_SECONDS = 2.0
SCHEMES = ("redis", "rediss", "unix")


def connect(url: str, *, pool_size: int, timeout: float = SOCKET_TIMEOUT) -> redis.Redis:
    """Return a client that connects when first used and waits at most `timeout` seconds for anything.

    Text that ends inside a character loses that character: a poll reads a bounded number of bytes.

    Raises:
        SettingsError: the address is of a kind this version does not speak.
    """
    scheme = url.partition("://")[0]
    if scheme not in SCHEMES:
        raise SettingsError(f"REDIS_URL: {scheme}://..., expected one of {', '.join(SCHEMES)}")
    pool = redis.BlockingConnectionPool.from_url(
        url,
        max_connections=pool_size,
        timeout=timeout,
        socket_timeout=timeout,
        socket_connect_timeout=timeout,
        socket_keepalive=True,
        retry=Retry(NoBackoff(), 0),
        # Each word of a longer greeting would be a round trip more for whoever needs a new connection.
        protocol=2,
        driver_info=None,
        decode_responses=True,
        encoding_errors="ignore",
    )
    return redis.Redis.from_pool(pool)


@contextmanager
def redis_errors() -> Iterator[None]:
    """Turn whatever Redis or its client raises into `StoreUnavailable`."""
    try:
        yield
    except redis.ResponseError as exc:
        # The client may put the refused command into the message, values included: only Redis's own word goes on.
        raise StoreUnavailable(f"redis refused: {type(exc).__name__} {str(exc).split(' ')[0]}") from None
    except (redis.RedisError, OSError, UnicodeDecodeError) as exc:
        raise StoreUnavailable(f"redis: {type(exc).__name__}: {exc}") from exc


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua step of `services/lua` with the prelude before it."""

    name: str
    source: str
    sha: str


@cache
def script(name: str) -> Script:
    """Return the script `services/lua/<name>.lua`."""
    source = (LUA / "prelude.lua").read_text("utf-8") + (LUA / f"{name}.lua").read_text("utf-8")
    return Script(name, source, hashlib.sha1(source.encode()).hexdigest())


@dataclass(frozen=True, slots=True)
class Call:
    """One command to be sent with others: a script, or a plain command when `script` is None."""

    script: Script | None
    keys: tuple[str, ...]
    args: tuple[str | int | float, ...] = ()

    def command(self) -> tuple[str | int | float, ...]:
        if self.script is None:
            return (*self.keys, *self.args)
        return ("EVALSHA", self.script.sha, len(self.keys), *self.keys, *self.args)


class ScriptRunner:
    """Sends calls as one pipeline: one round trip for any number of them."""

    def __init__(self, client: redis.Redis, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._clock = clock
        self._noting = threading.Lock()
        self._away_since: float | None = None
        self._failed_at = 0.0

    def run(self, calls: Sequence[Call], *, attempts: int = 2, mistyped: bool = False) -> list[Any]:
        """Return one reply per call; with `mistyped` a key of another type than asked for reads as an error object.

        Raises:
            StoreUnavailable: Redis is away, or refused one of the calls. Some may have been carried out.
        """
        try:
            with redis_errors():
                replies = self._attempt(calls, attempts)
                _raise_errors(replies, mistyped)
        except StoreUnavailable as exc:
            self._note_away(exc)
            raise
        if self._away_since is not None and self._clock() - self._failed_at >= QUIET_SECONDS:
            self._note_back()
        return replies

    def load(self) -> None:
        """Load every script, so that no question pays for the first use of one."""
        sources = [script(path.stem).source for path in LUA.glob("*.lua") if path.stem != "prelude"]
        self.run([Call(None, ("SCRIPT", "LOAD", source)) for source in sources])

    def ping(self) -> None:
        """Raise `StoreUnavailable` unless Redis answers."""
        self.run([Call(None, ("PING",))], attempts=1)

    def _attempt(self, calls: Sequence[Call], attempts: int) -> list[Any]:
        began = self._clock()
        for _ in range(attempts - 1):
            try:
                return self._send(calls)
            except redis.ConnectionError:
                if self._clock() - began > SOCKET_TIMEOUT:
                    raise
        return self._send(calls)

    def _send(self, calls: Sequence[Call]) -> list[Any]:
        replies = self._pipeline(calls)
        unknown = [i for i, reply in enumerate(replies) if isinstance(reply, redis.exceptions.NoScriptError)]
        if unknown:
            sources = {s.source for i in unknown if (s := calls[i].script)}
            loads = [Call(None, ("SCRIPT", "LOAD", source)) for source in sources]
            again = self._pipeline([*loads, *(calls[i] for i in unknown)])[len(loads) :]
            for i, reply in zip(unknown, again, strict=True):
                replies[i] = reply
        if any(isinstance(reply, redis.exceptions.ReadOnlyError) for reply in replies):
            # This is no master any more: the next connections find the one the name leads to now.
            self._client.connection_pool.disconnect(inuse_connections=False)
        return replies

    def _pipeline(self, calls: Sequence[Call]) -> list[Any]:
        with self._client.pipeline(transaction=False) as pipeline:
            for call in calls:
                pipeline.execute_command(*call.command())  # type: ignore[no-untyped-call]
            return pipeline.execute(raise_on_error=False)

    def _note_away(self, exc: StoreUnavailable) -> None:
        """Log the first failure of an outage, not one line per poll."""
        with self._noting:
            self._failed_at = self._clock()
            if self._away_since is None:
                self._away_since = self._clock()
                log.error("redis is away", extra={"cause": str(exc)})

    def _note_back(self) -> None:
        with self._noting:
            if self._away_since is not None:
                log.warning("redis is back", extra={"away_seconds": round(self._clock() - self._away_since, 1)})
                self._away_since = None


def _raise_errors(replies: Sequence[Any], mistyped: bool) -> None:
    for reply in replies:
        if isinstance(reply, Exception) and not (mistyped and str(reply).startswith("WRONGTYPE")):
            raise reply
