"""What is sent to Redis: the Lua steps of `services/lua`, and plain commands."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

LUA = Path(__file__).parent / "lua"

Words = tuple[str | int | float, ...]


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


def all_scripts() -> list[Script]:
    return [script(path.stem) for path in sorted(LUA.glob("*.lua")) if path.stem != "prelude"]


class Call(NamedTuple):
    """One command to be sent with others: a script, or a plain command when `script` is None.

    All its keys are in one slot of a cluster; the first of them says in which. Of a plain command that is the word
    after its name.
    """

    script: Script | None
    keys: tuple[str | int | float, ...]
    args: Words = ()

    @property
    def words(self) -> Words:
        """What is sent. Made when it is: thousands of calls may wait together, and what waits is more to look after."""
        if self.script is None:
            return (*self.keys, *self.args)
        return ("EVALSHA", self.script.sha, len(self.keys), *self.keys, *self.args)

    @property
    def name(self) -> str:
        return "EVALSHA" if self.script else str(self.keys[0])

    @property
    def key(self) -> str:
        """Says which node of a cluster it is for; "" for any."""
        if self.script:
            return str(self.keys[0])
        return str(self.words[1]) if len(self.keys) + len(self.args) > 1 else ""

    @property
    def source(self) -> str:
        """The script it runs by its digest, for a server that does not know it; "" for a plain command."""
        return self.script.source if self.script else ""


class Replies(NamedTuple):
    """What came back for some calls, in their order: values or exceptions, and the nodes they came from."""

    values: list[Any]
    #: "" where there is only one.
    nodes: Sequence[str]
