"""Markdown as WeCom's markdown_v2 needs it: line breaks that survive, and which code fence is open at the end.

Every poll renders its whole text again, so this must cost little. The rules are `utils.markdown.lines`, which look at
each line; here a text is taken in stretches between blank lines. Most of them are of a kind that one regular expression
knows, and what the rules made of the others is remembered: only the last stretch of a growing text changes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from utils.markdown.lines import Fence, LineState, classify, render_lines

#: Characters of the longest stretch that is remembered, and how many are: 35 MB if all were that long.
STRETCH_CHARACTERS, STRETCHES = 1024, 8192

OUTSIDE, IN_LIST = LineState(), LineState(in_list=True)
IN_FENCE = LineState(fence=Fence(-1, 0, "```"))

#: The beginning of a line that can only be a paragraph's.
_PLAIN = r"(?:[^\s`~#>|=\-*+_\d]|\*\*[^\s*]|\d+[^\s\d.)|`])"
#: What stands after a list item's marker: no code fence, and nothing that makes a rule of the line.
_CONTENT = r"(?:[^\s`~*_\-]|\*\*[^\s*])[^\n]*"
_MARKER = r"(?:[-*+]|\d{1,9}[.)])[ \t]+"
_LINE = re.compile(rf"{_PLAIN}|#{{1,6}}[ \t]|>")
_HEADING = re.compile(r"#{1,6}[ \t][^\n]*\n")
_LINES = rf"{_PLAIN}[^\n`|]*(?:\n{_PLAIN}[^\n`|]*)*"
_LIST = rf"{_MARKER}{_CONTENT}(?:\n[ \t]*{_MARKER}{_CONTENT})*"
_ITEMS = re.compile(_LIST)
_PARAGRAPH = re.compile(rf"({_LINES})(?:\n({_LIST}))?")
_CODE = re.compile(r"```[^`\n]*(\n[^`]*)?(\n```[ \t]*)?")
_CODE_END = re.compile(r"(?:[^`]*\n)?```[ \t]*")


@dataclass(frozen=True, slots=True)
class OpenFence:
    """A code fence nobody closed: where its marker starts and ends, and the line that closes it."""

    start: int
    end: int
    closer: str


def render_markdown(text: str) -> str:
    """Put a blank line wherever markdown_v2 would swallow a single line break, or miss a table's beginning.

    A blank line, as the two-space hard break is not known to work in markdown_v2, and trailing spaces get lost on the
    way. Code, lists and tables stay as they are inside; a quoted paragraph of several lines becomes several quotes.
    Only white space changes, and a second time nothing.
    """
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    *settled, last = text.split("\n\n")
    state, out = OUTSIDE, []
    for stretch in settled:
        rendered, state = _simple(stretch, state) or _remembered(stretch, state)
        out.append(rendered)
    # Nobody will ask for the end of a growing text again.
    out.append((_simple(last, state) or _by_rules(last, state))[0])
    return "\n\n".join(out)


def open_fence(text: str) -> OpenFence | None:
    """Return the code fence still open at the end of `text`; it has only `\\n` line ends."""
    if "```" not in text and "~~~" not in text:
        return None
    state, position = OUTSIDE, 0
    places: list[tuple[int, str, LineState]] = []
    for stretch in text.split("\n\n"):
        places.append((position, stretch, state))
        state = (_simple(stretch, state) or _remembered(stretch, state))[1]
        position += len(stretch) + 2
    return _opened(places) if state.fence else None


def _opened(places: Sequence[tuple[int, str, LineState]]) -> OpenFence | None:
    """Return the fence that is open at the end of a text, by where its stretches begin and what they begin with."""
    for position, stretch, state in reversed(places):
        if state.fence and state.fence.marker[:3] not in stretch:
            continue
        lines = stretch.split("\n")
        fence = [after.fence for _, after in classify(lines, state)][-1]
        if fence and fence.line >= 0:
            start = position + sum(len(line) + 1 for line in lines[: fence.line])
            start += lines[fence.line].index(fence.marker)
            return OpenFence(start, start + len(fence.marker), " " * fence.indent + fence.marker)
    return None


def _simple(stretch: str, state: LineState) -> tuple[str, LineState] | None:
    """Return what the rules would make of a stretch of an everyday kind, None of any other."""
    if state.fence:
        if state.fence.marker[:3] not in stretch:
            return stretch, state
        return (stretch, LineState(state.in_list)) if state == IN_FENCE and _CODE_END.fullmatch(stretch) else None
    if "\n" not in stretch and _LINE.match(stretch):
        return stretch, OUTSIDE
    # By the first character, so that few patterns are tried in vain.
    if stretch.startswith("```"):
        code = _CODE.fullmatch(stretch)
        return (stretch, OUTSIDE if code[2] else IN_FENCE) if code else None
    if heading := _HEADING.match(stretch):
        below = _simple(stretch[heading.end() :], OUTSIDE)
        return (heading[0] + below[0], below[1]) if below else None
    if _ITEMS.fullmatch(stretch):
        return stretch, IN_LIST
    if not (paragraph := _PARAGRAPH.fullmatch(stretch)):
        return None
    lines, items = paragraph.groups()
    lines = lines.replace("\n", "\n\n")
    return (f"{lines}\n\n{items}", IN_LIST) if items else (lines, OUTSIDE)


def _by_rules(stretch: str, state: LineState) -> tuple[str, LineState]:
    return render_lines(stretch.split("\n"), state)


_kept = lru_cache(STRETCHES)(_by_rules)


def _remembered(stretch: str, state: LineState) -> tuple[str, LineState]:
    return _kept(stretch, state) if len(stretch) <= STRETCH_CHARACTERS else _by_rules(stretch, state)
