"""Draws charts as SVG: columns over time, or a row for each name. The page has a table with the same figures beside."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from math import floor, log10
from typing import NamedTuple
from unicodedata import east_asian_width

#: Pixels of a chart of columns, of a row, of the texts, and of the space left of the columns.
HEIGHT, ROW, FONT, LEFT = 220, 28, 12, 56
#: Pixels above and below the columns, for the first line's text and for their names.
TOP, BOTTOM = 14, 24
#: The part of the width that names of rows have at most, and the part that values after bars have.
NAMES, VALUES = 0.34, 0.2
#: Steps of the scale, in powers of ten.
STEPS = (1, 2, 2.5, 5, 10)


class Colours(NamedTuple):
    """The colours of a theme, as the pages have them: an image does not inherit theirs."""

    bar: str
    text: str
    line: str


LIGHT = Colours("#2459d6", "#5c6472", "#e2e6ec")
DARK = Colours("#83aaff", "#9fa8b6", "#2c333e")


class Bar(NamedTuple):
    """A bar with its name."""

    name: str
    value: float


def columns(bars: Sequence[Bar], *, width: int, colours: Colours, unit: str = "") -> str:
    """Return a chart of columns in the order of time, with as many of their names as have room."""
    top = _scale(max((bar.value for bar in bars), default=0.0))
    room = (width - LEFT) / max(1, len(bars))
    floor_y, height = HEIGHT - BOTTOM, HEIGHT - BOTTOM - TOP

    def drawn() -> Iterator[str]:
        for part in (0.0, 0.5, 1.0):
            y = floor_y - part * height
            yield f'<path d="M{LEFT} {y:.1f}H{width}" stroke="{colours.line}"/>'
            yield _text(LEFT - 8, y + 4, " ".join(filter(None, (amount(top * part), unit * (part == 1.0)))), "end")
        free = 0.0
        for number, bar in enumerate(bars):
            x, tall = LEFT + room * number, bar.value / top * height
            gap = min(4.0, room * 0.2)
            yield (
                f'<rect x="{x + gap / 2:.1f}" y="{floor_y - tall:.1f}" width="{room - gap:.1f}" height="{tall:.1f}" '
                f'fill="{colours.bar}"/>'
            )
            half = _width(bar.name) / 2
            middle = min(max(x + room / 2, LEFT + half), width - half)
            if middle - half >= free:
                free = middle + half + FONT
                yield _text(middle, HEIGHT - 6, bar.name, "middle")

    return _svg(width, HEIGHT, colours, drawn())


def rows(bars: Sequence[Bar], *, width: int, colours: Colours, unit: str = "") -> str:
    """Return a chart with a row for each bar: its name, the bar, and its value."""
    widest = max((_width(bar.name) for bar in bars), default=0.0)
    names, values = min(widest + FONT, width * NAMES), width * VALUES
    room = width - names - values
    top = max((bar.value for bar in bars), default=0.0) or 1.0

    def drawn() -> Iterator[str]:
        for number, bar in enumerate(bars):
            y, long = number * ROW, bar.value / top * room
            yield _text(names - 8, y + ROW / 2 + 4, _cut(bar.name, names - 8), "end")
            size = f'width="{long:.1f}" height="{ROW - 8}"'
            yield f'<rect x="{names:.1f}" y="{y + 4}" {size} rx="2" fill="{colours.bar}"/>'
            yield _text(names + long + 6, y + ROW / 2 + 4, " ".join(filter(None, (amount(bar.value), unit))), "start")

    return _svg(width, max(1, len(bars)) * ROW, colours, drawn())


def amount(value: float) -> str:
    """Return a value as it is written beside a bar: four digits, thousands and millions by their letters."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if value >= size:
            return f"{value / (1e3 if letter == 'k' else size):.4g}{letter}"
    return f"{value:.4g}"


def _scale(highest: float) -> float:
    """Return a round number that is at least as high; 1 for no value."""
    if highest <= 0:
        return 1.0
    power = 10.0 ** floor(log10(highest))
    return next(step * power for step in STEPS if step * power >= highest * 0.999999)


def _svg(width: int, height: int, colours: Colours, parts: Iterator[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        f'font-family="system-ui, sans-serif" font-size="{FONT}" fill="{colours.text}">{"".join(parts)}</svg>'
    )


def _text(x: float, y: float, words: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def _width(words: str) -> float:
    """Return about how many pixels a text needs."""
    return sum(FONT if east_asian_width(letter) in "WF" else FONT * 0.58 for letter in words)


def _cut(words: str, room: float) -> str:
    """Return a text that has room, the longer one without its end."""
    # Control characters are not XML.
    words = "".join(letter for letter in words if letter.isprintable())
    if _width(words) <= room:
        return words
    while words and _width(words) + FONT > room:
        words = words[:-1]
    return f"{words}…"
