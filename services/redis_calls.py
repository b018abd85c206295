"""What is sent to Redis: the Lua steps of `services/lua`, and plain commands."""

from __future__ import annotations

import hashlib
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


class Command(NamedTuple):
    """A command on its way."""

    words: Words
    #: Says which node of a cluster it is for; "" for any.
    key: str = ""
    #: The script it runs by its digest, for a server that does not know it; "" for a plain command.
    source: str = ""


class Reply(NamedTuple):
    """What came back for a command: a value or an exception, and from which node; "" where there is only one."""

    value: Any
    node: str = ""


@dataclass(frozen=True, slots=True)
class Call:
    """One command to be sent with others: a script, or a plain command when `script` is None.

    All its keys are in one slot of a cluster; the first of them says in which.
    """

    script: Script | None
    keys: tuple[str, ...]
    args: Words = ()

    def command(self) -> Command:
        if self.script is None:
            words = (*self.keys, *self.args)
            return Command(words, str(words[1]) if len(words) > 1 else "")
        words = ("EVALSHA", self.script.sha, len(self.keys), *self.keys, *self.args)
        return Command(words, self.keys[0], self.script.source)
