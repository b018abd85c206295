"""Turns a file of questions into a submission."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

#: The members that may hold the question in an object of a JSONL file, in order of preference.
QUESTION = ("question", "query", "text", "prompt", "问题")
SUFFIXES = (".txt", ".csv", ".tsv", ".xlsx", ".jsonl")
#: The options of the task. All others describe the file.
OF_THE_TASK = ("inputs", "max_attempts", "max_concurrent", "priority")


def submission(path: Path, **chosen: Any) -> dict[str, Any]:
    """Return the arguments for `requests`: JSON for a JSONL file, else a form with the file, which the server parses.

    Raises:
        OSError, ValueError: the file cannot be read, or its type is not supported.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"{path.name}: expected one of {', '.join(SUFFIXES)}")
    content = path.read_bytes()
    options = {name: chosen[name] for name in OF_THE_TASK if chosen[name] is not None}
    about = {"name": chosen["name"] or path.stem[:100], "description": chosen["description"]}
    if path.suffix.lower() == ".jsonl":
        return {"json": {**about, **json_questions(content, chosen["id_column"]), "options": options}}
    of_file = {name: chosen[name] for name in ("column", "id_column", "sheet")}
    form = {**about, **of_file, "options": json.dumps(options)}
    return {"data": {name: value for name, value in form.items() if value}, "files": {"file": (path.name, content)}}


def json_questions(content: bytes, id_member: str = "") -> dict[str, Any]:
    """Return the `texts` of a JSONL file, or its `items` if a member of its objects has their ids.

    Each line is a string, or an object with one of the `QUESTION` members.

    Raises:
        ValueError: a line is neither, or has no id.
    """
    lines = [_Line(at, line) for at, line in enumerate(content.decode("utf-8-sig").splitlines(), 1) if line.strip()]
    if not id_member:
        return {"texts": [line.question for line in lines]}
    return {"items": [{"text": line.question, "id": line.id_in(id_member)} for line in lines]}


class _Line:
    """A line of a JSONL file, parsed."""

    def __init__(self, number: int, line: str) -> None:
        self._number = number
        try:
            self._value = json.loads(line)
        except (ValueError, RecursionError) as exc:
            raise ValueError(f"line {number} is no JSON") from exc

    @property
    def question(self) -> str:
        value = self._value
        if isinstance(value, dict):
            value = next((value[name] for name in QUESTION if isinstance(value.get(name), str)), None)
        if not isinstance(value, str):
            problem = f"expected a string, or an object with one of {', '.join(QUESTION)}"
            raise ValueError(f"line {self._number}: {problem}")
        return value

    def id_in(self, member: str) -> str:
        found = self._value.get(member) if isinstance(self._value, dict) else None
        if isinstance(found, bool) or not isinstance(found, (str, int)):
            raise ValueError(f"line {self._number}: expected a text or a whole number as {member}")
        return str(found)
