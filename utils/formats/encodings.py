"""The characters of a file whose encoding nobody told: UTF-8, UTF-16 with its mark, or GBK, and nothing else."""

from __future__ import annotations

import codecs
import re
from collections.abc import Sequence
from contextlib import suppress
from itertools import islice

_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
_NOT_ASCII = re.compile(r"[^\x00-\x7f]")
#: Of a text's characters beyond ASCII so many are looked at, from its beginning.
SAMPLE = 20_000
#: Least share of them that GB2312 has, and of its Chinese characters that belong to its common half.
KNOWN_SHARE = 0.7
COMMON_SHARE = 0.7
#: The most frequent characters of Chinese text, about a third of any: from so many Chinese characters on, at least this
#: share must be among them. Korean and Russian bytes that pass for GBK give a hundredth.
FREQUENT = frozenset(
    "的一是不了在人有我他这中大来上个国和也子时道说出要于就下得可你年生自会那后能对着事其里所去行过家用么什怎如何请问吗多少"
)
FREQUENT_FROM = 50
FREQUENT_SHARE = 0.04


def decoded(content: bytes, encodings: Sequence[str] = ()) -> str | None:
    """Return the text in the first of the encodings that fits, or in one that is found out; None when none fits."""
    for name in encodings or _found_out(content):
        with suppress(UnicodeDecodeError):
            text = content.decode(name)
            # Every other byte of UTF-16 without a mark is zero, and it would pass for UTF-8.
            if "\0" not in text and (encodings or name != "gb18030" or looks_chinese(text)):
                return text
    return None


def _found_out(content: bytes) -> Sequence[str]:
    marked = next((name for mark, name in _MARKS if content.startswith(mark)), "")
    return [marked] if marked else ["utf-8", "gb18030"]


def looks_chinese(text: str) -> bool:
    """Tell whether text that was decoded as GBK makes sense: almost any bytes can be decoded so.

    Western letters become characters that GB2312 lacks, Japanese, Big5 and Cyrillic ones rare ones.
    """
    sample = [match[0] for match in islice(_NOT_ASCII.finditer(text), SAMPLE)]
    codes = [code for code in map(_gb2312, sample) if code]
    common = sum(0xB0 <= code < 0xD8 for code in codes)
    rare = sum(code >= 0xD8 for code in codes)
    frequent = sum(character in FREQUENT for character in sample)
    return (
        len(codes) >= KNOWN_SHARE * len(sample)
        and common >= COMMON_SHARE * (common + rare)
        and (common < FREQUENT_FROM or frequent >= FREQUENT_SHARE * common)
    )


def _gb2312(character: str) -> int:
    """Return the first byte of a character in GB2312, 0 where it has none."""
    try:
        return character.encode("gb2312")[0]
    except UnicodeEncodeError:
        return 0
