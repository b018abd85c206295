"""A bubble's text as safe HTML, the way WeCom shows Markdown: no raw HTML, no pictures from elsewhere."""

from __future__ import annotations

import re

import nh3
from markdown_it import MarkdownIt

_THINK = re.compile(r"\A\s*<think>(.*?)</think>", re.DOTALL)
_TAGS = {"p", "br", "hr", "strong", "em", "s", "a", "ul", "ol", "li", "blockquote", "code", "pre"}
_TAGS |= {"h1", "h2", "h3", "h4", "h5", "h6", "table", "thead", "tbody", "tr", "th", "td"}
_SCHEMES = {"http", "https", "mailto"}


def render(text: str) -> str:
    """Render Markdown to HTML that may be put into a page as it is."""
    markdown = MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"]).disable("image")
    return nh3.clean(
        markdown.render(text),
        tags=_TAGS,
        attributes={"*": set(), "a": {"href"}, "ol": {"start"}},
        url_schemes=_SCHEMES,
        link_rel="noopener noreferrer",
        set_tag_attribute_values={"a": {"target": "_blank"}},
    )


def split_thinking(text: str) -> tuple[str, str]:
    """Return what WeCom folds away as the thinking process, and the rest."""
    match = _THINK.match(text)
    return (match[1].strip(), text[match.end() :]) if match else ("", text)
