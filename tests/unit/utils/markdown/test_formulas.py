r"""Formulas of answers as MathML: which text is one, what remains of LaTeX, and the limits of its cost."""

from __future__ import annotations

import re

import pytest

from tests.unit.utils.markdown.test_markdown_blocks import BlockReader
from utils.markdown.blocks import render_markdown
from utils.markdown.elements.formulas import MOST_BRACES, MOST_FORMULA, MOST_FORMULAS

X = '<math display="inline"><mrow><mi>x</mi></mrow></math>'
X_BLOCK = X.replace("inline", "block")


@pytest.mark.parametrize(
    ("markdown", "html"),
    [
        ("$x$", f"<p>{X}</p>\n"),
        (r"\(x\)", f"<p>{X}</p>\n"),
        ("$$x$$", f"<p>{X_BLOCK}</p>\n"),
        (r"\[x\]", f"<p>{X_BLOCK}</p>\n"),
        ("值$x$，", f"<p>值{X}，</p>\n"),
        ("a $$x$$ b", f"<p>a {X_BLOCK} b</p>\n"),
        ("$$\nx\n$$\nb", f"<p>{X_BLOCK}</p>\n<p>b</p>\n"),
        ("a:\n\\[\nx\n\\]", f"<p>a:</p>\n<p>{X_BLOCK}</p>\n"),
        ("- a\n  $$\n  x\n  $$", f"<ul>\n<li>a<p>{X_BLOCK}</p>\n</li>\n</ul>\n"),
        ("> $$x$$", f"<blockquote>\n<p>{X_BLOCK}</p>\n</blockquote>\n"),
        ("**$x$**", f"<p><strong>{X}</strong></p>\n"),
    ],
)
def test_all_marks_make_formulas(markdown: str, html: str) -> None:
    """Dollars and LaTeX's own brackets do, within a line and as a block."""
    assert render_markdown(markdown) == html


@pytest.mark.parametrize(
    "text",
    [
        "It is $5 and $6.",
        "from $5 to 6$ or more",
        "$5和$6",
        "US$5, AU$6",
        "花费$5到$6元，共$11",
        "从$5到$，再看",
        "$5+$6",
        "$ x $",
        "$",
        "$$",
        "$$$$",
        "a $ b",
        "$x\ny$",
        "the $PATH and the $HOME variables",
    ],
)
def test_prices_and_single_dollars_stay_text(text: str) -> None:
    """A formula begins and ends without a space, and no digit or letter follows its closing dollar."""
    assert render_markdown(text) == f"<p>{text}</p>\n".replace("\n", "<br>\n", text.count("\n"))


@pytest.mark.parametrize("text", ["`$x$`", "```\n$x$\n```", r"\$x\$", r"\\(x\\)"])
def test_code_and_escaped_dollars_are_no_formulas(text: str) -> None:
    """What Markdown shows as it is stays as it is."""
    assert "<math" not in render_markdown(text)


@pytest.mark.parametrize(
    ("latex", "parts"),
    [
        (r"\frac{a}{b}", ["<mfrac><mrow><mi>a</mi></mrow><mrow><mi>b</mi></mrow></mfrac>"]),
        (r"\sqrt[3]{x}", ["<mroot>"]),
        (r"\sum_{i=1}^n", ["<munderover>", "<mo>∑</mo>"]),
        (r"\text{如果 }x<y", ["<mtext>如果&nbsp;</mtext>", "<mo>&lt;</mo>"]),
        (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", ["<mtable><mtr><mtd><mn>1</mn></mtd>"]),
        (r"\begin{aligned}a&=b\\c&=d\end{aligned}", ['<mtd columnalign="right"><mi>a</mi></mtd>']),
        (r"\begin{cases}1&x\\2&y\end{cases}", ['<mtd columnalign="left">']),
        (r"\begin{equation}x\end{equation}", ["<mi>x</mi>"]),
        (r"\left(\frac12\right)", ['<mo stretchy="true" fence="true" form="prefix">(</mo>']),
        (r"\mathbb{R}", ["ℝ"]),
        (r"\text{US\$}5\text{\%}", ["<mtext>US$</mtext><mn>5</mn><mtext>%</mtext>"]),
    ],
)
def test_common_latex_is_mathml(latex: str, parts: list[str]) -> None:
    """Fractions, roots, sums, words, matrices and systems of equations are elements of MathML."""
    html = render_markdown(f"$${latex}$$")

    assert all(part in html for part in parts), html
    assert "&amp;" not in html


@pytest.mark.parametrize(
    "latex",
    [r"\frac", r"\begin{matrix}a", "x^a^b", r"\left(", r"\def\a{\a\a}\a", r"\newcommand{\a}{\b\b}\a", "{" * 900],
)
def test_what_cannot_be_read_is_shown_as_its_source(latex: str) -> None:
    """So are formulas that define commands: a definition may double itself for ever."""
    assert render_markdown(f"$${latex}$$") == f'<p><code class="math">{latex}</code></p>\n'


def test_a_dollar_within_a_formula_does_not_end_it() -> None:
    assert "<mtext>US$</mtext><mn>5</mn></mrow></math> a" in render_markdown(r"$\text{US\$}5$ a")


def test_html_in_a_formula_is_text() -> None:
    """The library returns the words of a formula unescaped; so does one that is shown as its source."""
    assert render_markdown(r"$x<b>\frac$") == '<p><code class="math">x&lt;b&gt;\\frac</code></p>\n'
    html = render_markdown(r"$\text{<script>alert(1)</script>&#x3c;img>}$")

    assert "<mtext>&lt;script&gt;alert(1)&lt;/script&gt;&lt;img&gt;</mtext>" in html


def test_attributes_that_lead_colour_or_move_are_left_out() -> None:
    """Links, classes, styles, colours and long distances of a formula do not reach the page."""
    html = render_markdown(
        r"$\href{javascript:a}{x}\class{code}{y}\style{a:b}{z}\color{red}{u}\hspace{-90em}\hspace{1em}$"
    )

    assert re.findall(r'(\w+)="([^"]*)"', html) == [("display", "inline"), ("width", "1em")]


def test_long_formulas_and_many_of_them_are_shown_as_their_source() -> None:
    """Both limits hold the time that a text's formulas take."""
    assert "<math" in render_markdown(f"$${'x' * MOST_FORMULA}$$")
    assert render_markdown(f"$$\n{'x' * MOST_FORMULA}y\n$$").startswith('<p><code class="math">xxx')
    assert "<code" not in render_markdown(f"a ${'x' * MOST_FORMULA}yyy$")

    html = render_markdown("\n\n".join(f"${'x' * 500}+{number:04}$" for number in range(100)))

    assert html.count("<math") == MOST_FORMULAS // 505
    assert html.count('<code class="math">') == 100 - html.count("<math")


def test_the_limit_holds_for_all_blocks_of_a_growing_text() -> None:
    """Blocks count what earlier ones have used, so that the end is the same as the whole text's rendering."""
    text = "\n\n".join(f"${'x' * 500}+{number:04}$" for number in range(30))

    assert BlockReader().add(
        [text[start : start + 100] for start in range(0, len(text), 100)]
    ).finish() == render_markdown(text)


def test_a_block_that_has_begun_only_becomes_longer() -> None:
    """Its lines are no list and no heading, whether it is closed or not; a blank line ends it."""
    reader = BlockReader().add(["$$\na\n+ b\n- c\n===\n"])
    assert list(reader.blocks) == [0]
    assert "<ul>" not in reader.html

    reader.add(["$$\n\nafter"])

    assert reader.finish() == render_markdown("$$\na\n+ b\n- c\n===\n$$\n\nafter")
    assert render_markdown("$$\na\n- b\n\nc") == "<p>$$<br>\na<br>\n- b</p>\n<p>c</p>\n"


@pytest.mark.parametrize("depth", [MOST_BRACES, MOST_BRACES + 1])
def test_deep_braces_are_shown_as_their_source(depth: int) -> None:
    """The conversion takes quadratic time for braces within braces."""
    html = render_markdown(f"${'{a' * depth}{'}' * depth}$")

    assert ("<math" in html) is (depth == MOST_BRACES)
