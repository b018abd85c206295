"""Markdown as HTML, block by block: safe for a browser, the same for any pieces, and in linear time."""

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
from markdown_it.rules_block import StateBlock

from tests.support.properties import examples
from tests.support.servers.processes import FakeClock
from utils.markdown import blocks as markdown_blocks
from utils.markdown import html as html_module
from utils.markdown.blocks import LARGE, MOST, BlockRenderer, render_markdown, render_slices
from utils.markdown.html import MARKDOWN, MOST_FILLED, clean_html
from utils.markdown.pictures import with_pictures

#: Tests that repeat the same work often; measuring coverage would take half of their time again.
heavy = pytest.mark.no_cover

TAGS = {"p", "img", "br", "hr", "strong", "em", "s", "a", "ul", "ol", "li", "blockquote", "code", "pre", "h1", "h2"}
TAGS |= {"h3", "h4", "h5", "h6", "table", "thead", "tbody", "tr", "th", "td", "span"}
TAGS |= {"details", "summary", "sup"}
#: The elements of formulas and their attributes: nothing that leads anywhere, runs, or carries another language.
MATH = {"math", "mrow", "mi", "mn", "mo", "mtext", "mspace", "mfrac", "msqrt", "mroot", "msup", "msub", "msubsup"}
MATH |= {"mover", "munder", "munderover", "mtable", "mtr", "mtd", "mstyle", "mpadded", "mphantom", "menclose"}
MATH_ATTRIBUTES = {"display", "stretchy", "fence", "accent", "movablelimits", "largeop", "displaystyle", "form"}
MATH_ATTRIBUTES |= {"mathvariant", "scriptlevel", "linethickness", "columnalign", "linebreak", "notation", "height"}
MATH_ATTRIBUTES |= {"width", "depth", "voffset", "minsize", "maxsize", "mathsize"}
ATTRIBUTES = {"href", "rel", "target", "align", "start", "src", "alt", "class", "data-language", "open"}
#: Every class that the HTML of an answer may have, by tag.
CLASSES = {"a": {"picture"}, "li": {"task"}, "pre": {"code"}, "code": {"math"}, "span": set("bcdfikns")}
CLASSES |= {"details": {"thinking"}, "sup": {"cite"}}

#: Parts of Markdown, words, and HTML and URLs that would be dangerous in a browser.
MARKS = [
    "\n", "\n", "\n\n", " ", "  ", "    ", "\t", "- ", "* ", "+ ", "1. ", "2) ", "10. ", "> ", ">", "# ", "##",
    "```", "~~~", "`", "|", "| a | b |", "|---|--:|", "---", "===", "-", "=", "**", "*", "_", "~~", "\r\n", "\r",
    "\\", "\0",
]  # fmt: skip
WORDS = [
    "a", "b c", "你好", "&amp;", "&#x6a;", "[x]", "(http://a.example)", "![i](http://i.example/p.png)", "foo\nbar",
    "[[", "](", "<http://x.example>", "<mailto:a@b.example>", "😀", "\u2028", "**“重点”**", "注意：**", "<br>",
    "<BR />\n", "- [ ] ", "[x] ", "https://a.example/x_y(z)", "www.a.example", "http",
]  # fmt: skip
HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "[x](javascript:alert(1))",
    "<svg/onload=alert(1)>",
    "[x](JaVaScRiPt:alert(1))",
    "[x](&#106;avascript:alert(1))",
    "[x](data:text/html;base64,PHNjcmlwdD4=)",
    "<style>*{}",
    "![x](javascript:alert(1))",
    "<javascript:alert(1)>",
    "[x]: javascript:alert(1)\n\n[x]",
    "<iframe src=//a.example>",
    '[x](http://a.example "onmouseover=alert(1)")',
    "[x](http://a.example'onclick='alert(1))",
    "<a href=x onclick=y>",
    "<form action=//a.example><input>",
    "[x](//a.example)",
    "[x](/local)",
    "[x](\x01javascript:alert(1))",
    "<!--",
    "-->",
    "</code></pre><script>",
    "[x](vbscript:a)",
    "[x](\tjava\nscript:a)",
    "<math><mi//xlink:href='data:x'>",
    "]]>",
    "<![CDATA[",
    "[![a](http://i.example)](http://o.example)",
    "![a](//i.example/files/x.png)",
    "![a](/files/../../admin)",
    "<img src=http://i.example/x.png>",
    '```"><script>\n',
    "|<script>|\n|---|\n|<b onclick=a>|\n",
    "<base href=//a>",
    "<br onclick=alert(1)>",
    "<br/onclick=alert(1)//>",
    "<br\x0conclick=x>",
    "</br><br class=x style=color:red>",
    "javascript://www.a.example/%0aalert(1)",
    "https://a.example/\"onmouseover=alert(1)//'><b>",
    "data:text/html,https://a.example/<script>",
    "https://javascript:alert(1)@a.example",
    "www.a.example/</a><img src=x onerror=alert(1)>",
    '- [x] <li class="mine" onclick=x>',
    '<li class="task mine">',
    "$\\href{javascript:alert(1)}{x}$",
    "$\\class{code}{x}\\style{position:fixed}{x}\\color{red}{x}$",
    "$\\text{</mtext></math><script>alert(1)</script>}$",
    "$\\text{&#x3c;img src=x onerror=alert(1)&#x3e;}$",
    "$\\hspace{-900em}x\\rule{900em}{900em}$",
    "$\\def\\a{\\a\\a}\\a$",
    "$$\n</math><script>\n+ b\n$$",
    "\\(\\mathchoice{a}{b}{c}{d}\\cssId{turns}{x}\\)",
    '<math><maction actiontype="statusline#http://a.example" xlink:href="javascript:alert(1)">x</maction></math>',
    '<math href="javascript:alert(1)"><mi href="javascript:alert(1)" mathbackground="red" id="turns">x</mi></math>',
    '<math><annotation-xml encoding="text/html"><img src=x onerror=alert(1)></annotation-xml></math>',
    "<math><semantics><annotation encoding='text/html'><script>alert(1)</script></annotation></semantics></math>",
    "<math><mtext><table><mglyph><style><!--</style><img title='--><img src=x onerror=alert(1)>'>",
    "<math><mtext><svg><script>alert(1)</script></svg></mtext><mi><a href=javascript:alert(1)>x</a></mi></math>",
    '<math display="none" style="position:fixed"><mspace width="99999em" class="code"/></math>',
    '<pre class="code code-box" data-language="a b" style="x"><code class="mine">',
    '<span class="k mine" style="color:red">x</span><span class="code-copy">',
    '```python" onmouseover="alert(1)\nx = 1\n```',
    "```<script>alert(1)</script>\nx\n```\n",
    "```html\n<script>alert('x')</script>\n```\n",
    '<think onclick=alert(1)><details class="thinking mine" ontoggle=alert(1) open=x><summary onclick=x>',
    "<think>\n<script>alert(1)</script>\n</think>\n</details><img src=x onerror=alert(1)>",
    "<details open ontoggle=alert(1)> <summary> Thinking... </summary>\n<style>*{}</style></details>",
    '\x02\x02\n<details open ontoggle="alert(1)">\n\x03\n',
    '[1](javascript:alert(1)) 【1†"><img src=x onerror=alert(1)>】 [^1" onclick="x]',
    '<sup class="cite mine"><a href="#turns" class="x">1</a><a href="#source-1x">1</a></sup>',
    "~~~php\n<?php echo '</code></pre><script>' ?>\n~~~\n",
]


texts = st.lists(st.sampled_from(MARKS + WORDS), max_size=30).map("".join)
hostile_texts = st.lists(st.sampled_from(MARKS + WORDS + HOSTILE), max_size=30).map("".join)
pieces = st.randoms(use_true_random=False)


@dataclass
class BlockReader:
    """Shows an answer as a page does: each received block replaces the block with its number."""

    renderer: BlockRenderer = field(default_factory=lambda: BlockRenderer(clock=FakeClock()))
    blocks: dict[int, str] = field(default_factory=dict)
    #: Characters of HTML and blocks received.
    size: int = 0
    count: int = 0

    def add(self, parts: Iterable[str]) -> BlockReader:
        for part in parts:
            self._show(self.renderer.add(part))
        return self

    def finish(self) -> str:
        self._show(self.renderer.finish())
        return self.html

    def _show(self, changed: list[markdown_blocks.RenderedBlock]) -> None:
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
    parts, position = [], 0
    while position < len(text):
        end = position + rnd.randint(1, longest)
        parts.append(text[position:end])
        position = end
    return parts


def elements(html: str) -> list[tuple[str, dict[str, str]]]:
    """Return every element that a browser would create from the HTML, with its attributes."""
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
        assert tag in TAGS | MATH
        assert set(attributes) <= (MATH_ATTRIBUTES if tag in MATH else ATTRIBUTES)
        assert {attributes["class"]} <= CLASSES[tag] if "class" in attributes else True
        assert re.fullmatch(r"[\w+#.-]{1,30}", attributes.get("data-language", "none"), re.ASCII)
        assert all(re.fullmatch(r"[\w.+-]{1,20}", value) for value in attributes.values()) if tag in MATH else True
        # A picture comes from the gateway itself, or not at all.
        assert "src" not in attributes or re.fullmatch(r"/files/[A-Za-z0-9_.-]+", attributes["src"])
        if tag == "a":
            assert re.match(r"(?:https?://|mailto:|#source-\d)", attributes.get("href", "http://"), re.IGNORECASE)
            assert attributes["rel"] == "noopener noreferrer nofollow"
            assert attributes["target"] == "_blank"


@heavy
@settings(max_examples=examples(300))
@given(hostile_texts, pieces)
def test_html_of_any_answer_is_harmless(text: str, rnd: random.Random) -> None:
    """At any time, every block has only allowed tags, attributes and URL schemes."""
    reader = BlockReader()
    for part in cut(text, rnd):
        reader.add([part])
        for html in reader.blocks.values():
            assert_harmless(html)

    assert_harmless(reader.finish())
    assert_harmless(render_markdown(text))


@pytest.mark.parametrize("attack", HOSTILE)
def test_each_attack_alone_becomes_harmless(attack: str) -> None:
    """The attack is tried alone, inside a line, in a list, in a quote and in a table."""
    for text in (attack, f"a {attack} b", f"- {attack}\n- b", f"> {attack}", f"| {attack} |\n|---|\n| {attack} |"):
        assert_harmless(render_markdown(text))


@pytest.mark.parametrize("attack", HOSTILE)
def test_a_picture_of_another_host_adds_nothing_harmful(attack: str) -> None:
    """Whatever its words and its address are: the gateway's copy is the only thing that a browser loads."""
    for text in (
        attack,
        f"![{attack}](https://a.example/p.png)",
        f"![x](https://a.example/{attack})",
        f'![" {attack}]',
    ):
        assert_harmless(with_pictures(render_markdown(text), lambda url: "/files/s0.s0123456789abcdef.0.00"))


@pytest.mark.parametrize("attack", HOSTILE)
def test_the_sanitizer_alone_makes_html_harmless(attack: str) -> None:
    """`clean_html` also makes the output of a parser harmless that lets all HTML and URLs through."""
    careless = MarkdownIt("commonmark")
    careless.validateLink = lambda url: True  # type: ignore[method-assign]

    assert_harmless(clean_html(careless.render(f"{attack}\n\na {attack} b")))
    assert_harmless(clean_html(attack))


@pytest.mark.parametrize("attack", HOSTILE)
def test_the_parser_alone_makes_html_harmless(attack: str) -> None:
    """Without the sanitizer, HTML becomes text, and URLs that run or load something are no links."""
    for tag, attributes in elements(MARKDOWN.render(f"{attack}\n\na {attack} b")):
        assert tag in TAGS | MATH
        assert set(attributes) <= {*ATTRIBUTES, *MATH_ATTRIBUTES, "title"}
        assert attributes.get("href", "http://").startswith(("http://", "https://", "mailto:", "#source-"))


@heavy
@settings(max_examples=examples(600))
@given(texts, pieces)
def test_the_blocks_of_any_split_equal_the_whole_rendering(text: str, rnd: random.Random) -> None:
    """For any pieces of a text, the final blocks joined are `render_markdown` of the whole text."""
    whole = render_markdown(text)

    assert BlockReader().add(cut(text, rnd)).finish() == whole
    assert BlockReader().add(text).finish() == whole
    assert BlockReader().add([text]).finish() == whole


@settings(max_examples=examples(100))
@given(texts, pieces)
def test_references_of_earlier_blocks_are_resolved(text: str, rnd: random.Random) -> None:
    """A link that uses a reference of an earlier block gets its URL, for any split."""
    text = f"[x]: http://x.example 'title'\n\n{text.replace(chr(0), '')}\n\n[x]\n"

    assert BlockReader().add(cut(text, rnd)).finish() == render_markdown(text)


def test_a_file_of_the_answer_is_shown() -> None:
    """A picture of the gateway's own address is one on the page; a file's link opens in a new tab."""
    url = "/files/ab.s01.0.cd.png"

    html = render_markdown(f"![a & b]({url}) [c]({url})")

    assert elements(html)[1:] == [
        ("img", {"src": url, "alt": "a & b"}),
        ("a", {"href": url, "rel": "noopener noreferrer nofollow", "target": "_blank"}),
    ]


def test_a_later_reference_does_not_change_a_finished_block() -> None:
    """This is the only difference to rendering the whole text: finished blocks are not rendered again."""
    reader = BlockReader().add(["[x] and\n\n", "more\n\n", "[x]: http://x.example\n\n", "[x]\n"])

    assert reader.finish() == render_markdown("\\[x] and\n\nmore\n\n[x]: http://x.example\n\n[x]\n")


def test_a_finished_block_is_not_sent_again() -> None:
    """While the answer grows only its last block changes; earlier blocks are rendered once."""
    reader = BlockReader().add("# Title\n\nfirst\n\n- a\n- b\n\nlast")

    before = reader.count
    reader.add([" words"])

    assert reader.count == before + 1
    assert list(reader.blocks) == [0, 1, 2, 3]
    assert reader.finish() == render_markdown("# Title\n\nfirst\n\n- a\n- b\n\nlast words")


CODE = '<pre class="code" data-language="py"><code>x = <span class="n">1</span>\n</code></pre>\n'


def test_pieces_are_shown_at_once() -> None:
    """A small block is rendered with each piece, and text after a closed fence starts the next block."""
    reader = BlockReader().add(["Hel"])
    assert reader.html == "<p>Hel</p>\n"

    reader.add(["lo\n\n```py\n", "x = 1\n", "```\n", "then"])

    assert reader.html == "<p>Hello</p>\n" + CODE + "<p>then</p>\n"


@pytest.mark.parametrize("mark", ["-", "==", "1", "2.", "#", "``", "**", "|", "$$"])
def test_an_incomplete_mark_is_held_back(mark: str) -> None:
    """A last line of marks only would be shown as text for a moment, or turn the line before into a heading."""
    reader = BlockReader().add(["text\n", mark])

    assert reader.html == "<p>text</p>\n"
    assert reader.finish() == render_markdown(f"text\n{mark}")


def test_common_markdown_is_rendered() -> None:
    """Lists, aligned tables, struck-out text, links and quotes become HTML."""
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
        ("![plan](https://a.example/p.png)", '<a class="picture" href="https://a.example/p.png" REL>plan</a>'),
        (
            "![](https://a.example/p.png)",
            '<a class="picture" href="https://a.example/p.png" REL>https://a.example/p.png</a>',
        ),
        ("![1 <b>](https://a.example/p)", '<a class="picture" href="https://a.example/p" REL>1 &lt;b&gt;</a>'),
        ("[![plan](https://a.example/p.png)](https://b.example)", '<a href="https://b.example" REL>plan</a>'),
        ("![plan](data:image/png;base64,AAAA)", "![plan](data:image/png;base64,AAAA)"),
        ("[x](javascript:a)", "[x](javascript:a)"),
        ("[x](/admin)", "[x](/admin)"),
        ("<b>x</b>", "&lt;b&gt;x&lt;/b&gt;"),
    ],
)
def test_images_become_links_and_unsafe_urls_stay_text(markdown: str, shown: str) -> None:
    """No answer makes the browser load something from another server."""
    rel = 'target="_blank" rel="noopener noreferrer nofollow"'

    assert render_markdown(markdown) == f"<p>{shown.replace('REL', rel)}</p>\n"


#: Characters of a piece in the test below.
PIECE = 200
#: Beginning and repeated row of texts that are one endless block, and of one of many small blocks.
ENDLESS = {
    "code": ("```\n", "x = 1\n"),
    "list": ("", "- 一行 row\n"),
    "table": ("| a | b |\n|---|---|\n", "| 一 | two |\n"),
    "paragraph": ("", "word "),
    "paragraphs": ("", "a **word** or two\n\n"),
    "thinking": ("<think>\n", "a **word** or two\n\n"),
    "formula": ("$$\n", "x + 1\n"),
}
#: Length of such a text, as a multiple of the number of characters that are rendered as Markdown.
MANY = 16


@pytest.fixture
def bound(monkeypatch: pytest.MonkeyPatch) -> int:
    """Reduce MOST and LARGE to an eighth, and return the reduced MOST."""
    monkeypatch.setattr(markdown_blocks, "MOST", MOST // 8)
    monkeypatch.setattr(markdown_blocks, "LARGE", LARGE // 8)
    return MOST // 8


@pytest.mark.parametrize("name", ENDLESS)
def test_the_work_is_linear_in_the_length(name: str, bound: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The characters that are rendered in total are a small multiple of the text's, also for one endless block."""
    begin, row = ENDLESS[name]
    text = begin + row * (MANY * bound // len(row))
    work = dict.fromkeys(("render_html", "top_level", "render_plain"), 0)
    for name in work:
        render = getattr(markdown_blocks, name)

        def counting(source: str, *args: object, name: str = name, render: Any = render) -> Any:
            work[name] += len(source)
            return render(source, *args)

        monkeypatch.setattr(markdown_blocks, name, counting)

    reader = BlockReader().add(text[start : start + PIECE] for start in range(0, len(text), PIECE))

    assert reader.finish() == render_markdown(text)
    assert work["render_html"] + work["top_level"] < 20 * bound
    assert work["render_plain"] < 30 * len(text)


@heavy
def test_a_text_beyond_the_limit_is_shown_as_plain_text(bound: int) -> None:
    """Whole lines up to the limit are Markdown, the rest is plain text; nothing is lost."""
    text = "- **row**\n" * (bound // 10 + 500)

    html = render_markdown(text)

    assert html.count("<li><strong>row</strong></li>") == bound // 10
    assert html.count("- **row**") == 500
    assert BlockReader().add(cut(text, random.Random(1), 1000)).finish() == html
    assert_harmless(render_markdown("a" * bound + "<script>"))


@heavy
@pytest.mark.parametrize(
    ("row", "shown", "most"),
    [("- **row**\n", "<li><strong>row</strong></li>", "lines"), ("a **row** `b` ", "<strong>row</strong>", "marks")],
)
def test_many_lines_or_marks_are_shown_as_plain_text(
    row: str, shown: str, most: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the most lines, or marks, the text is shown as it is, and nothing of it is lost."""
    monkeypatch.setattr(markdown_blocks, f"MOST_{most.upper()}", 300)
    text = row * 500

    html = render_markdown(text)

    assert html.count(shown) == (300 if most == "lines" else 50)
    assert html.count("row") == 500
    assert BlockReader().add(cut(text, random.Random(1), 100)).finish() == html


def test_a_line_that_only_resembles_a_tables_head_counts_no_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each line of many is looked at a few times; with rows counted for each, 64 KiB took a minute."""
    looked: list[int] = []
    line = html_module._line

    def looking(state: StateBlock, number: int) -> str:
        looked.append(number)
        return line(state, number)

    monkeypatch.setattr(html_module, "_line", looking)

    render_markdown("[a-]: http://x.example\n" * 500)

    assert len(looked) <= 500


@pytest.mark.parametrize("columns", [100, pytest.param(1000, marks=[heavy, pytest.mark.full])])
def test_the_number_of_empty_cells_is_limited(columns: int) -> None:
    """Rows that are shorter than their table's head get at most MOST_FILLED empty cells in total."""
    text = ("|a" * columns + "\n" + "|-" * columns + "\n" + "x\n" * 200 + "\n") * 10

    html = render_markdown(text)

    cells = html.count("<td>")
    assert cells <= MOST_FILLED + 2000
    assert len(html) < 12 * MOST_FILLED + 40 * len(text)
    assert BlockReader().add(cut(text, random.Random(2), 50)).finish() == html


def test_a_slow_rendering_is_followed_by_a_pause() -> None:
    """The pause is a multiple of the rendering's duration; after it the next piece shows the whole text."""
    clock = SlowClock()
    reader = BlockReader(BlockRenderer(clock=clock))
    reader.add(["first"])

    reader.add([" second"])
    assert reader.html == "<p>first</p>\n"
    clock.now += 10 * clock.step
    reader.add([" third"])

    assert reader.html == "<p>first second third</p>\n"


class SlowClock(FakeClock):
    """A clock that advances by a second with each call."""

    step = 1.0

    def __call__(self) -> float:
        self.now += self.step
        return self.now


@pytest.mark.parametrize(
    ("large", "between"),
    [("- row\n" * 625, "\n"), ("row " * 1250 + "\n", "\n"), ("```\n" + "row\n" * 1000 + "```\n", "")],
    ids=["list", "paragraph", "code"],
)
def test_the_block_after_a_large_one_is_shown_at_once(large: str, between: str, bound: int) -> None:
    """It does not wait until the text has grown by another fraction of the large block's size."""
    first = markdown_blocks.LARGE
    assert len(large) > first

    reader = BlockReader().add([large[:first], large[first:], between, "And", " then?"])

    assert list(reader.blocks.values())[1:] == ["<p>And then?</p>\n"]


@given(st.lists(st.integers(0, 3 * MOST), max_size=8), st.sampled_from(["\r\n", "\n", "\r"]))
@settings(max_examples=examples(8))
def test_a_text_in_slices_gives_the_same_html(cuts: list[int], end: str) -> None:
    """This includes slices that divide a CRLF, and a limit of Markdown that is inside a slice."""
    text = f"# One{end}{end}words **and** more, <not a tag> {end}" * (2 * MOST // 40)
    bounds = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    slices = [text[begin:stop] for begin, stop in pairwise(bounds)]

    html = list(render_slices(iter(slices)))

    assert "".join(html) == render_markdown(text)
    assert len(html) > 2
