"""The frames of both socket endpoints in docs/websocket.md, and their JSON Schema."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from jsonschema import Draft202012Validator

ROOT = Path(__file__).parents[3]
DOCUMENT = ROOT / "docs" / "websocket.md"
SCHEMA = json.loads((ROOT / "channels" / "web" / "pages" / "schema" / "websocket.json").read_text("utf-8"))
SIDES = ("chat.client", "chat.server", "realtime.client", "realtime.server")


class Example(NamedTuple):
    """One frame in the document, with its name there, for example chat.client.stop."""

    name: str
    frame: dict[str, Any]

    @property
    def endpoint(self) -> str:
        return self.name.split(".")[0]

    @property
    def by_client(self) -> bool:
        return self.name.split(".")[1] == "client"

    def __str__(self) -> str:
        return f"{self.name} {json.dumps(self.frame, ensure_ascii=False)[:60]}"


def examples() -> list[Example]:
    """Return every frame of the document, in its order."""
    return list(_examples(DOCUMENT.read_text("utf-8")))


def _examples(text: str) -> Iterator[Example]:
    for name, lines in re.findall(r"^```json ([\w.]+)\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        yield from (Example(name, json.loads(line)) for line in lines.splitlines())


def program(language: str) -> str:
    """Return the document's first code block in this language."""
    found = re.search(rf"^```{language}\n(.*?)^```", DOCUMENT.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert found, language
    return found[1]


@cache
def validator(name: str) -> Draft202012Validator:
    """Return the validator for one kind of frame, or for all frames of a side."""
    assert name in SCHEMA["$defs"], name
    return Draft202012Validator({"$defs": SCHEMA["$defs"], "$ref": f"#/$defs/{name}"})


def faults(name: str, frame: Any) -> list[str]:
    """Return the schema's errors for a frame; empty if it is valid."""
    return [f"{error.json_path}: {error.message}" for error in validator(name).iter_errors(frame)]


def kinds(side: str, frame: Any) -> list[str]:
    """Return the names of the side's frame types that match this frame: one for a valid frame."""
    return [name for name in SCHEMA["$defs"] if name.startswith(f"{side}.") and validator(name).is_valid(frame)]
