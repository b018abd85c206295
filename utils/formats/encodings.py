"""Decode a file of unknown encoding: UTF-8, UTF-16 with a byte order mark, or GBK."""

from __future__ import annotations

import codecs
import re
from collections.abc import Sequence
from contextlib import suppress
from itertools import islice

_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
_NOT_ASCII = re.compile(r"[^\x00-\x7f]")
#: Number of non-ASCII characters, from the beginning of the text, that `looks_chinese` examines.
SAMPLE = 20_000
#: Minimum share of the sample that GB2312 contains, and of its Chinese characters that are in level 1.
KNOWN_SHARE = 0.7
COMMON_SHARE = 0.7
#: The most frequent characters of Chinese, about a third of any text. From FREQUENT_FROM Chinese characters on, at
#: least FREQUENT_SHARE of them must be in this set; Korean and Russian bytes decoded as GBK reach about 0.01.
FREQUENT = frozenset(
    "的一是不了在人有我他这中大来上个国和也子时道说出要于就下得可你年生自会那后能对着事其里所去行过家用么什怎如何请问吗多少"
)
FREQUENT_FROM = 50
FREQUENT_SHARE = 0.04


def decoded(content: bytes, encodings: Sequence[str] = ()) -> str | None:
    """Decode with the first of the encodings that fits, or detect the encoding if none is given; None if none fits."""
    for name in encodings or _found_out(content):
        with suppress(UnicodeDecodeError):
            text = content.decode(name)
            # ASCII text in UTF-16 without a mark is valid UTF-8 with NUL as every other character.
            if "\0" not in text and (encodings or name != "gb18030" or looks_chinese(text)):
                return text
    return None


def _found_out(content: bytes) -> Sequence[str]:
    marked = next((name for mark, name in _MARKS if content.startswith(mark)), "")
    return [marked] if marked else ["utf-8", "gb18030"]


def looks_chinese(text: str) -> bool:
    """Return whether text that was decoded as GBK is plausible; almost any bytes can be decoded as GBK.

    Western letters decode to characters that are not in GB2312; Japanese, Big5 and Cyrillic to rare ones.
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
    """Return the first byte of a character in GB2312; 0 if GB2312 does not contain it."""
    try:
        return character.encode("gb2312")[0]
    except UnicodeEncodeError:
        return 0
