"""Sets variables in a `.env` file and keeps all else: other lines, comments, line ends, and where a link leads.

A `.env` has secrets, so it is replaced by a new file of mode 0600, never opened to others for a moment, never half
written.
"""

from __future__ import annotations

import io
import os
import re
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from dotenv import dotenv_values
from dotenv.parser import Binding, parse_stream

_BOM = "\ufeff"
#: Values that every reader of `.env` files takes without quotes.
_PLAIN = re.compile(r"[A-Za-z0-9_./+=:@-]*")
#: What stands before a name: empty lines, spaces, `export`.
_BEFORE = re.compile(r"\s*(?:export[^\S\r\n]+)?")


class EnvFileUnusable(Exception):
    """The file cannot be read or written. The text says why, without any value."""


class EnvFile:
    """The file as it was when it was read; a link is followed. A file that does not exist yet is empty.

    Raises:
        EnvFileUnusable: it cannot be read, or cannot be replaced.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._target = Path(os.path.realpath(path))
        self._text = ""
        #: None if there is no file yet.
        self._was: os.stat_result | None = None
        try:
            # newline="": line ends stay as they are.
            with self._target.open(encoding="utf-8", newline="") as file:
                self._text, self._was = file.read(), os.fstat(file.fileno())
        except FileNotFoundError:
            pass
        except (OSError, UnicodeError) as exc:
            raise EnvFileUnusable(f"{path} cannot be read: {_reason(exc)}") from None
        self._try_to_write()

    def values(self) -> dict[str, str]:
        """Return the variables that have a value; the last one of a name counts."""
        found = dotenv_values(stream=io.StringIO(self._text), interpolate=False)
        return {name: value for name, value in found.items() if value}

    def save(self, values: Mapping[str, str]) -> None:
        """Set variables: in the place of their first line, else at the end. Further lines of them go.

        Raises:
            EnvFileUnusable: the file is as it was. Where the new one could be written but not be put in its place, it
                lies beside it and the text names it.
        """
        text = changed(self._text, values)
        read = dotenv_values(stream=io.StringIO(text))
        if {name: read.get(name) for name in values} != dict(values):
            raise EnvFileUnusable(f"{self.path}: the new values cannot be written so that they are read back")
        try:
            written = self._written(text)
        except OSError as exc:
            raise EnvFileUnusable(f"{self.path} cannot be written: {_reason(exc)}") from None
        try:
            os.replace(written, self._target)
        except OSError as exc:
            raise EnvFileUnusable(
                f"{self.path} cannot be replaced ({_reason(exc)}): its new content is in {written}"
            ) from None

    def _written(self, text: str) -> str:
        """Write a new file beside the old one, of mode 0600 and its owner; return its path."""
        # mkstemp makes the file with mode 0600.
        descriptor, path = tempfile.mkstemp(prefix=".env.", dir=self._target.parent)
        try:
            with open(descriptor, "w", encoding="utf-8", newline="") as file:
                if self._was and (self._was.st_uid, self._was.st_gid) != (os.getuid(), os.getgid()):
                    os.fchown(descriptor, self._was.st_uid, self._was.st_gid)
                file.write(text)
                file.flush()
                os.fsync(descriptor)
        except BaseException:
            with suppress(OSError):
                os.unlink(path)
            raise
        return path

    def _try_to_write(self) -> None:
        """Find out now what would fail later, when the new values could be lost."""
        if self._was and not stat.S_ISREG(self._was.st_mode):
            raise EnvFileUnusable(f"{self.path} is not a file")
        try:
            os.unlink(self._written(self._text))
        except OSError as exc:
            raise EnvFileUnusable(f"{self.path} cannot be written: {_reason(exc)}") from None


def changed(text: str, values: Mapping[str, str]) -> str:
    """Return the text of a `.env` file with these variables set, and everything else as it was."""
    newline = "\r\n" if "\r\n" in text else "\n"
    bom = _BOM if text.startswith(_BOM) else ""
    left = dict(values)
    body = "".join(_lines(parse_stream(io.StringIO(text, newline="")), values, left, newline))
    if left and body and not body.endswith(("\n", "\r")):
        body += newline
    return bom + body + "".join(f"{_line(name, value)}{newline}" for name, value in left.items())


def _lines(bindings: Iterator[Binding], values: Mapping[str, str], left: dict[str, str], newline: str) -> Iterator[str]:
    """Yield the file's lines; variables that were set are taken out of `left`."""
    for binding in bindings:
        string = binding.original.string
        if binding.error or binding.key not in values:
            yield string
            continue
        before = _BEFORE.match(string)
        kept = before[0] if before else ""
        if binding.key in left:
            yield f"{kept}{_line(binding.key, left.pop(binding.key))}{newline}"
        else:
            # Empty lines before it stay.
            yield kept.removesuffix(kept.lstrip())


def _line(name: str, value: str) -> str:
    if _PLAIN.fullmatch(value):
        return f"{name}={value}"
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"{name}='{escaped}'"


def _reason(exc: OSError | UnicodeError) -> str:
    return str(exc.strerror) if isinstance(exc, OSError) else "it is not UTF-8"
