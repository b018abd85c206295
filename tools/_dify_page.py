"""Where the Dify client writes: words as they come, lines of their own, never the key nor orders to the terminal."""

from __future__ import annotations

from collections.abc import Callable

MASK = "***"
#: What would move a terminal's cursor, change its colours or ring its bell is shown as a sign that does not.
_HARMLESS = {code: "\ufffd" for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\n\t"} | {0x0D: None}


class Page:
    """Takes words from outside, whatever is in them."""

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
