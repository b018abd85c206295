"""The allow-list of an answer's HTML: tags, attributes, their values, and URL schemes. Nothing else reaches a page."""

from __future__ import annotations

import re

import nh3

from utils.markdown.elements import citations, code, mathml, tasks, thinking
from utils.markdown.pictures import FOREIGN_PICTURE

#: A file of an answer, on the gateway's own host.
OWN_FILE = re.compile(r"/files/[\w.-]+", re.ASCII)

_TAGS = {"p", "img", "br", "hr", "strong", "em", "s", "a", "ul", "ol", "li", "blockquote", "code", "pre", "span", "sup"}
_TAGS |= {"h1", "h2", "h3", "h4", "h5", "h6", "table", "thead", "tbody", "tr", "th", "td", "details", "summary"}
_SCHEMES = {"http", "https", "mailto"}
_ATTRIBUTES = {"a": {"href"}, "img": {"src", "alt"}, "ol": {"start"}, "pre": {"data-language"}, "details": {"open"}}
_ALIGNED = {"align": {"left", "center", "right"}}
#: The classes that style sheets of ours know, by tag.
_CLASSES = {"a": {FOREIGN_PICTURE}, "li": {tasks.CLASS}, "pre": {code.BLOCK}, "code": {"math"}}
_CLASSES |= {"span": set(code.COLOURS), "details": {thinking.CLASS}, "sup": {citations.CLASS}}
_VALUES: dict[str, dict[str, set[str]]] = {"th": _ALIGNED, "td": _ALIGNED}
_VALUES |= {tag: {"class": classes} for tag, classes in _CLASSES.items()}
_VALUES |= {tag: {name: set(values) for name, values in mathml.VALUES.items()} for tag in mathml.TAGS}


def _kept(tag: str, attribute: str, value: str) -> str | None:
    """Return an attribute's value; None for a picture that is no file of an answer, and for other values of no use."""
    if tag == "img" and attribute == "src":
        return value if OWN_FILE.fullmatch(value) else None
    if tag in mathml.TAGS:
        return value if mathml.is_allowed(attribute, value) else None
    if attribute == "data-language":
        return value if code.LANGUAGE.fullmatch(value) else None
    return value


#: Made once: making it takes a hundred times as long as cleaning a paragraph.
_CLEANER = nh3.Cleaner(
    tags=_TAGS | mathml.TAGS,
    attributes={"*": set(), **_ATTRIBUTES, **{tag: set(mathml.LENGTHS) for tag in mathml.TAGS}},
    attribute_filter=_kept,
    tag_attribute_values=_VALUES,
    url_schemes=_SCHEMES,
    url_relative=lambda url: url if OWN_FILE.fullmatch(url) or citations.TARGET.fullmatch(url) else None,
    link_rel="noopener noreferrer nofollow",
    set_tag_attribute_values={"a": {"target": "_blank"}},
)


def clean_html(html: str) -> str:
    """Remove every tag, attribute and URL scheme that Markdown does not need; make links open in a new tab."""
    return _CLEANER.clean(html)
