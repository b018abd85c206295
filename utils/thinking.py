"""Separate a model's thinking from its answer.

WeCom shows `<think>…</think>` as the thinking process and accepts no other tag. Models use several tags, leave the tag
open while they think, and some send only the closing tag, because their prompt template contains the opening one.
"""

from __future__ import annotations

import io
import re
from bisect import bisect_left
from dataclasses import dataclass, field
from typing import Literal

from utils.markdown.lines import FenceTracker, code_spans

Thinking = Literal["show", "hide"]

_NAMES = ("think", "thinking", "thought", "thoughts", "reasoning")
#: An opening or closing tag; group 1 is "/" for a closing one.
TAG = re.compile(rf"<(/?)(?:{'|'.join(_NAMES)})>", re.IGNORECASE)
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
        return not any(piece.strip() for piece in self.pieces)


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
    """Return the passages of `text` in order, without tags and blank passages."""
    parts = [Passage(False, [text])]
    if first := TAG.search(text):
        splitter = _Splitter(begins_within=bool(first[1]))
        for line in io.StringIO(text, newline=""):
            splitter.take(line)
        parts = splitter.parts
    return [part for part in parts if not part.blank]


def without_partial_tag(text: str) -> str:
    """Return `text` without an incomplete tag at its end, such as `</thi`, which the next delta may complete."""
    start = text.rfind("<", max(0, len(text) - max(map(len, _TAGS))))
    tail = text[start:].lower()
    if start >= 0 and any(tag != tail and tag.startswith(tail) for tag in _TAGS):
        return text[:start]
    return text


class _Splitter:
    """Splits lines into passages; the last passage is still open."""

    def __init__(self, *, begins_within: bool) -> None:
        """`begins_within`: the first tag of the text is a closing one, so the text may start with thinking."""
        self.parts = [Passage(False)]
        self._fences = FenceTracker()
        self._begins_within = begins_within

    def take(self, line: str) -> None:
        if not self.parts[-1].thinking and self._fences.inside(line.rstrip("\r\n")):
            self.parts[-1].pieces.append(line)
            return
        spans = code_spans(line)
        position = 0
        for tag in TAG.finditer(line):
            if not self.parts[-1].thinking and _within(tag.start(), spans):
                continue
            self.parts[-1].pieces.append(line[position : tag.start()])
            position = tag.end()
            if self._begins_within and tag[1] and not line[: tag.start()].strip():
                self.parts[-1].thinking = True
            self._begins_within = False
            self._switch(bool(tag[1]))
        self.parts[-1].pieces.append(line[position:])

    def _switch(self, closing: bool) -> None:
        """Start the next passage; a tag that changes nothing is dropped."""
        if closing == self.parts[-1].thinking:
            self.parts.append(Passage(not closing))


def _within(position: int, spans: list[tuple[int, int]]) -> bool:
    before = bisect_left(spans, (position + 1,))
    return before > 0 and position < spans[before - 1][1]
