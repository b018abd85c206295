"""Render Markdown as HTML that is safe to insert into a page: no raw HTML, no images of other hosts, no scripts.

Two independent defences: the parser does not accept HTML, and its output passes the allow-list of tags, attributes,
their values and URL schemes below: nothing else reaches a page.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, MutableMapping, Sequence
from html import escape
from time import thread_time
from typing import Any

import nh3
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.rules_block import StateBlock
from markdown_it.rules_block.table import table as unbounded_table
from markdown_it.rules_core import StateCore
from markdown_it.token import Token
from markdown_it.utils import OptionsDict

from utils.markdown.elements import code, formulas, thinking
from utils.markdown.elements.code import render_code
from utils.markdown.elements.inline import CITED, SOURCE, InlineParser, use_citations
from utils.markdown.elements.thinking import use_thinking, without_marks
from utils.markdown.pictures import FOREIGN_PICTURE

#: A file of an answer, on the gateway's own host.
OWN_FILE = re.compile(r"/files/[\w.-]+", re.ASCII)

#: The class of a list's item that begins with `[ ]` or `[x]`: it has a box instead of its bullet.
TASK = "task"
_BRACKETS = re.compile(r"\[([ xX])\](?=[ \t\n]|\Z)")
_BOX, _TICKED = "☐", "☑"

_TAGS = {"p", "img", "br", "hr", "strong", "em", "s", "a", "ul", "ol", "li", "blockquote", "code", "pre", "span", "sup"}
_TAGS |= {"h1", "h2", "h3", "h4", "h5", "h6", "table", "thead", "tbody", "tr", "th", "td", "details", "summary"}
_SCHEMES = {"http", "https", "mailto"}
_ATTRIBUTES = {"a": {"href"}, "img": {"src", "alt"}, "ol": {"start"}, "pre": {"data-language"}, "details": {"open"}}
_ALIGNED = {"align": {"left", "center", "right"}}
#: The classes in the pages' style sheets, by tag.
_CLASSES = {"a": {FOREIGN_PICTURE}, "li": {TASK}, "pre": {code.BLOCK}, "code": {"math"}}
_CLASSES |= {"span": set(code.COLOURS), "details": {thinking.CLASS}, "sup": {CITED}}
_VALUES: dict[str, dict[str, set[str]]] = {"th": _ALIGNED, "td": _ALIGNED}
_VALUES |= {tag: {"class": classes} for tag, classes in _CLASSES.items()}
_VALUES |= {tag: {name: set(values) for name, values in formulas.VALUES.items()} for tag in formulas.TAGS}

#: Maximum number of missing cells that a text's tables may be padded with; beyond it, a short row ends its table. A row
#: of two bytes may otherwise produce hundreds of cells.
MOST_FILLED = 10_000
#: Maximum nesting depth of blocks and marks; the parser drops deeper ones. Each level costs a pass over every line.
NESTING = 20
_FOLLOWABLE = re.compile(rf"(?:https?://|mailto:)[^\s]|{OWN_FILE.pattern}\Z", re.IGNORECASE)
#: Seconds of CPU time after which further blocks of a text's code have no colours: about 25,000 characters of code.
MOST_COLOURING = 0.08
#: Counters in the parser's environment: how much of its limits a text has used.
FILLED = "filled"
COLOURING = "colouring"
COUNTERS = (FILLED, formulas.COUNTER, COLOURING)
Environment = MutableMapping[str, Any]


def _kept(tag: str, attribute: str, value: str) -> str | None:
    """Return an attribute's value; None for pictures of other hosts and other values that are not allowed."""
    if tag == "img" and attribute == "src":
        return value if OWN_FILE.fullmatch(value) else None
    if tag in formulas.TAGS:
        return value if formulas.is_allowed(attribute, value) else None
    if attribute == "data-language":
        return value if code.LANGUAGE.fullmatch(value) else None
    return value


#: Made once: making it takes a hundred times as long as cleaning a paragraph.
_CLEANER = nh3.Cleaner(
    tags=_TAGS | formulas.TAGS,
    attributes={"*": set(), **_ATTRIBUTES, **{tag: set(formulas.LENGTHS) for tag in formulas.TAGS}},
    attribute_filter=_kept,
    tag_attribute_values=_VALUES,
    url_schemes=_SCHEMES,
    url_relative=lambda url: url if OWN_FILE.fullmatch(url) or SOURCE.fullmatch(url) else None,
    link_rel="noopener noreferrer nofollow",
    set_tag_attribute_values={"a": {"target": "_blank"}},
)


def clean_html(html: str) -> str:
    """Remove every tag, attribute and URL scheme that Markdown does not need; make links open in a new tab."""
    return _CLEANER.clean(html)


def render_html(source: str, env: Environment | None = None) -> str:
    """Render Markdown; `env` holds link references and counters of earlier parts of the text and receives new ones.

    With the item "growing" of `env` set, code has no colours.
    """
    return clean_html(without_marks(MARKDOWN.render(source, env if env is not None else {})))


def render_plain(text: str) -> str:
    """Return the text as preformatted HTML, without rendering Markdown."""
    return f"<pre><code>{escape(without_marks(text), quote=False)}</code></pre>\n"


def top_level(source: str, env: Environment) -> list[Token]:
    """Return the token that opens each top-level block; its `map` is [first line, line after the last]."""
    tokens: list[Token] = []
    MARKDOWN.block.parse(source, MARKDOWN, env, tokens)
    return [token for token in tokens if token.level == 0 and token.map]


def _table(state: StateBlock, first: int, end: int, silent: bool) -> bool:
    """Parse a table up to the row with which padding exceeds `MOST_FILLED` cells."""
    if silent:
        return unbounded_table(state, first, end, silent)
    # Rows are counted for tables alone: a text may have a line that resembles a table's head in every line.
    if not unbounded_table(state, first, end, True):
        return False
    filled = before = state.env.get(FILLED, 0)
    for line, missing in _rows(state, first, end):
        if before + missing > MOST_FILLED:
            end = line
            break
        filled = before + missing
    if not unbounded_table(state, first, end, silent):
        return False
    state.env[FILLED] = filled
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
    """Render an image of an answer's own files; any other as a link: a reader's browser must not fetch its URL.

    `with_pictures` of `pictures.py` puts the gateway's copy into such a link.
    """
    source = str(tokens[index].attrs.get("src", ""))
    words = escape(renderer.renderInlineAsText(tokens[index].children or [], options, env) or source)
    if OWN_FILE.fullmatch(source):
        return f'<img src="{source}" alt="{words}">'
    return words if env.get("in_link") else f'<a class="{FOREIGN_PICTURE}" href="{escape(source)}">{words}</a>'


def _link(renderer: RendererHTML, tokens: Sequence[Token], index: int, options: OptionsDict, env: Environment) -> str:
    env["in_link"] = tokens[index].nesting == 1
    return renderer.renderToken(tokens, index, options, env)


def _cell(renderer: RendererHTML, tokens: Sequence[Token], index: int, options: OptionsDict, env: Environment) -> str:
    """Render a cell's alignment as an attribute, because the Content-Security-Policy forbids inline styles."""
    style = tokens[index].attrs.pop("style", None)
    if style:
        tokens[index].attrs["align"] = str(style).removeprefix("text-align:")
    return renderer.renderToken(tokens, index, options, env)


def _code(renderer: RendererHTML, tokens: Sequence[Token], index: int, options: OptionsDict, env: Environment) -> str:
    """Render code with its language; it is coloured when it is complete."""
    token, spent, began = tokens[index], env.get(COLOURING, 0.0), thread_time()
    html = render_code(token.content, token.info, coloured=not env.get("growing") and spent < MOST_COLOURING)
    env[COLOURING] = spent + thread_time() - began
    return html


def _mark_tasks(state: StateCore) -> None:
    """Replace the brackets at the beginning of items by boxes, before the lines are parsed."""
    for item, _, words in zip(state.tokens, state.tokens[1:], state.tokens[2:], strict=False):
        if item.type == "list_item_open" and words.type == "inline" and (found := _BRACKETS.match(words.content)):
            item.attrSet("class", TASK)
            words.content = f"{_BOX if found[1] == ' ' else _TICKED}{words.content[found.end() :]}"


def _parser() -> MarkdownIt:
    parser = MarkdownIt()
    parser.inline = InlineParser()
    parser.configure("commonmark", {"html": False, "breaks": True, "maxNesting": NESTING})
    parser.enable(["table", "strikethrough", "bare_link", "line_break"])
    formulas.use_formulas(parser)
    use_thinking(parser)
    use_citations(parser)
    parser.core.ruler.before("inline", "tasks", _mark_tasks)
    parser.block.ruler.at("table", _table, {"alt": ["paragraph", "reference"]})
    parser.validateLink = lambda url: bool(_FOLLOWABLE.match(url))  # type: ignore[method-assign]
    for name, rule in (
        ("image", _image),
        ("link_open", _link),
        ("link_close", _link),
        ("fence", _code),
        ("code_block", _code),
    ):
        parser.add_render_rule(name, rule)
    for name in ("th_open", "td_open"):
        parser.add_render_rule(name, _cell)
    return parser


MARKDOWN = _parser()
