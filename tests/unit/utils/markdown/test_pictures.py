"""Pictures of a text: what counts as one, and words in its place that never make a growing text shorter."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from utils.markdown.pictures import (
    Reference,
    in_words,
    is_signed,
    references,
    relinked,
    replaced,
    settled_size,
    signed_references,
    with_pictures,
)

SIGNED = "/files/tools/9d1c.png?timestamp=1790000105&nonce=ab12&sign=xyz="
PIECES = [
    "字", "!", "[", "]", "(", ")", "`", "\n", "```", "a ", "![图](", f"![猫]({SIGNED})", f"[报告]({SIGNED})",
    "[站](https://a.example/)",
]  # fmt: skip


def words(reference: Reference) -> str:
    return f"（{'图片' if reference.is_picture else '文件'}：{reference.words}）"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (f"看![猫]({SIGNED})吧", [Reference("猫", SIGNED, True)]),
        ("![](https://a.example/x)", [Reference("", "https://a.example/x", True)]),
        ('![a](<https://a.example/x> "题")', [Reference("a", "https://a.example/x", True)]),
        (f"[报告.pdf](https://dify.example{SIGNED})", [Reference("报告.pdf", f"https://dify.example{SIGNED}", False)]),
        (f"[![a]({SIGNED})](https://a.example/)", [Reference("a", SIGNED, True)]),
        ("[站](https://a.example/files/x.pdf)", []),
        (f"`![a]({SIGNED})` 和\n```\n![b]({SIGNED})\n```", []),
        ("![a](x y) ![b]\n(x) [c](/file/x)", []),
    ],
)
def test_what_counts_as_a_picture_or_file(text: str, found: list[Reference]) -> None:
    """Pictures of any address, and links to signed files; no ordinary link, and nothing in code."""
    assert references(text) == found


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"看![猫]({SIGNED})吧", "看![猫](/x)吧"),
        (f'[报告](<http://api:5001{SIGNED}> "题")', '[报告](</x> "题")'),
        (f"[![a]({SIGNED})](https://dify.example{SIGNED})", "[![a](/x)](/x)"),
        (f"`![a]({SIGNED})`", "`![a](/x)`"),
        (f"![a]({SIGNED}", "![a](/x"),
        ("![a](https://a.example/x) [b](https://a.example/files/x)",) * 2,
    ],
)
def test_signed_addresses_are_replaced(text: str, shown: str) -> None:
    """Everywhere, also in code, around pictures, and where the text ends within them; no other address."""
    assert relinked(text, lambda url: "/x") == shown
    assert len(signed_references(text)) == shown.count("(/x") + shown.count("(</x")


@given(pieces=st.lists(st.sampled_from(PIECES), max_size=12))
def test_a_settled_text_is_replaced_in_parts(pieces: list[str]) -> None:
    """Wherever a growing text is cut and whatever comes next, the parts joined are the whole with its links."""
    text = "".join(pieces)
    whole = relinked(text, lambda url: "/x")

    for end in range(len(text) + 1):
        size = settled_size(text[:end])
        assert relinked(text[:size], lambda url: "/x") + relinked(text[size:], lambda url: "/x") == whole


@pytest.mark.parametrize(
    ("url", "signed"),
    [
        (SIGNED, True),
        ("/files/tools/x", True),
        (f"http://api:5001{SIGNED}", True),
        ("https://a.example/files/x?sign=1", False),
        (f"ftp://a.example{SIGNED}", False),
        (f"https://a.example/x{SIGNED}", False),
        ("https://[/files/", False),
    ],
)
def test_signed_addresses(url: str, signed: bool) -> None:
    """Absolute ones need all three parts of Dify's signature."""
    assert is_signed(url) is signed


@example(pieces=["[", "!", "字"])
@given(pieces=st.lists(st.sampled_from(PIECES), max_size=12))
def test_a_growing_text_only_grows(pieces: list[str]) -> None:
    """Whatever comes next, the words shown so far stay; at the end nothing is held back."""
    text, shown = "".join(pieces), ""
    for end in range(len(text) + 1):
        now = in_words(text[:end], words, growing=True)
        # A code fence or span that opens or closes later changes what is code.
        assert now.startswith(shown) or "`" in text
        shown = now
    whole = in_words(text, words, growing=False)

    assert whole.startswith(shown) or "`" in text
    assert whole == replaced(text, words)


def test_long_texts_are_quick() -> None:
    """Brackets without an end cost no more than their length."""
    text = "![" * 50_000 + "[" * 50_000 + "](" * 50_000

    assert in_words(text, words, growing=True)


def test_a_rendered_link_of_a_picture_gets_the_gateways_copy() -> None:
    """Words and address stay; a picture without a copy stays a link, and so does every other link."""
    link = '<a class="picture" href="https://a.x/{name}?b&amp;c" target="_blank">"一" &lt;b&gt;</a>'
    html = f'<p>{link.format(name=1)} {link.format(name=2)} <a href="https://a.x">站</a></p>'

    shown = with_pictures(html, {"https://a.x/1?b&c": "/files/1"}.get)  # type: ignore[arg-type]

    picture = '<img src="/files/1" alt="&quot;一&quot; &lt;b&gt;"></a>'
    assert shown == html.replace('"一" &lt;b&gt;</a>', picture, 1)
