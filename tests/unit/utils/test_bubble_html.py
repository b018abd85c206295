"""HTML of the demo page's bubbles: safe for the browser, and rendered as WeCom does."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest

from demo.page.bubble_html import render, split_thinking

Element = tuple[str, dict[str, str]]


def live_elements(html: str) -> list[Element]:
    """Return every element that a browser would create from the HTML, with its attributes."""
    elements: list[Element] = []

    class Collector(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            elements.append((tag, {name: value or "" for name, value in attrs}))

    Collector().feed(html)
    return elements


@pytest.mark.parametrize(
    "attack",
    [
        "<script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        "[x](javascript:alert(1))",
        "[x](data:text/html;base64,PHNjcmlwdD4=)",
        "![x](https://example.com/track.png)",
        "<svg/onload=alert(1)>",
        '[x](https://example.com "onmouseover=alert(1)")',
        "`<script>`",
    ],
)
def test_an_answer_cannot_insert_active_html(attack: str) -> None:
    """HTML in an answer is shown as text; URLs that run or load something are dropped."""
    elements = live_elements(render(attack))

    assert {tag for tag, _ in elements} <= {"p", "a", "code"}
    assert {name for _, attributes in elements for name in attributes} <= {"href", "target", "rel"}
    assert all(attributes.get("href", "https://").startswith("https://") for _, attributes in elements)


def test_markdown_is_shown_as_wecom_shows_it() -> None:
    """Lists, tables and links are rendered; a single line break does not start a new line."""
    html = render("a\nb\n\n1. one\n\n| x | y |\n|---|---|\n| 1 | 2 |\n\n[link](https://example.com)")

    assert "<p>a\nb</p>" in html
    assert "<li>one</li>" in html
    assert "<td>1</td>" in html
    assert '<a href="https://example.com" target="_blank" rel="noopener noreferrer nofollow">link</a>' in html


def test_leading_thinking_is_separated() -> None:
    """A think tag at the beginning is split off; one later in the text stays."""
    assert split_thinking("<think>why\n</think>\n\nanswer") == ("why", "\n\nanswer")
    assert split_thinking("answer <think>x</think>") == ("", "answer <think>x</think>")
