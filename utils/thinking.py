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
from typing import Literal, NamedTuple

from utils.markdown.lines import FenceTracker, code_spans, end_of_fence, opening_fence

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


def fold_thinking(text: str, mode: Thinking = "show") -> str:
    """Return `text` with each thinking passage in a closed `<think>` tag, or without them if `mode` is "hide".

    Tags inside code are left alone. A closing tag without an opening one, alone on its line, makes all text before it
    thinking; only in this case does a growing text change what was shown before.
    """
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


#: Tags, and lines with a character of a tag or a fence, that are examined; after them the text is all of one kind.
MOST_EXAMINED = 10_000
_BACKTICKS = re.compile("`+")
_MARKED = re.compile("[<`~]")
#: Characters at the beginning of a line that decide whether it is a code fence.
_HEAD = 500
#: Characters of a line that are held back until it is known whether a tag in it is code.
_MAX_HELD = 8 * 1024
#: Runs of backticks of a line that are kept while it grows.
_MOST_RUNS = 1000


class Piece(NamedTuple):
    """A piece of the text without tags."""

    thinking: bool
    text: str


class ThinkingStream:
    """Splits one growing text, for clients that cannot take text back. A tag cut between two deltas is in no piece.

    A closing tag without an opening one comes after text that was sent as the answer, so it is dropped.
    """

    def __init__(self) -> None:
        self._thinking = False
        self._fences = FenceTracker()
        #: The text that is held back, within the present line.
        self._held = ""
        #: Of the present line: its beginning, the lengths of its runs of backticks so far, and whether it began within
        #: the answer.
        self._head = ""
        self._runs: list[int] = []
        self._in_answer = True
        #: How many more tags, and lines with a mark, are examined.
        self._left = MOST_EXAMINED
        #: Whether line breaks are dropped because a passage has just begun.
        self._begins = False

    def feed(self, text: str) -> Iterator[Piece]:
        """Yield the pieces that a delta adds."""
        text, start = self._held + text, 0
        end = text.rfind("\n") + 1
        while start < end:
            stop = self._plain_end(text, start, end)
            if stop > start:
                yield from self._shown(text[start:stop])
            else:
                stop = text.index("\n", start) + 1
                yield from self._take(text[start:stop], complete=True)
                self._left -= 1
            self._head, self._runs, self._in_answer = "", [], not self._thinking
            start = stop
        yield from self._take(text[start:], complete=False)

    def _plain_end(self, text: str, start: int, end: int) -> int:
        """Return the end of the lines from `start` on in which no tag and no fence can be."""
        if self._left <= 0:
            return end
        if self._head or self._runs:
            return start
        marked = _MARKED.search(text, start, end)
        return max(start, text.rfind("\n", start, marked.start()) + 1) if marked else end

    def end(self) -> Iterator[Piece]:
        """Yield the pieces that were held back, after the end of the text."""
        yield from self._take(self._held, complete=True)

    def _take(self, line: str, *, complete: bool) -> Iterator[Piece]:
        """Yield the pieces of a line or its rest; a part that cannot be decided before the line's end is held back."""
        self._held = ""
        fenced = self._fences.fence is not None and self._in_answer
        if complete and self._in_answer:
            fenced = self._fences.inside((self._head + line[:_HEAD])[:_HEAD].rstrip("\r\n"))
        start, spans = 0, None
        while not fenced and self._left > 0 and (tag := TAG.search(line, start)):
            self._left -= 1
            before = line[start : tag.start()]
            if not self._thinking and self._may_be_code(before):
                if not complete and len(line) - start < _MAX_HELD:
                    yield from self._shown(before)
                    self._held = line[tag.start() :]
                    return
                spans = self._spans(line, start) if spans is None else spans
                if _within(tag.start(), spans):
                    yield from self._shown(line[start : tag.end()])
                    start = tag.end()
                    continue
            yield from self._shown(before)
            # A fence stands at the beginning of its line: one that follows a tag is none.
            self._head += tag[0]
            start = tag.end()
            # A tag that changes nothing is dropped.
            if bool(tag[1]) == self._thinking:
                self._thinking, self._begins = not self._thinking, True
        rest = line[start:]
        shown = rest if complete or fenced else without_partial_tag(rest)
        if not complete:
            # The next delta may add to a run of backticks.
            shown = shown.rstrip("`")
        self._held = rest[len(shown) :]
        yield from self._shown(shown)

    def _shown(self, text: str) -> Iterator[Piece]:
        if len(self._head) < _HEAD:
            self._head = (self._head + text)[:_HEAD]
        if len(self._runs) < _MOST_RUNS:
            self._runs += [len(run) for run in islice(_BACKTICKS.findall(text), _MOST_RUNS)]
        if self._begins:
            text = text.lstrip("\r\n")
            self._begins = not text
        if text:
            yield Piece(self._thinking, text)

    def _may_be_code(self, before: str) -> bool:
        return bool(self._runs) or "`" in before or (self._head + before).lstrip().startswith("~~~")

    def _spans(self, line: str, start: int) -> list[tuple[int, int]]:
        """Return the code spans of the present line, of which `line` from `start` on is the rest."""
        # Only the lengths of the runs matter, so the beginning of the line is not kept.
        runs = "".join(f"{'`' * run} " for run in self._runs)
        shift = start - len(runs)
        return [(begin + shift, end + shift) for begin, end in code_spans(runs + line[start:])]


def _within(place: int, spans: list[tuple[int, int]]) -> bool:
    before = bisect_left(spans, (place,))
    return before > 0 and place < spans[before - 1][1]
