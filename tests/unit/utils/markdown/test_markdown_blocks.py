"""Answers become HTML that can do nothing in a browser, block by block, and at a cost that follows their length."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from html.parser import HTMLParser
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from tests.support.properties import examples
from tests.support.servers.processes import FakeClock
from utils.markdown import blocks as markdown_blocks
from utils.markdown.blocks import LARGE, MOST, BlockRenderer, render_markdown, render_slices
from utils.markdown.html import MARKDOWN, MOST_FILLED, clean_html

#: Much work, the same over and over: what watches for covered lines would take half of its time again.
hard_work = pytest.mark.no_cover

TAGS = {"p", "br", "hr", "strong", "em", "s", "a", "ul", "ol", "li", "blockquote", "code", "pre", "h1", "h2", "h3"}
TAGS |= {"h4", "h5", "h6", "table", "thead", "tbody", "tr", "th", "td"}
ATTRIBUTES = {"href", "rel", "target", "align", "start"}

#: What Markdown is made of, and what would hurt if it came through.
MARKS = [
    "\n",
    "\n",
    "\n\n",
    " ",
    "  ",
    "    ",
    "\t",
    "- ",
    "* ",
    "+ ",
    "1. ",
    "2) ",
    "10. ",
    "> ",
    ">",
    "# ",
    "##",
    "```",
]
MARKS += [
    "~~~",
    "`",
    "|",
    "| a | b |",
    "|---|--:|",
    "---",
    "===",
    "-",
    "=",
    "**",
    "*",
    "_",
    "~~",
    "\r\n",
    "\r",
    "\\",
    "\0",
]
WORDS = ["a", "b c", "你好", "&amp;", "&#x6a;", "[x]", "(http://a.example)", "![i](http://i.example/p.png)", "foo\nbar"]
WORDS += ["[[", "](", "<http://x.example>", "<mailto:a@b.example>", "😀", "\u2028"]
HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "[x](javascript:alert(1))",
    "<svg/onload=alert(1)>",
]
HOSTILE += [
    "[x](JaVaScRiPt:alert(1))",
    "[x](&#106;avascript:alert(1))",
    "[x](data:text/html;base64,PHNjcmlwdD4=)",
    "<style>*{}",
]
HOSTILE += [
    "![x](javascript:alert(1))",
    "<javascript:alert(1)>",
    "[x]: javascript:alert(1)\n\n[x]",
    "<iframe src=//a.example>",
]
HOSTILE += [
    '[x](http://a.example "onmouseover=alert(1)")',
    "[x](http://a.example'onclick='alert(1))",
    "<a href=x onclick=y>",
]
HOSTILE += [
    "<form action=//a.example><input>",
    "[x](//a.example)",
    "[x](/local)",
    "[x](\x01javascript:alert(1))",
    "<!--",
    "-->",
]
HOSTILE += [
    "</code></pre><script>",
    "[x](vbscript:a)",
    "[x](\tjava\nscript:a)",
    "<math><mi//xlink:href='data:x'>",
    "]]>",
    "<![CDATA[",
]
HOSTILE += [
    "[![a](http://i.example)](http://o.example)",
    '```"><script>\n',
    "|<script>|\n|---|\n|<b onclick=a>|\n",
    "<base href=//a>",
]

texts = st.lists(st.sampled_from(MARKS + WORDS), max_size=30).map("".join)
hostile_texts = st.lists(st.sampled_from(MARKS + WORDS + HOSTILE), max_size=30).map("".join)
pieces = st.randoms(use_true_random=False)


@dataclass
class Reader:
    """Shows an answer as a page does: each block takes the place of what had its number."""

    renderer: BlockRenderer = field(default_factory=lambda: BlockRenderer(clock=FakeClock()))
    blocks: dict[int, str] = field(default_factory=dict)
    #: Characters of HTML and blocks received.
    size: int = 0
    count: int = 0

    def reads(self, parts: Iterable[str]) -> Reader:
        for part in parts:
            self.shows(self.renderer.add(part))
        return self

    def finishes(self) -> str:
        self.shows(self.renderer.finish())
        return self.html

    def shows(self, changed: list[markdown_blocks.RenderedBlock]) -> None:
        for block in changed:
            self.blocks[block.block] = block.html
            self.size += len(block.html)
            self.count += 1

    @property
    def html(self) -> str:
        assert list(self.blocks) == list(range(len(self.blocks)))
        return "".join(self.blocks.values())


def cut(text: str, rnd: random.Random, longest: int = 7) -> list[str]:
    """Cut a text into pieces of random lengths."""
    parts, place = [], 0
    while place < len(text):
        end = place + rnd.randint(1, longest)
        parts.append(text[place:end])
        place = end
    return parts


def elements(html: str) -> list[tuple[str, dict[str, str]]]:
    """Return every element a browser would make of it, with its attributes."""
    found: list[tuple[str, dict[str, str]]] = []

    class Collector(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            found.append((tag, {name: value or "" for name, value in attrs}))

        def handle_comment(self, data: str) -> None:
            found.append(("!--", {}))

    Collector().feed(html)
    return found


def assert_harmless(html: str) -> None:
    for tag, attributes in elements(html):
        assert tag in TAGS
        assert set(attributes) <= ATTRIBUTES
        if tag == "a":
            assert re.match(r"(?:https?://|mailto:)", attributes.get("href", "http://"), re.IGNORECASE)
            assert attributes["rel"] == "noopener noreferrer nofollow"
            assert attributes["target"] == "_blank"


@hard_work
@settings(max_examples=examples(300))
@given(hostile_texts, pieces)
def test_nothing_in_an_answer_can_run_load_or_send(text: str, rnd: random.Random) -> None:
    """No tag, attribute or address beyond the allowed ones comes through, in any block at any time."""
    reader = Reader()
    for part in cut(text, rnd):
        reader.reads([part])
        for html in reader.blocks.values():
            assert_harmless(html)

    assert_harmless(reader.finishes())
    assert_harmless(render_markdown(text))


@pytest.mark.parametrize("attack", HOSTILE)
def test_what_would_hurt_is_shown_or_dropped(attack: str) -> None:
    """Each alone, at a line's beginning and within one."""
    for text in (attack, f"a {attack} b", f"- {attack}\n- b", f"> {attack}", f"| {attack} |\n|---|\n| {attack} |"):
        assert_harmless(render_markdown(text))


@pytest.mark.parametrize("attack", HOSTILE)
def test_the_second_wall_stands_alone(attack: str) -> None:
    """What a parser that lets everything through makes of it would still not pass."""
    careless = MarkdownIt("commonmark")
    careless.validateLink = lambda url: True  # type: ignore[method-assign]

    assert_harmless(clean_html(careless.render(f"{attack}\n\na {attack} b")))
    assert_harmless(clean_html(attack))


@pytest.mark.parametrize("attack", HOSTILE)
def test_the_first_wall_stands_alone(attack: str) -> None:
    """The parser makes no element of HTML, and no link of an address that runs or loads something."""
    for tag, attributes in elements(MARKDOWN.render(f"{attack}\n\na {attack} b")):
        assert tag in TAGS
        assert set(attributes) <= {*ATTRIBUTES, "title", "class"}
        assert attributes.get("href", "http://").startswith(("http://", "https://", "mailto:"))


@hard_work
@settings(max_examples=examples(600))
@given(texts, pieces)
def test_the_blocks_of_any_split_are_the_whole(text: str, rnd: random.Random) -> None:
    """However a text comes in pieces, its blocks end as the rendering of the whole text."""
    whole = render_markdown(text)

    assert Reader().reads(cut(text, rnd)).finishes() == whole
    assert Reader().reads(text).finishes() == whole
    assert Reader().reads([text]).finishes() == whole


@settings(max_examples=examples(100))
@given(texts, pieces)
def test_references_are_known_once_they_are_defined(text: str, rnd: random.Random) -> None:
    """A link that names a reference of an earlier block has its address, in any split."""
    text = f"[x]: http://x.example 'title'\n\n{text.replace(chr(0), '')}\n\n[x]\n"

    assert Reader().reads(cut(text, rnd)).finishes() == render_markdown(text)


def test_a_reference_that_comes_later_changes_no_block() -> None:
    """The one difference: a block that another one follows is shown as it is."""
    reader = Reader().reads(["[x] and\n\n", "more\n\n", "[x]: http://x.example\n\n", "[x]\n"])

    assert reader.finishes() == render_markdown("\\[x] and\n\nmore\n\n[x]: http://x.example\n\n[x]\n")


def test_a_finished_block_is_never_sent_again() -> None:
    """Only the last block changes while the answer grows; what is before it is rendered once."""
    reader = Reader().reads("# Title\n\nfirst\n\n- a\n- b\n\nlast")

    before = reader.count
    reader.reads([" words"])

    assert reader.count == before + 1
    assert list(reader.blocks) == [0, 1, 2, 3]
    assert reader.finishes() == render_markdown("# Title\n\nfirst\n\n- a\n- b\n\nlast words")


def test_what_comes_is_shown_at_once() -> None:
    """A small block shows each piece, and code that ends is followed by what comes after it."""
    reader = Reader().reads(["Hel"])
    assert reader.html == "<p>Hel</p>\n"

    reader.reads(["lo\n\n```py\n", "x = 1\n", "```\n", "then"])

    assert reader.html == "<p>Hello</p>\n<pre><code>x = 1\n</code></pre>\n<p>then</p>\n"


@pytest.mark.parametrize("mark", ["-", "==", "1", "2.", "#", "``", "**", "|"])
def test_a_mark_that_has_only_begun_is_not_shown(mark: str) -> None:
    """A line that holds nothing else yet waits for more: it would flash as text, or make a heading of the text."""
    reader = Reader().reads(["text\n", mark])

    assert reader.html == "<p>text</p>\n"
    assert reader.finishes() == render_markdown(f"text\n{mark}")


def test_markdown_is_shown_as_people_expect_it() -> None:
    """Lists, tables with their alignment, code, quotes, links and what is struck out."""
    html = render_markdown(
        "1. one\n   - two\n\n| x | y |\n|:-:|--:|\n| 1 | 2 |\n\n~~old~~ [link](https://example.com)\n\n3. three\n\n> q"
    )

    assert "<ol>\n<li>one\n<ul>\n<li>two</li>" in html
    assert '<th align="center">x</th>\n<th align="right">y</th>' in html
    assert "<s>old</s>" in html
    assert '<a href="https://example.com" target="_blank" rel="noopener noreferrer nofollow">link</a>' in html
    assert '<ol start="3">' in html
    assert "<blockquote>\n<p>q</p>" in html


@pytest.mark.parametrize(
    ("markdown", "shown"),
    [
        ("![plan](https://a.example/p.png)", '<a href="https://a.example/p.png" REL>plan</a>'),
        ("![](https://a.example/p.png)", '<a href="https://a.example/p.png" REL>https://a.example/p.png</a>'),
        ("[![plan](https://a.example/p.png)](https://b.example)", '<a href="https://b.example" REL>plan</a>'),
        ("![plan](data:image/png;base64,AAAA)", "![plan](data:image/png;base64,AAAA)"),
        ("[x](javascript:a)", "[x](javascript:a)"),
        ("[x](/admin)", "[x](/admin)"),
        ("<b>x</b>", "&lt;b&gt;x&lt;/b&gt;"),
    ],
)
def test_pictures_are_links_and_bad_addresses_stay_text(markdown: str, shown: str) -> None:
    """Nothing is loaded from elsewhere because an answer names it."""
    rel = 'target="_blank" rel="noopener noreferrer nofollow"'

    assert render_markdown(markdown) == f"<p>{shown.replace('REL', rel)}</p>\n"


#: Characters of a piece.
PIECE = 200
#: Texts that are one endless block, and one of many small ones.
ENDLESS = {
    "code": ("```\n", "x = 1\n"),
    "list": ("", "- 一行 row\n"),
    "table": ("| a | b |\n|---|---|\n", "| 一 | two |\n"),
    "paragraph": ("", "word "),
    "paragraphs": ("", "a **word** or two\n\n"),
}
#: Characters of such a text, in multiples of how many of an answer are Markdown.
MANY = 16


@pytest.fixture
def bound(monkeypatch: pytest.MonkeyPatch) -> int:
    """Make an eighth of an answer's usual part Markdown, and blocks large from an eighth on."""
    monkeypatch.setattr(markdown_blocks, "MOST", MOST // 8)
    monkeypatch.setattr(markdown_blocks, "LARGE", LARGE // 8)
    return MOST // 8


@pytest.mark.parametrize("name", ENDLESS)
def test_the_work_follows_the_length(name: str, bound: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is rendered on the way is a small multiple of the text, also when one block never ends."""
    begin, row = ENDLESS[name]
    text = begin + row * (MANY * bound // len(row))
    work = dict.fromkeys(("render_html", "top_level", "render_plain"), 0)
    for name in work:
        render = getattr(markdown_blocks, name)

        def counting(source: str, *args: object, name: str = name, render: Any = render) -> Any:
            work[name] += len(source)
            return render(source, *args)

        monkeypatch.setattr(markdown_blocks, name, counting)

    reader = Reader().reads(text[place : place + PIECE] for place in range(0, len(text), PIECE))

    assert reader.finishes() == render_markdown(text)
    assert work["render_html"] + work["top_level"] < 20 * bound
    assert work["render_plain"] < 30 * len(text)


@hard_work
def test_a_text_beyond_the_bound_is_shown_as_it_is(bound: int) -> None:
    """Up to it Markdown, in whole lines; from there on plain text, nothing of it lost."""
    text = "- **row**\n" * (bound // 10 + 500)

    html = render_markdown(text)

    assert html.count("<li><strong>row</strong></li>") == bound // 10
    assert html.count("- **row**") == 500
    assert Reader().reads(cut(text, random.Random(1), 1000)).finishes() == html
    assert_harmless(render_markdown("a" * bound + "<script>"))


@pytest.mark.parametrize("columns", [100, pytest.param(1000, marks=[hard_work, pytest.mark.full])])
def test_a_table_cannot_be_blown_up(columns: int) -> None:
    """Rows that are shorter than their heads cost no more than a bounded number of empty cells."""
    text = ("|a" * columns + "\n" + "|-" * columns + "\n" + "x\n" * 200 + "\n") * 10

    html = render_markdown(text)

    cells = html.count("<td>")
    assert cells <= MOST_FILLED + 2000
    assert len(html) < 12 * MOST_FILLED + 40 * len(text)
    assert Reader().reads(cut(text, random.Random(2), 50)).finishes() == html


def test_after_a_rendering_that_took_long_others_come_first() -> None:
    """It rests several times as long as it took, and then shows all there is."""
    clock = SlowClock()
    reader = Reader(BlockRenderer(clock=clock))
    reader.reads(["first"])

    reader.reads([" second"])
    assert reader.html == "<p>first</p>\n"
    clock.now += 10 * clock.step
    reader.reads([" third"])

    assert reader.html == "<p>first second third</p>\n"


class SlowClock(FakeClock):
    """A clock by which everything takes a second."""

    step = 1.0

    def __call__(self) -> float:
        self.now += self.step
        return self.now


@pytest.mark.parametrize(
    ("large", "between"),
    [("- row\n" * 5000, "\n"), ("row " * 10_000 + "\n", "\n"), ("```\n" + "row\n" * 8000 + "```\n", "")],
    ids=["list", "paragraph", "code"],
)
def test_the_end_of_a_large_block_is_seen(large: str, between: str) -> None:
    """What follows it is shown at once, and not when as much again has come."""
    reader = Reader().reads([large[:LARGE], large[LARGE:], between, "And", " then?"])

    assert list(reader.blocks.values())[1:] == ["<p>And then?</p>\n"]


@given(st.lists(st.integers(0, 3 * MOST), max_size=8), st.sampled_from(["\r\n", "\n", "\r"]))
@settings(max_examples=examples(20))
def test_a_text_in_slices_becomes_the_same_html(cuts: list[int], end: str) -> None:
    """Also where a line's end is cut in two, and where what is Markdown ends within a slice."""
    text = f"# One{end}{end}words **and** more, <not a tag> {end}" * (2 * MOST // 40)
    places = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    slices = [text[begin:stop] for begin, stop in pairwise(places)]

    html = list(render_slices(iter(slices)))

    assert "".join(html) == render_markdown(text)
    assert len(html) > 2
