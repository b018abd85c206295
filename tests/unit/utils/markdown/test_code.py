"""Code of answers: its language and its colours, and how much of it is coloured."""

from __future__ import annotations

import re
from html import unescape
from time import thread_time

import pytest
from pygments.lexer import Lexer
from pygments.lexers import get_lexer_by_name

from tests.support.servers.processes import FakeClock
from tests.unit.utils.markdown.test_markdown_blocks import BlockReader
from utils.markdown import html as renderer
from utils.markdown.blocks import render_markdown
from utils.markdown.elements import code as code_module
from utils.markdown.elements.code import COLOURS, MOST_COLOURED, MOST_SECONDS, render_code

FENCED = "```python\ndef total(x):  # all\n    return 'a<b' + str(1)\n"


def text_of(html: str) -> str:
    return unescape(re.sub(r"<[^>]*>", "", html))


def test_code_has_its_language_and_colours_by_classes() -> None:
    """Keywords, strings, numbers, comments and names of functions have a class each; nothing has a style."""
    html = render_markdown(FENCED + "```")

    assert html.startswith('<pre class="code" data-language="python"><code><span class="k">def</span> ')
    for part in ('<span class="f">total</span>', '<span class="c"># all</span>', "<span class=\"s\">'a&lt;b'</span>"):
        assert part in html
    assert '<span class="b">str</span>(<span class="n">1</span>)' in html
    assert "style" not in html


@pytest.mark.parametrize(
    ("info", "language"),
    [
        ("js", "js"),
        ("C++", "C++"),
        ("python:app.py", "python"),
        ('json title="x"', "json"),
        ("unknown-language", "unknown-language"),
        ("", ""),
        ('"><b>', ""),
        ("语言", ""),
        ("a" * 100, "a" * 30),
    ],
)
def test_the_language_is_what_follows_the_fence(info: str, language: str) -> None:
    """Only its first characters of a safe kind count; an unknown language is named and has no colours."""
    html = render_markdown(f"```{info}\nx\n```")

    attribute = f' data-language="{language}"' if language else ""
    assert html.startswith(f'<pre class="code"{attribute}><code>')
    assert text_of(html) == "x\n\n"


def test_indented_code_has_no_language() -> None:
    """It is code all the same, with the same class."""
    assert render_markdown("    x < 1\n") == '<pre class="code"><code>x &lt; 1\n</code></pre>\n'


@pytest.mark.parametrize("language", ["python", "html", "js", "php", "yaml", "diff", "sql", "bash", "tsx", "tex"])
def test_coloured_code_is_the_same_code(language: str) -> None:
    """Every character remains, whatever a language's reader makes of it; only known classes are used."""
    code = "<?php echo 'a' ?>\r\n\n<b class=\"x\">&amp;\t{}</b>\n- one: [1, 2]\n+ 'open\n/* \x00 \ud83d\ude00".encode(
        "utf-16", "surrogatepass"
    ).decode("utf-16")

    html = render_code(code, language, coloured=True)

    assert text_of(html).removesuffix("\n") == code
    assert set(re.findall(r'<span class="(\w+)">', html)) <= COLOURS


def test_colours_come_when_the_code_is_complete() -> None:
    """While a block grows it is rendered often, so Pygments reads it once, at its end."""
    reader = BlockReader().add([FENCED])
    assert "<span" not in reader.html

    reader.add(["```\n"])

    assert reader.html == render_markdown(FENCED + "```\n")
    assert "<span" in reader.html


def test_very_long_code_has_no_colours() -> None:
    """Its language and all of its text remain."""
    code = "x = 1\n" * (MOST_COLOURED // 6 + 1)

    html = render_markdown(f"```python\n{code}```")

    assert "<span" not in html
    assert 'data-language="python"' in html
    assert html.count("x = 1") == code.count("x = 1")


@pytest.mark.parametrize(("language", "unit"), [("c", "\n"), ("csharp", "a\n"), ("perl", "m{"), ("ini", "=")])
def test_hostile_code_takes_a_limited_time(language: str, unit: str) -> None:
    """Pygments would read the first two for half a minute; the text is whole, with colours as far as it was read."""
    code = "int\n" + unit * (8000 // len(unit))
    began = thread_time()

    html = render_code(code, language, coloured=True)

    assert text_of(html).removesuffix("\n") == code
    assert thread_time() - began < 10


def test_loading_a_language_takes_none_of_the_codes_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first code of a language is coloured as later code is, however slow the machine loads Pygments' reader."""
    clock = FakeClock()

    def load_slowly(name: str) -> Lexer:
        clock.advance(10 * MOST_SECONDS)
        return get_lexer_by_name(name)

    monkeypatch.setattr(code_module, "thread_time", clock)
    monkeypatch.setattr(code_module, "_lexer", load_slowly)

    assert "<span" in render_code("def first_of_all(): ...", "python", coloured=True)


def test_a_texts_colours_take_a_limited_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """After hostile code, further blocks have no colours, also in a text that grows."""
    monkeypatch.setattr(renderer, "MOST_COLOURING", MOST_SECONDS)
    whole, growing = (f"```csharp\n{letter}\n" + "a\n" * 4000 + "```\n\n```py\n1\n```\n" for letter in "bc")

    assert render_markdown("```py\n1\n```\n").count("<span") == 1
    assert "<span" not in render_markdown(whole).partition('"py"')[2]
    assert "<span" not in BlockReader().add([growing]).finish().partition('"py"')[2]
