"""Render Markdown as HTML that is safe to insert into a page: no raw HTML, no images, no scripts.

Two independent defences: the parser does not accept HTML, and its output passes an allow-list of tags, attributes and
URL schemes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, MutableMapping, Sequence
from html import escape
from typing import Any

import nh3
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.rules_block import StateBlock
from markdown_it.rules_block.table import table as unbounded_table
from markdown_it.token import Token
from markdown_it.utils import OptionsDict

#: Maximum number of missing cells that a text's tables may be padded with; beyond it, a short row ends its table. A row
#: of two bytes may otherwise produce hundreds of cells.
MOST_FILLED = 10_000
#: Maximum nesting depth of blocks and marks; the parser drops deeper ones. Each level costs a pass over every line.
NESTING = 20

_TAGS = {"p", "br", "hr", "strong", "em", "s", "a", "ul", "ol", "li", "blockquote", "code", "pre"}
_TAGS |= {"h1", "h2", "h3", "h4", "h5", "h6", "table", "thead", "tbody", "tr", "th", "td"}
_SCHEMES = {"http", "https", "mailto"}
_ALIGNED = {"align": {"left", "center", "right"}}
_FOLLOWABLE = re.compile(r"(?:https?://|mailto:)[^\s]", re.IGNORECASE)

Environment = MutableMapping[str, Any]


def render_html(source: str, env: Environment | None = None) -> str:
    """Render Markdown; `env` holds link references of other parts of the text and receives those defined here."""
    return clean_html(MARKDOWN.render(source, env if env is not None else {}))


def clean_html(html: str) -> str:
    """Remove every tag, attribute and URL scheme that Markdown does not need; make links open in a new tab."""
    return nh3.clean(
        html,
        tags=_TAGS,
        attributes={"*": set(), "a": {"href"}, "ol": {"start"}},
        tag_attribute_values={"th": _ALIGNED, "td": _ALIGNED},
        url_schemes=_SCHEMES,
        url_relative="deny",
        link_rel="noopener noreferrer nofollow",
        set_tag_attribute_values={"a": {"target": "_blank"}},
    )


def render_plain(text: str) -> str:
    """Return the text as preformatted HTML, without rendering Markdown."""
    return f"<pre><code>{escape(text, quote=False)}</code></pre>\n"


def top_level(source: str, env: Environment) -> list[Token]:
    """Return the token that opens each top-level block; its `map` is [first line, line after the last]."""
    tokens: list[Token] = []
    MARKDOWN.block.parse(source, MARKDOWN, env, tokens)
    return [token for token in tokens if token.level == 0 and token.map]


def _table(state: StateBlock, first: int, end: int, silent: bool) -> bool:
    """Parse a table up to the row with which padding exceeds `MOST_FILLED` cells."""
    if silent:
        return unbounded_table(state, first, end, silent)
    filled = before = state.env.get("filled", 0)
    for line, missing in _rows(state, first, end):
        if before + missing > MOST_FILLED:
            end = line
            break
        filled = before + missing
    if not unbounded_table(state, first, end, silent):
        return False
    state.env["filled"] = filled
    return True


def _rows(state: StateBlock, first: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield each line that is a row of a table starting at `first`, and the number of missing cells up to it."""
    if first + 1 >= end or "-" not in (heads := _line(state, first + 1)):
        return
    columns, missing = heads.strip("|").count("|") + 1, 0
    ending = state.md.block.ruler.getRules("blockquote")
    for line in range(first + 2, end):
        row = _line(state, line)
        if not row or state.sCount[line] < state.blkIndent or any(rule(state, line, end, True) for rule in ending):
            return
        missing += max(0, columns - 1 - row.strip("|").count("|"))
        yield line, missing


def _line(state: StateBlock, line: int) -> str:
    return state.src[state.bMarks[line] + state.tShift[line] : state.eMarks[line]].strip()


def _image(renderer: RendererHTML, tokens: Sequence[Token], index: int, options: OptionsDict, env: Environment) -> str:
    """Render an image as a link: a reader's browser must not fetch a URL that an answer contains."""
    source = str(tokens[index].attrs.get("src", ""))
    words = escape(renderer.renderInlineAsText(tokens[index].children or [], options, env) or source)
    return words if env.get("in_link") else f'<a href="{escape(source)}">{words}</a>'


def _link(renderer: RendererHTML, tokens: Sequence[Token], index: int, options: OptionsDict, env: Environment) -> str:
    env["in_link"] = tokens[index].nesting == 1
    return renderer.renderToken(tokens, index, options, env)


def _cell(renderer: RendererHTML, tokens: Sequence[Token], index: int, options: OptionsDict, env: Environment) -> str:
    """Render a cell's alignment as an attribute, because the Content-Security-Policy forbids inline styles."""
    style = tokens[index].attrs.pop("style", None)
    if style:
        tokens[index].attrs["align"] = str(style).removeprefix("text-align:")
    return renderer.renderToken(tokens, index, options, env)


def _parser() -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"html": False, "maxNesting": NESTING}).enable(["table", "strikethrough"])
    parser.block.ruler.at("table", _table, {"alt": ["paragraph", "reference"]})
    parser.validateLink = lambda url: bool(_FOLLOWABLE.match(url))  # type: ignore[method-assign]
    for name, rule in (("image", _image), ("link_open", _link), ("link_close", _link)):
        parser.add_render_rule(name, rule)
    for name in ("th_open", "td_open"):
        parser.add_render_rule(name, _cell)
    return parser


MARKDOWN = _parser()
