"""Turns a file of questions into a submission."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

#: The members that may hold the question in an object of a JSONL file, in order of preference.
QUESTION = ("question", "query", "text", "prompt", "问题")
SUFFIXES = (".txt", ".csv", ".tsv", ".xlsx", ".jsonl")
#: The options of the task. All others describe the file.
OF_THE_TASK = ("inputs", "max_attempts", "max_concurrent")


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
        return {"json": {**about, "texts": json_texts(content), "options": options}}
    form = {**about, "column": chosen["column"], "sheet": chosen["sheet"], "options": json.dumps(options)}
    return {"data": {name: value for name, value in form.items() if value}, "files": {"file": (path.name, content)}}


def json_texts(content: bytes) -> list[str]:
    """Return the questions of a JSONL file. Each line is a string, or an object with one of the `QUESTION` members.

    Raises:
        ValueError: a line is neither.
    """
    lines = enumerate(content.decode("utf-8-sig").splitlines(), 1)
    return [_question(number, line) for number, line in lines if line.strip()]


def _question(number: int, line: str) -> str:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as exc:
        raise ValueError(f"line {number} is no JSON") from exc
    if isinstance(value, dict):
        value = next((value[name] for name in QUESTION if isinstance(value.get(name), str)), None)
    if not isinstance(value, str):
        raise ValueError(f"line {number}: expected a string, or an object with one of {', '.join(QUESTION)}")
    return value
