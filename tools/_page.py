"""Prints text from outside, in pieces, lines and JSON: masks the key and removes control codes of terminals."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import partial
from typing import Any, TextIO

MASK = "***"
#: Control codes, which could move a terminal's cursor, change its colours or turn the direction of its text: those that
#: JSON does not escape, and all.
_BEYOND_ASCII = (*range(0x7F, 0xA0), 0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
_CONTROLS = (*(code for code in range(0x20) if chr(code) not in "\n\t"), *_BEYOND_ASCII)
_HARMLESS = dict.fromkeys(_CONTROLS, "\ufffd") | {0x0D: None}
_ESCAPED = {code: f"\\u{code:04x}" for code in _BEYOND_ASCII}


def printable(text: str) -> str:
    """Return text with U+FFFD in the place of control codes, but for line feeds and tabs."""
    return text.translate(_HARMLESS)


def printable_field(text: str) -> str:
    """Return `printable` text whose further lines are indented, so that none looks like another field."""
    return printable(text).replace("\n", "\n    ")


def as_json(value: Any, *, indent: int | None = None, default: Callable[[Any], Any] | None = None) -> str:
    """Return a value as JSON for people and programs: control codes are escaped, other letters are not."""
    return json.dumps(value, ensure_ascii=False, indent=indent, default=default).translate(_ESCAPED)


class Printer:
    """Clean any text and pass it to `write`."""

    def __init__(self, write: Callable[[str], object], *, key: str = "") -> None:
        self._write = write
        self._key = key
        self._within_line = False

    def words(self, text: str) -> None:
        """Print text right after the last text."""
        if text:
            self._write(self._clean(text))
            self._within_line = not text.endswith("\n")

    def line(self, text: str = "") -> None:
        """Print one line. Line breaks in the text become spaces."""
        self.end_line()
        self._write(self._clean(" ".join(text.split("\n"))) + "\n")

    def end_line(self) -> None:
        """End a line that `words` has begun."""
        self.words("\n" if self._within_line else "")

    def field(self, name: str, value: str) -> None:
        self.line(f"{name:<13} {value}")

    def _clean(self, text: str) -> str:
        masked = text.replace(self._key, MASK) if self._key else text
        return printable(masked)


def printer_on(out: TextIO | None = None, *, key: str = "") -> Printer:
    """Return a printer on `out`, by default standard output."""
    return Printer(partial(print, end="", flush=True, file=out or sys.stdout), key=key)
