"""A bubble's text as safe HTML, the way WeCom shows Markdown: no raw HTML, no pictures from elsewhere."""

from __future__ import annotations

import re

from utils.markdown.html import render_html as render

__all__ = ["render", "split_thinking"]

_THINK = re.compile(r"\A\s*<think>(.*?)</think>", re.DOTALL)


def split_thinking(text: str) -> tuple[str, str]:
    """Return what WeCom folds away as the thinking process, and the rest."""
    match = _THINK.match(text)
    return (match[1].strip(), text[match.end() :]) if match else ("", text)
