"""The allow-list of an answer's HTML, item by item: what remains, and that nothing else does."""

from __future__ import annotations

import re

from tests.unit.utils.markdown.test_markdown_blocks import elements
from utils.markdown.html import clean_html

#: Every tag, attribute, class and scheme that remains.
KEPT = """
<p>x</p> <br> <hr> <strong>x</strong> <em>x</em> <s>x</s> <ul><li>x</li><li class="task">x</li></ul>
<ol start="3"><li>x</li></ol> <blockquote>x</blockquote> <code>x</code> <code class="math">x</code>
<pre class="code" data-language="c++">x</pre> <span class="b">x</span> <span class="c">x</span> <span class="d">x</span>
<span class="f">x</span> <span class="i">x</span> <span class="k">x</span> <span class="n">x</span>
<span class="s">x</span> <sup class="cite">x</sup> <h1>x</h1> <h2>x</h2> <h3>x</h3> <h4>x</h4> <h5>x</h5> <h6>x</h6>
<details class="thinking" open=""><summary>x</summary></details> <img src="/files/a.s0.png" alt="x">
<table><thead><tr><th align="left">x</th><th align="center">x</th></tr></thead>
<tbody><tr><td align="right">x</td></tr></tbody></table>
"""
LINKS = ("http://a.example", "https://a.example", "mailto:a@b.example", "/files/a.s0.png", "#source-1", "#source-99")
FORMULA = """
<math display="inline"></math> <math display="block"><mrow></mrow><mi mathvariant="bold">x</mi> <mn></mn>
<mo stretchy="true" fence="false" accent="true" movablelimits="false" largeop="true" form="postfix"
 minsize="1.2em" maxsize="2ex">x</mo> <mtext mathsize="1em">x</mtext> <mspace width="1em" linebreak="newline"></mspace>
<mfrac linethickness="0"></mfrac> <msqrt></msqrt> <mroot></mroot> <msup></msup> <msub></msub> <msubsup></msubsup>
<mover></mover> <munder></munder> <munderover></munderover>
<mtable><mtr><mtd columnalign="right"></mtd></mtr></mtable> <mstyle displaystyle="true" scriptlevel="1"></mstyle>
<mpadded height="0" depth=".5em" voffset="-1em"></mpadded> <mphantom></mphantom>
<menclose notation="box"></menclose></math>
"""
#: Attributes and values that no element has.
REFUSED = """id="x" style="x" title="x" name="x" class="mine" onclick="x" ontoggle="x" onerror="x" srcset="x"
 src="https://a.example/x" href="javascript:x" href="data:x" href="//a.example" href="/admin" action="x" formaction="x"
 background="x" align="char" width="9em9" height="99em" display="none" mathcolor="red" mathbackground="red"
 xlink:href="x" data-language="a b" data-x="x" tabindex="1" role="x" """
#: Elements that are removed, all but their words.
FOREIGN = "script style iframe object embed form input button select textarea svg link meta base video audio div"
FOREIGN += " section template slot dialog marquee font center frame maction semantics annotation annotation-xml mglyph"


def test_each_item_of_the_list_remains() -> None:
    """Nothing that a page's style sheet or a reader needs is lost."""
    assert elements(clean_html(KEPT)) == elements(KEPT)
    assert elements(clean_html(FORMULA)) == elements(FORMULA)
    opened = {"target": "_blank", "rel": "noopener noreferrer nofollow"}
    for url in LINKS:
        assert elements(clean_html(f'<a class="picture" href="{url}">x</a>')) == [
            ("a", {"class": "picture", "href": url, **opened})
        ]


def test_nothing_else_remains() -> None:
    """Every listed tag is tried with every refused attribute; of other elements the words may stay, and no tag."""
    allowed = {tag for tag, _ in elements(KEPT + FORMULA)} | {"a"}
    for tag in sorted(allowed):
        for name, value in re.findall(r'([\w:-]+)="([^"]*)"', REFUSED):
            kept = elements(clean_html(f'<{tag} {name}="{value}">x</{tag}>'))
            assert not any(name in attributes for _, attributes in kept), (tag, name, value)
    for tag in FOREIGN.split():
        assert {found for found, _ in elements(clean_html(f"<{tag}>x</{tag}><math><{tag}>x</{tag}></math>"))} <= {
            "math"
        }
