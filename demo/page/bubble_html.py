"""Render a bubble's text as safe HTML, as WeCom shows Markdown: without raw HTML and external images."""

from __future__ import annotations

import re

from utils.markdown.html import render_html as render

__all__ = ["render", "split_thinking"]

_THINK = re.compile(r"\A\s*<think>(.*?)</think>", re.DOTALL)


def split_thinking(text: str) -> tuple[str, str]:
    """Split a text into the thinking, which WeCom collapses, and the rest."""
    match = _THINK.match(text)
    return (match[1].strip(), text[match.end() :]) if match else ("", text)
