"""The rest of an answer, which a frame could not carry: where it begins, and how it is cut into messages.

Pure functions, linear in the text. Texts are rendered ones (`stream_utils.answer_text`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

from utils.markdown.lines import Fence, LineKind, LineState, classify
from utils.stream_utils import FRAME_BYTES, clip_utf8, compose_rest, joined

_TABLE = (LineKind.TABLE_HEAD, LineKind.TABLE)

#: Bytes for a mark such as "(12/52)" and the blank line after it.
_MARK_BYTES = 16
_BETWEEN = "\n\n"


class Rest(NamedTuple):
    """The part of a text that was not shown."""

    #: The text from the cut on.
    text: str
    #: The lines to repeat before it: an open code fence with its language, or a table's header.
    opening: str = ""

    @property
    def whole(self) -> str:
        return "\n".join(filter(None, (self.opening, self.text)))


def rest_of(whole: str, shown: str) -> Rest:
    """Return the part of `whole` after `shown`; all of `whole` if it does not begin with `shown`.

    White space is not compared: a growing text is rendered with other line breaks.
    """
    seen, everything = "".join(shown.split()), "".join(whole.split())
    if not seen or not everything.startswith(seen):
        return Rest(whole)
    last = next(islice(re.finditer(r"\S", whole), len(seen) - 1, None))
    position = last.end()
    # A frame that ended by its time may end inside a grapheme cluster.
    while joined(whole, position):
        position -= 1
    return _from(whole, position)


def second_part(
    rest: Rest, *, mark: str, footnote: str, ending: str, truncated: str, max_bytes: int = FRAME_BYTES
) -> str:
    """Return a message of at most `max_bytes`: the mark, the rest, and the sentences at the end.

    A rest that does not fit is cut and followed by `truncated`; the footnote is left out where it does not fit.
    """
    room = max_bytes - _size(mark)
    body, cut, _ = compose_rest(rest.whole, ending, truncated, max_bytes=room - 2)
    parts = [mark, body, truncated if cut else "", ending]
    if footnote and not cut and _size(_joined_parts([*parts, footnote])) <= max_bytes:
        parts.insert(2, footnote)
    return _joined_parts(parts)


def _from(whole: str, position: int) -> Rest:
    """Return the rest from a position on, moved to where Markdown can begin anew."""
    lines = whole.split("\n")
    number = whole.count("\n", 0, position)
    start = whole.rfind("\n", 0, position) + 1
    if position - start >= len(lines[number].rstrip()):
        # At a line's end: the rest begins with the next line that is not blank.
        number, start, position = _next_line(lines, number, start)
    if number >= len(lines):
        return Rest("")
    seen = list(classify(lines[: number + 2], LineState()))
    before = seen[number - 1][1].fence if number else None
    after = seen[number][1].fence
    if before and not after:
        return _after_fence(lines, number)
    if before:
        return Rest(_outdented(whole[position:], before, position > start), _opener(lines, before))
    if after or seen[number][0] in _TABLE:
        # A fence's first line, or a table's row: a part of it means nothing.
        position = start
    return _in_table(lines, number, [kind for kind, _ in seen]) or Rest(whole[position:])


def _next_line(lines: list[str], number: int, start: int) -> tuple[int, int, int]:
    """Return number and start of the next line that is not blank, and the position of its text."""
    while True:
        start += len(lines[number]) + 1
        number += 1
        if number >= len(lines) or lines[number].strip():
            return number, start, start


def _after_fence(lines: list[str], number: int) -> Rest:
    """Return the rest after the line that closes a fence: the frame's part is closed already."""
    return Rest("\n".join(lines[number + 1 :]).strip("\n"))


def _opener(lines: list[str], fence: Fence) -> str:
    line = lines[fence.line]
    return line[line.index(fence.marker) :]


def _outdented(text: str, fence: Fence, within_line: bool) -> str:
    """Return the code without its fence's indentation: the list around it, if there is one, is not repeated."""
    if not fence.indent:
        return text
    lines = text.split("\n")
    inside = [state.fence is not None for _, state in classify(lines, LineState(in_list=True, fence=fence))]
    code = inside.index(False) + 1 if False in inside else len(lines)
    margin = re.compile(rf"\A[ \t]{{1,{fence.indent}}}")
    kept = lines[:1] if within_line else []
    return "\n".join([*kept, *(margin.sub("", line) for line in lines[len(kept) : code]), *lines[code:]])


def _in_table(lines: list[str], number: int, kinds: list[LineKind]) -> Rest | None:
    """Return the rest from a table's row on, with the table's header before it; None for other lines."""
    if kinds[number] is not LineKind.TABLE:
        return None
    head = number
    while kinds[head] is not LineKind.TABLE_HEAD:
        head -= 1
    if number == head + 1:
        return Rest("\n".join(lines[head:]))
    return Rest("\n".join(lines[number:]), "\n".join(lines[head : head + 2]))


def _joined_parts(parts: list[str]) -> str:
    return "\n\n".join(filter(None, parts))


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
    """Yield the text of each message: cut between graphemes, code fences closed, tables' headers repeated."""
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
