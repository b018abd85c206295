"""Pictures of a text: what counts as one, and words in its place that never make a growing text shorter."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from utils.markdown.pictures import Reference, in_words, is_signed, references, replaced

SIGNED = "/files/tools/9d1c.png?timestamp=1790000105&nonce=ab12&sign=xyz="
PIECES = [
    "字",
    "!",
    "[",
    "]",
    "(",
    ")",
    "`",
    "\n",
    "```",
    "a ",
    "![图](",
    f"![猫]({SIGNED})",
    f"[报告]({SIGNED})",
    "[站](https://a.example/)",
]


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
