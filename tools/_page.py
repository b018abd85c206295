"""Prints words from outside: in pieces and in lines, with the key masked and without a terminal's control codes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import TextIO

MASK = "***"
#: What would move a terminal's cursor, change its colours or ring its bell is shown as a sign that does not.
_HARMLESS = {code: "\ufffd" for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\n\t"} | {0x0D: None}


class Page:
    """Takes any text; `write` gets what may be shown of it."""

    def __init__(self, write: Callable[[str], object], *, key: str = "") -> None:
        self._write = write
        self._key = key
        self._within_line = False

    def words(self, text: str) -> None:
        """Go on where the last words ended."""
        if text:
            self._write(self._clean(text))
            self._within_line = not text.endswith("\n")

    def line(self, text: str = "") -> None:
        """Write a line of its own, whatever line breaks the text has."""
        self.words("\n" if self._within_line else "")
        self._write(self._clean(" ".join(text.split("\n"))) + "\n")

    def field(self, name: str, value: str) -> None:
        self.line(f"{name:<13} {value}")

    def _clean(self, text: str) -> str:
        masked = text.replace(self._key, MASK) if self._key else text
        return masked.translate(_HARMLESS)


def page_on(out: TextIO | None = None, *, key: str = "") -> Page:
    """Return a page that prints on `out`, else on standard output."""
    return Page(partial(print, end="", flush=True, file=out or sys.stdout), key=key)
