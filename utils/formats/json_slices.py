"""JSON with texts that come slice by slice: it is written in pieces, and nobody holds the whole of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

#: Characters of a slice at the most, and bytes of a piece at the least, the last one excepted.
SLICE = 4 * 1024
PIECE = 8 * 1024


class Slices:
    """A long text as its slices; it can be read more than once."""

    def __init__(self, slices: Callable[[], Iterable[str]]) -> None:
        """Take what begins to read it."""
        self._slices = slices

    def __iter__(self) -> Iterator[str]:
        for text in self._slices():
            for start in range(0, len(text), SLICE):
                yield text[start : start + SLICE]


def text_member(slices: Callable[[], Iterable[str]], *, long: bool) -> str | Slices:
    """Return a text as a member of a JSON object: a string, or where it is long its slices."""
    return Slices(slices) if long else "".join(slices())


def is_sliced(value: Any) -> bool:
    """Tell whether a value is `Slices`, or has some at whatever depth of its objects."""
    if isinstance(value, Mapping):
        return any(map(is_sliced, value.values()))
    return isinstance(value, Slices)


def json_pieces(value: Any) -> Iterator[bytes]:
    """Yield a value as JSON without blanks, in pieces; each slice is read when its piece is asked for."""
    # Bytes: a text with one rare character takes four times as many as a string.
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
    # Half a character pair, which no UTF-8 can say, becomes a question mark.
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")
