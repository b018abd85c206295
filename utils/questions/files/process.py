"""Reads a file of questions in a process of its own, with limits on time and memory.

A large file takes seconds of CPU time, and a malicious one could use all memory. Call `read_file` and `preview`
directly only for trusted files.

    arguments   limits of the process: seconds of CPU time and bytes of memory
    stdin       {"preview", "wanted": the fields of `Wanted`} as one line of JSON, then the file
    stdout      {"unvalued": n}, then each `FileRow` as one line of JSON; or one line with the preview; or
                {"reason", "field", "problem"} of the error
"""

from __future__ import annotations

import io
import json
import resource
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from utils.questions.files.reading import preview, read_file
from utils.questions.files.rows import FileRefused, Wanted


def request(wanted: Wanted, *, previewed: bool = False) -> bytes:
    """Return the line that precedes the file on the stdin of the process."""
    return json.dumps({"preview": previewed, "wanted": asdict(wanted)}).encode() + b"\n"


def main(cpu_seconds: int, memory: int) -> None:
    _limit(cpu_seconds, memory)
    line = sys.stdin.buffer.readline()
    out = io.TextIOWrapper(sys.stdout.buffer, "utf-8", newline="\n")
    lines = _answer(json.loads(line), sys.stdin.buffer.read())
    out.writelines(f"{json.dumps(one, ensure_ascii=False)}\n" for one in lines)
    out.flush()


def _answer(asked: dict[str, Any], content: bytes) -> Iterator[Any]:
    wanted = Wanted(**asked["wanted"])
    try:
        if asked["preview"]:
            yield preview(content, wanted)
            return
        reading = read_file(content, wanted)
    except FileRefused as refused:
        yield {"reason": refused.reason, "field": refused.field, "problem": refused.problem}
        return
    yield {"unvalued": reading.unvalued}
    yield from reading.rows


def _limit(cpu_seconds: int, memory: int) -> None:
    for what, most in ((resource.RLIMIT_CPU, cpu_seconds), (resource.RLIMIT_AS, memory)):
        # Not every system supports both limits.
        with suppress(ValueError, OSError):
            resource.setrlimit(what, (most, most))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
