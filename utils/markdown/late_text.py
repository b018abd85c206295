"""The rest of an answer, which a frame could not carry: where it begins, and how it is cut into messages.

Pure functions, linear in the text. Texts are rendered ones (`stream_utils.answer_text`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from utils.markdown.lines import Fence, FenceTracker, LineKind, LineState, classify
from utils.stream_utils import FRAME_BYTES, clip_utf8, compose_rest, joined, utf8_size

_TABLE = (LineKind.TABLE_HEAD, LineKind.TABLE)
_VISIBLE = re.compile(r"\S")

#: Bytes for a mark such as "(12/52)" and the blank line after it.
_MARK_BYTES = 16
_BETWEEN = "\n\n"
#: Most bytes of the lines that are repeated before a rest; a message is at least so many times as large.
OPENING_BYTES, _OPENING_SHARE = 500, 2
#: Characters after a message's room that show whether and how the text goes on.
_AHEAD = 64
#: Most white space that a message begins with.
_MOST_INDENT = 32


class Rest(NamedTuple):
    """The part of a text that was not shown."""

    #: The text from the cut on.
    text: str
    #: The lines to repeat before it: an open code fence with its language, or a table's header.
    opening: str = ""

    @property
    def whole(self) -> str:
        return _opened(self.opening) + self.text


class AnswerParts(NamedTuple):
    """The messages with a rest."""

    messages: list[str]
    #: Whether it needs more messages than allowed.
    cut: bool = False


class _Place(NamedTuple):
    """The place in a text where its rest begins."""

    position: int
    #: The lines to repeat before the rest.
    opening: str = ""
    #: The fence that the rest begins in: its code loses the fence's indentation.
    fence: Fence | None = None


def rest_of(whole: str, shown: str) -> Rest:
    """Return the part of `whole` after `shown`; all of `whole` if it does not begin with `shown`.

    White space is not compared: a growing text is rendered with other line breaks. Lines of more than `OPENING_BYTES`
    are not repeated.
    """
    return _rest_at(whole, _place_after(whole, shown), OPENING_BYTES)


def second_part(
    rest: Rest,
    *,
    mark: str,
    footnote: str,
    ending: str,
    truncated: str,
    more: bool = False,
    max_bytes: int = FRAME_BYTES,
) -> str:
    """Return a message of at most `max_bytes`: the mark, the rest, and the sentences at the end.

    A rest that does not fit, or after which there is `more` of the answer, is cut and followed by `truncated`; the
    footnote is left out where it does not fit.
    """
    room = max_bytes - utf8_size(mark)
    window = clip_utf8(rest.whole[: max_bytes + _AHEAD], max_bytes + _AHEAD)
    body, cut, _ = compose_rest(window, ending, truncated, max_bytes=room - 2)
    if more and not cut:
        body, cut = compose_rest(window, _joined_parts([truncated, ending]), "", max_bytes=room - 2).body, True
    parts = [mark, body, truncated if cut else "", ending]
    if footnote and not cut and utf8_size(_joined_parts([*parts, footnote])) <= max_bytes:
        parts.insert(2, footnote)
    return _joined_parts(parts)


def numbered_parts(
    rest: Rest,
    ending: str,
    *,
    shown: int,
    most: int,
    truncated: str,
    more: bool = False,
    max_bytes: int = FRAME_BYTES,
) -> AnswerParts:
    """Return messages of at most `max_bytes` with the rest, and after it the `ending`: each begins with "(k/n)".

    `shown` is the number of parts before them. A single message without a part before it has no mark. A rest that needs
    more than `most` messages is cut after them. After a cut, or where there is `more` of the answer, a further message
    begins with `truncated`.
    """
    room = max_bytes - _MARK_BYTES
    bodies = list(islice(_bodies(rest, room), most + 1))
    cut = more or len(bodies) > most
    if cut:
        bodies[most:] = [clip_utf8(_joined_parts([truncated, ending]), room)]
    elif bodies and utf8_size(bodies[-1] + _BETWEEN + ending) <= room:
        bodies[-1] = _joined_parts([bodies[-1], ending])
    elif ending:
        bodies.append(clip_utf8(ending, room))
    total = shown + len(bodies)
    if total > 1:
        bodies = [f"({number}/{total}){_BETWEEN}{body}" for number, body in enumerate(bodies, shown + 1)]
    return AnswerParts(bodies, cut)


def _place_after(whole: str, shown: str) -> _Place:
    if whole.startswith(shown):
        position = len(shown.rstrip())
    else:
        seen, everything = "".join(shown.split()), "".join(whole.split())
        if not seen or not everything.startswith(seen):
            return _Place(0)
        position = next(islice(_VISIBLE.finditer(whole), len(seen) - 1, None)).end()
    if not position:
        return _Place(0)
    # A frame that ended by its time may end inside a grapheme cluster.
    while joined(whole, position):
        position -= 1
    return _place_at(whole, position)


def _place_at(whole: str, position: int) -> _Place:
    """Return the place at a position, moved to where Markdown can begin anew."""
    lines = whole.split("\n")
    number = whole.count("\n", 0, position)
    start = whole.rfind("\n", 0, position) + 1
    if position - start >= len(lines[number].rstrip()):
        # At a line's end: the rest begins with the next line that is not blank.
        number, start, position = _next_line(lines, number, start)
    if number >= len(lines):
        return _Place(len(whole))
    seen = list(classify(lines[: number + 2], LineState()))
    before = seen[number - 1][1].fence if number else None
    after = seen[number][1].fence
    if before and not after:
        # The line that closes a fence: the frame's part is closed already.
        rest = whole[start + len(lines[number]) :]
        return _Place(len(whole) - len(rest.lstrip("\n")))
    if before:
        return _Place(position, _opener(lines, before), before)
    if after or seen[number][0] in _TABLE:
        # A fence's first line, or a table's row: a part of it means nothing.
        position = start
    if seen[number][0] is LineKind.TABLE:
        return _in_table(lines, number, start, [kind for kind, _ in seen])
    return _Place(position)


def _next_line(lines: Sequence[str], number: int, start: int) -> tuple[int, int, int]:
    """Return number and start of the next line that is not blank, and the position of its text."""
    while True:
        start += len(lines[number]) + 1
        number += 1
        if number >= len(lines) or lines[number].strip():
            return number, start, start


def _opener(lines: Sequence[str], fence: Fence) -> str:
    line = lines[fence.line]
    return line[line.index(fence.marker) :]


def _in_table(lines: Sequence[str], number: int, start: int, kinds: Sequence[LineKind]) -> _Place:
    """Return the place at a table's row, with the table's header before it."""
    head = number
    while kinds[head] is not LineKind.TABLE_HEAD:
        head -= 1
    if number == head + 1:
        return _Place(start - len(lines[head]) - 1)
    return _Place(start, "\n".join(lines[head : head + 2]))


def _rest_at(whole: str, place: _Place, opening_bytes: int) -> Rest:
    text, opening = whole[place.position :], place.opening
    if place.fence:
        text = _outdented(text, place.fence, within_line=not whole[: place.position].endswith("\n"))
        opening = opening if utf8_size(opening) <= opening_bytes else place.fence.marker
    return Rest(text, opening if utf8_size(opening) <= opening_bytes else "")


def _outdented(text: str, fence: Fence, *, within_line: bool) -> str:
    """Return the code without its fence's indentation: the list around it, if there is one, is not repeated."""
    if not fence.indent:
        return text
    tracker, margin = FenceTracker(fence), re.compile(rf"\A[ \t]{{1,{fence.indent}}}")
    code: list[str] = []
    end = 0
    while tracker.fence and end < len(text):
        start, end = end, text.find("\n", end) + 1 or len(text)
        line = text[start:end]
        tracker.inside(line.rstrip("\n"))
        code.append(line if within_line and not start else margin.sub("", line))
    return "".join([*code, text[end:]])


def _bodies(rest: Rest, room: int) -> Iterator[str]:
    """Yield the text of each message: cut between graphemes, code fences closed, tables' headers repeated.

    Only the part of the text that fits into a message is read for it.
    """
    opening_bytes = min(OPENING_BYTES, room // _OPENING_SHARE)
    text, opening = rest
    while text := _from_visible(text):
        before = _opened(opening)
        begun = before + text[: room + _AHEAD]
        window = clip_utf8(begun, room + _AHEAD)
        seen = compose_rest(window, "", "", max_bytes=room)
        if len(window) == len(before) + len(text) and not seen.cut:
            yield seen.body
            return
        place = _place_after(begun, seen.answer)
        if place.position > len(before):
            yield seen.body
            text, opening = _rest_at(text, place._replace(position=place.position - len(before)), opening_bytes)
            continue
        # A table's row that is larger than a message, or its header almost fills it: cut between graphemes.
        body = clip_utf8(begun, room)
        if len(body) <= len(before):
            before, body = "", clip_utf8(text[:room], room)
        yield body
        text, opening = text[len(body) - len(before) :], ""


def _from_visible(text: str) -> str:
    """Return a text without its blank lines at the beginning; the indentation of the next line is limited."""
    visible = _VISIBLE.search(text)
    if not visible:
        return ""
    start = text.rfind("\n", 0, visible.start()) + 1
    return text[max(start, visible.start() - _MOST_INDENT) :]


def _opened(opening: str) -> str:
    return f"{opening}\n" if opening else ""


def _joined_parts(parts: Sequence[str]) -> str:
    return _BETWEEN.join(filter(None, parts))
