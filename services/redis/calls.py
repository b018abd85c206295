"""Calls of commands and Lua scripts, and one round trip of them to one server.

A cluster sends a `Pipeline` to each of its nodes (`cluster.py`); everything else is a `SingleServer`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import redis

from services.redis.client import FAILURES, BoundedPool, Words

#: Each package has its Lua scripts beside its stores: `services/**/lua/<name>.lua`.
PACKAGES = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua script with the prelude before it."""

    name: str
    source: str
    sha: str


@cache
def script(name: str) -> Script:
    """Return the script `services/**/lua/<name>.lua`."""
    source = "".join(_files()[part].read_text("utf-8") for part in ("prelude", name))
    return Script(name, source, hashlib.sha1(source.encode()).hexdigest())


def all_scripts() -> list[Script]:
    return [script(name) for name in _files() if name != "prelude"]


@cache
def _files() -> dict[str, Path]:
    return {path.stem: path for path in sorted(PACKAGES.glob("**/lua/*.lua"), key=lambda path: path.stem)}


class Call(NamedTuple):
    """One command of a pipeline: a script, or a plain command if `script` is None.

    All its keys are in one slot of a Redis Cluster, which the first key selects. The key of a plain command is the word
    after its name.
    """

    script: Script | None
    keys: tuple[str | int | float, ...]
    args: Words = ()

    @property
    def words(self) -> Words:
        """The words to send. Computed here because thousands of calls may wait, and tuples cost memory."""
        if self.script is None:
            return (*self.keys, *self.args)
        return ("EVALSHA", self.script.sha, len(self.keys), *self.keys, *self.args)

    @property
    def key(self) -> str:
        """The key that selects the node of a Redis Cluster; "" for any node."""
        if self.script:
            return str(self.keys[0])
        return str(self.words[1]) if len(self.keys) + len(self.args) > 1 else ""


class Replies(NamedTuple):
    """The replies to calls, in their order, as values or exceptions, with the nodes they came from."""

    values: list[Any]
    #: Name of the node; "" if there is only one.
    nodes: list[str]


def load_calls(calls: Iterable[Call]) -> list[Call]:
    """Return the SCRIPT LOAD calls for the scripts of `calls`."""
    sources = dict.fromkeys(call.script.source for call in calls if call.script)
    return [Call(None, ("SCRIPT", "LOAD", source)) for source in sources]


class Pipeline:
    """Calls to one server in one round trip. Sent and read separately, so that several servers work in parallel."""

    def __init__(self, client: redis.Redis, calls: Sequence[Call]) -> None:
        self._pool = client.connection_pool
        self._shapes = client.response_callbacks
        self._calls = calls
        self._connection: Any = None
        #: The replies once they are read: values or exceptions.
        self.replies: list[Any] = []
        self.failed = False

    def close(self) -> None:
        """Return the connection to the pool; disconnect it if replies are missing."""
        if self._connection:
            if self.failed or len(self.replies) < len(self._calls):
                self._connection.disconnect()
            self._pool.release(self._connection)

    def send(self) -> None:
        try:
            self._connection = self._pool.get_connection()
            packed = self._connection.pack_commands([call.words for call in self._calls])
            self._connection.send_packed_command(packed)
        except redis.DataError:
            # A bug in the caller, not an outage.
            raise
        except FAILURES as exc:
            self._fail(exc)

    def read(self) -> None:
        """Read the replies; if the server fails, its exception replaces each missing one."""
        if self.failed:
            return
        try:
            for call in self._calls:
                self.replies.append(self._next(call))
        except FAILURES as exc:
            self._fail(exc)

    def _next(self, call: Call) -> Any:
        """Return the next reply, converted as the library does for that command, or Redis's error."""
        try:
            value = self._connection.read_response()
        except redis.ResponseError as exc:
            return exc
        shape = None if call.script else self._shapes.get(call.keys[0])  # type: ignore[no-untyped-call]
        return shape(value) if shape else value

    def _fail(self, exc: Exception) -> None:
        self.failed = True
        if self._connection and type(exc) is redis.ConnectionError:
            exc = redis.ConnectionError(f"{self._connection._host_error()}: {exc}")
        self.replies += [exc] * (len(self._calls) - len(self.replies))


class SingleServer:
    """Exchanges with one server; `ClusterClient` has the same methods. Errors are returned among the replies."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._pool = client.connection_pool

    def exchange(self, calls: Sequence[Call]) -> Replies:
        values = self._pipeline(calls)
        unknown = [i for i, value in enumerate(values) if isinstance(value, redis.exceptions.NoScriptError)]
        if unknown:
            loads = load_calls(calls[i] for i in unknown)
            again = self._pipeline([*loads, *(calls[i] for i in unknown)])[len(loads) :]
            for i, value in zip(unknown, again, strict=True):
                values[i] = value
        if isinstance(self._pool, BoundedPool) and any(isinstance(v, redis.exceptions.ReadOnlyError) for v in values):
            # The server is no longer a master: new connections look up the present one by name or Sentinels.
            self._pool.route.renew()
        return Replies(values, [""] * len(values))

    def everywhere(self, calls: Iterable[Call]) -> Replies:
        return self.exchange(list(calls))

    def names(self) -> Collection[str]:
        return ("",)

    def home(self, key: str) -> str:
        return ""

    def _pipeline(self, calls: Sequence[Call]) -> list[Any]:
        pipeline = Pipeline(self._client, calls)
        try:
            pipeline.send()
            pipeline.read()
        finally:
            pipeline.close()
        return pipeline.replies
