"""Prints text from outside, in pieces and lines: masks the key and removes control codes of terminals."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import TextIO

from utils.printable import printable

MASK = "***"


def printable_field(text: str) -> str:
    """Return `printable` text whose further lines are indented, so that none looks like another field."""
    return printable(text).replace("\n", "\n    ")


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
