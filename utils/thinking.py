"""Separate a model's thinking from its answer.

WeCom shows `<think>…</think>` as the thinking process and accepts no other tag. Models use several tags, leave the tag
open while they think, and some send only the closing tag, because their prompt template contains the opening one.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Literal

from utils.markdown.lines import code_spans, end_of_fence, opening_fence

Thinking = Literal["show", "hide"]

_NAMES = ("think", "thinking", "thought", "thoughts", "reasoning")
#: Tags of a text that part it into passages.
MOST_TAGS = 10_000
#: An opening or closing tag; group 1 is "/" for a closing one.
TAG = re.compile(rf"<(/?)(?:{'|'.join(_NAMES)})>", re.IGNORECASE)
_LINE_END = re.compile(r"[\r\n]")
_TAGS = tuple(f"<{slash}{name}>" for name in _NAMES for slash in ("", "/"))


@dataclass(slots=True)
class Passage:
    """A passage of text that is entirely thinking or entirely answer."""

    thinking: bool
    pieces: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(self.pieces).strip("\r\n")

    @property
    def blank(self) -> bool:
        return not any(map(str.strip, self.pieces))


def fold_thinking(text: str, mode: Thinking = "show", *, growing: bool = False) -> str:
    """Return `text` with each thinking passage in a closed `<think>` tag, or without them if `mode` is "hide".

    Tags inside code are left alone. A closing tag without an opening one, alone on its line, makes all text before it
    thinking; only in this case does a growing text change what was shown before. `growing` holds back an incomplete
    tag at the end.
    """
    text = without_partial_tag(text) if growing else text
    if not TAG.search(text):
        return text
    shown = [part for part in split_thinking(text) if mode == "show" or not part.thinking]
    return "\n\n".join(f"<think>{part.text}</think>" if part.thinking else part.text for part in shown)


def has_tags(text: str) -> bool:
    """Return whether `text` contains a thinking tag, inside code or not."""
    return "<" in text and TAG.search(text) is not None


def split_thinking(text: str) -> list[Passage]:
    """Return the passages of `text` in order, without tags and blank passages; the time is linear in the text.

    Tags after `MOST_TAGS` are text.
    """
    parts, position = [Passage(False)], 0
    first = TAG.search(text)
    # Where the first tag is a closing one, the text may start with thinking.
    begins_within = first is not None and bool(first[1])
    for tag in islice(_tags(text), MOST_TAGS):
        parts[-1].pieces.append(text[position : tag.start()])
        position, closing = tag.end(), bool(tag[1])
        if begins_within and closing and not text[_line_start(text, 0, tag.start()) : tag.start()].strip():
            parts[-1].thinking = True
        begins_within = False
        # A tag that changes nothing is dropped.
        if closing == parts[-1].thinking:
            parts.append(Passage(not closing))
    parts[-1].pieces.append(text[position:])
    return [part for part in parts if not part.blank]


def without_partial_tag(text: str) -> str:
    """Return `text` without an incomplete tag at its end, such as `</thi`, which the next delta may complete."""
    start = text.rfind("<", max(0, len(text) - max(map(len, _TAGS))))
    tail = text[start:].lower()
    if start >= 0 and any(tag != tail and tag.startswith(tail) for tag in _TAGS):
        return text[:start]
    return text


def _tags(text: str) -> Iterator[re.Match[str]]:
    """Yield the tags that are not code. Code is not recognised within thinking."""
    position, thinking = 0, False
    tag, fence, code = TAG.search(text), opening_fence(text, 0), _CodeInLines(text)
    while tag:
        while fence and fence.start() < position and not thinking:
            fence = opening_fence(text, position)
        if fence and not thinking and fence.start() < tag.start():
            position = end_of_fence(text, fence)
        else:
            position = tag.end()
            if thinking or not code.contains(tag.start()):
                yield tag
                thinking = not tag[1]
        if tag.start() < position:
            tag = TAG.search(text, position)


class _CodeInLines:
    """The code spans of a text's lines, for places that are asked for in order; each line is parsed once."""

    def __init__(self, text: str) -> None:
        self._text = text
        #: No backtick is before this place in its line.
        self._plain = 0
        #: The line that was parsed last: its start, its end, and its code, counted from its start.
        self._start = self._end = 0
        self._spans: list[tuple[int, int]] = []

    def contains(self, place: int) -> bool:
        """Return whether a place is inside of code."""
        if place >= self._end:
            backtick = self._text.rfind("`", self._plain, place)
            if backtick < 0 or _LINE_END.search(self._text, backtick, place):
                self._plain = place
                return False
            end = _LINE_END.search(self._text, place)
            self._start = _line_start(self._text, self._end, place)
            self._plain = self._end = end.start() if end else len(self._text)
            self._spans = code_spans(self._text[self._start : self._end])
        column = place - self._start
        before = bisect_left(self._spans, (column + 1,))
        return before > 0 and column < self._spans[before - 1][1]


def _line_start(text: str, least: int, place: int) -> int:
    return max(text.rfind("\n", least, place), text.rfind("\r", least, place)) + 1
