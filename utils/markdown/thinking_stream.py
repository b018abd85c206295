"""Separates a model's thinking from its answer while the text grows, for clients that cannot take text back.

The rules are those of `utils.thinking`, but for one: a closing tag without an opening one comes after text that was
sent as the answer, so it is dropped.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

from utils.markdown.lines import FenceTracker, code_spans
from utils.thinking import TAG, without_partial_tag

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
    """Splits one growing text. A tag that is cut between two deltas is in no piece."""

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
