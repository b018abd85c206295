"""Write JSON with long texts piece by piece, without holding a whole text in memory."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

#: Maximum characters of a slice, and minimum bytes of a piece (except the last one).
SLICE = 4 * 1024
PIECE = 8 * 1024


class Slices:
    """A long text that is read in slices, any number of times."""

    def __init__(self, slices: Callable[[], Iterable[str]]) -> None:
        """`slices` starts a new read of the text."""
        self._slices = slices

    def __iter__(self) -> Iterator[str]:
        for text in self._slices():
            for start in range(0, len(text), SLICE):
                yield text[start : start + SLICE]


def text_member(slices: Callable[[], Iterable[str]], *, long: bool) -> str | Slices:
    """Return a text as a member of a JSON object: `Slices` if it is long, otherwise a string."""
    return Slices(slices) if long else "".join(slices())


def is_sliced(value: Any) -> bool:
    """Return whether a value is `Slices` or an object that contains them at any depth."""
    if isinstance(value, Mapping):
        return any(map(is_sliced, value.values()))
    return isinstance(value, Slices)


def json_pieces(value: Any) -> Iterator[bytes]:
    """Yield a value as compact JSON in pieces; each slice is read when its piece is requested."""
    # Bytes, because Python stores a string with one character outside the BMP in four bytes per character.
    waiting = b""
    for token in _tokens(value):
        waiting += token
        if len(waiting) >= PIECE:
            yield waiting
            waiting = b""
    if waiting:
        yield waiting


def _tokens(value: Any) -> Iterator[bytes]:
    if isinstance(value, Slices):
        yield b'"'
        for text in value:
            yield _json(text)[1:-1]
        yield b'"'
    elif is_sliced(value):
        for number, (name, member) in enumerate(value.items()):
            yield (b"," if number else b"{") + _json(name) + b":"
            yield from _tokens(member)
        yield b"}"
    else:
        yield _json(value)


def _json(value: Any) -> bytes:
    # A lone surrogate, which UTF-8 cannot encode, becomes a question mark.
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")
