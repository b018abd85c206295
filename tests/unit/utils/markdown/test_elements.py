"""Elements beyond CommonMark: line breaks, emphasis next to CJK text, bare links, `<br>` and task lists."""

from __future__ import annotations

import pytest

from utils.markdown.blocks import render_markdown
from utils.markdown.elements.inline import MOST_HOST, MOST_LINK
from utils.markdown.html import MARKDOWN

OPENED = 'target="_blank" rel="noopener noreferrer nofollow"'


def rendered(markdown: str) -> str:
    """Return the HTML of one paragraph, without its tag and without the attributes that all links have."""
    return render_markdown(markdown).replace(f" {OPENED}", "").removeprefix("<p>").removesuffix("</p>\n")


def test_a_single_line_break_is_one() -> None:
    """Two lines of a paragraph are two lines on the page, also between Chinese characters, in items and in quotes."""
    assert rendered("甲：一\n乙：二") == "甲：一<br>\n乙：二"
    assert "<li>甲<br>\n乙</li>" in render_markdown("- 甲\n  乙")
    assert "<p>甲<br>\n乙</p>" in render_markdown("> 甲\n> 乙")


@pytest.mark.parametrize(
    ("markdown", "html"),
    [
        ("**注意：**后面", "<strong>注意：</strong>后面"),
        ("**“重点”**内容", "<strong>“重点”</strong>内容"),
        ("内容**“重点”**内容", "内容<strong>“重点”</strong>内容"),
        ("这是**「重要」**的", "这是<strong>「重要」</strong>的"),
        ("见**Note:**后面", "见<strong>Note:</strong>后面"),
        ("한국어**(강조)**입니다", "한국어<strong>(강조)</strong>입니다"),
        ("*“斜”*体", "<em>“斜”</em>体"),
        ("~~“旧”~~新", "<s>“旧”</s>新"),
        # CommonMark's own rules stay where no CJK character is near.
        ("a**“b”**c", "a**“b”**c"),
        ("3 ** 4 ** 5", "3 ** 4 ** 5"),
        ("文 ** 字 ** 文", "文 ** 字 ** 文"),
        ("snake_case_名", "snake_case_名"),
    ],
)
def test_emphasis_next_to_cjk_text(markdown: str, html: str) -> None:
    """Languages without spaces have emphasis that ends with a punctuation mark."""
    assert rendered(markdown) == html


@pytest.mark.parametrize(
    ("markdown", "url", "around"),
    [
        ("https://a.example/x_y_z?q=1&r=2#f", "https://a.example/x_y_z?q=1&amp;r=2#f", ("", "")),
        ("见https://a.example/b。后面", "https://a.example/b", ("见", "。后面")),
        ("(https://a.example/x(y)).", "https://a.example/x(y)", ("(", ").")),
        ("Is it https://a.example?!", "https://a.example", ("Is it ", "?!")),
        ("**https://a.example/b**", "https://a.example/b", ("<strong>", "</strong>")),
        ("HTTPS://A.EXAMPLE/b", "https://A.EXAMPLE/b", ("", "")),
    ],
)
def test_a_bare_address_is_a_link(markdown: str, url: str, around: tuple[str, str]) -> None:
    """Neither punctuation after it nor Chinese text belongs to it."""
    html = rendered(markdown)

    assert html.startswith(around[0])
    assert html.endswith(f"</a>{around[1]}")
    assert f'<a href="{url}">'.lower() in html.lower()


def test_an_address_without_a_scheme_is_a_link_if_it_begins_with_www() -> None:
    """Its link begins with http, as in other renderers."""
    assert rendered("www.a.example!") == '<a href="http://www.a.example">www.a.example</a>!'


@pytest.mark.parametrize(
    "text",
    [
        "xhttps://a.example",
        "https://",
        "https://..",
        "www.",
        "www..",
        "javascript://a.example",
        "ftp://a.example",
        "a://b",
    ],
)
def test_what_is_no_address_stays_text(text: str) -> None:
    """A scheme inside a word, one without a host, and other schemes make no link."""
    assert rendered(text) == text


def test_an_address_in_code_or_in_a_link_is_no_further_link() -> None:
    """A link's words may be an address, and code stays as it is."""
    assert rendered("`https://a.example`") == "<code>https://a.example</code>"
    link = '<a href="https://b.example">see https://a.example</a>'
    assert rendered("[see https://a.example](https://b.example)") == link


def test_a_very_long_address_is_cut() -> None:
    """The rest of it is text, so that one address costs no more than its limit."""
    html = rendered("https://a.example/" + "a" * 3 * MOST_LINK)

    assert html.count("<a ") == 1
    assert len(html) < 6 * MOST_LINK


def test_an_address_with_a_host_that_is_too_long_is_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """No host has so many characters; each of many beginnings of such a one costs a look at them only."""
    seen: list[str] = []

    def note(url: str) -> str:
        seen.append(url)
        return url

    monkeypatch.setattr(MARKDOWN, "normalizeLink", note)

    assert rendered("https://" + "a" * (MOST_HOST + 1)) == "https://" + "a" * (MOST_HOST + 1)
    assert rendered(f"https://{'a' * MOST_HOST}/b").startswith("<a ")
    assert rendered("www." * 4000).count("<a ") == 1
    assert len(seen) == 2


@pytest.mark.parametrize("tag", ["<br>", "<br/>", "<BR />", "<br  >"])
def test_a_break_tag_breaks_a_line(tag: str) -> None:
    """A cell of a table has no other line break; in a paragraph it counts once with the line end after it."""
    assert "<td>甲<br>\n乙</td>" in render_markdown(f"|a|b|\n|-|-|\n|甲{tag}乙|c|")
    assert rendered(f"甲{tag}\n乙") == "甲<br>\n乙"


@pytest.mark.parametrize("text", ["<br", "</br>", "<br x>", "<b r>", "<brx>"])
def test_other_tags_stay_text(text: str) -> None:
    """A break with attributes is none."""
    assert "<br" not in rendered(f"a {text}")


def test_items_with_brackets_are_tasks() -> None:
    """A box says whether the task is done; brackets elsewhere, and links, stay."""
    html = render_markdown("- [ ] one\n- [x] **two**\n- [y] three\n- [x](https://a.example)\n\n1. [X] four\n\n[ ] five")

    assert '<li class="task">☐ one</li>\n<li class="task">☑ <strong>two</strong></li>\n<li>[y] three</li>' in html
    assert '<ol>\n<li class="task">☑ four</li>' in html
    assert html.count("task") == 3
    assert "<p>[ ] five</p>" in html
