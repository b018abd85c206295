"""Cuts the rest of an answer into messages, where one late message cannot carry it. Pure functions of the text."""

from __future__ import annotations

from collections.abc import Iterator

from utils.markdown.late_text import Rest, rest_of
from utils.stream_utils import FRAME_BYTES, clip_utf8, compose_rest

#: Bytes for a mark such as "(12/52)" and the blank line after it.
_MARK_BYTES = 16
_BETWEEN = "\n\n"


def numbered_parts(rest: Rest, ending: str, *, shown: int, max_bytes: int = FRAME_BYTES) -> list[str]:
    """Return messages of at most `max_bytes` with the rest, and after it the `ending`: each begins with "(k/n)".

    `shown` is the number of parts before them. A single message without a part before it has no mark.
    """
    room = max_bytes - _MARK_BYTES
    bodies = list(_bodies(rest, room))
    if bodies and _size(bodies[-1] + _BETWEEN + ending) <= room:
        bodies[-1] = _BETWEEN.join(filter(None, (bodies[-1], ending)))
    elif ending:
        bodies.append(clip_utf8(ending, room))
    total = shown + len(bodies)
    if total == 1:
        return bodies
    return [f"({number}/{total}){_BETWEEN}{body}" for number, body in enumerate(bodies, shown + 1)]


def _bodies(rest: Rest, room: int) -> Iterator[str]:
    """Yield what fits into each message: cut between graphemes, code fences closed, tables' headers repeated."""
    while rest.text.strip():
        whole = rest.whole
        # No more than this can fit; rendering all of a long rest for each message would take quadratic time.
        window = clip_utf8(whole, room + 64)
        seen = compose_rest(window, "", "", max_bytes=room)
        if len(window) == len(whole) and not seen.cut:
            yield seen.body
            return
        after = rest_of(whole, seen.answer) if seen.answer else rest
        if len(after.text) >= len(rest.text):
            # A table's row that is larger than a message, or lines to repeat that fill it: cut between graphemes.
            body = clip_utf8(whole, room)
            yield body
            rest = Rest(whole[len(body) :])
        else:
            yield seen.body
            rest = after


def _size(text: str) -> int:
    return len(text.encode("utf-8", "replace"))
