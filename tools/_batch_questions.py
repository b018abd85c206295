"""The questions of a person's file, as they are submitted."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

#: Names by which an object of a JSONL file may call its question.
QUESTION = ("question", "query", "text", "prompt", "问题")
SUFFIXES = (".txt", ".csv", ".tsv", ".xlsx", ".jsonl")


def submission(options: argparse.Namespace) -> dict[str, Any]:
    """Return a submission as `requests` takes it: JSON for JSONL, else a form with the file, which the server reads.

    Raises:
        OSError, ValueError: the file cannot be read, or is of no kind that is.
    """
    path: Path = options.file
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"{path.name}: expected one of {', '.join(SUFFIXES)}")
    content = path.read_bytes()
    said = {"inputs": options.inputs, "max_attempts": options.max_attempts, "max_concurrent": options.max_concurrent}
    chosen = {name: value for name, value in said.items() if value is not None}
    name = options.name or path.stem[:100]
    if path.suffix.lower() == ".jsonl":
        return {
            "json": {"name": name, "texts": json_texts(content), "description": options.description, "options": chosen}
        }
    fields = {"name": name, "description": options.description, "column": options.column, "sheet": options.sheet}
    fields["options"] = json.dumps(chosen) if chosen else ""
    return {"data": {name: value for name, value in fields.items() if value}, "files": {"file": (path.name, content)}}


def json_texts(content: bytes) -> list[str]:
    """Return the questions of a JSONL file: a line is a string, or an object that has one under a usual name.

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
