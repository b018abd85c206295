"""The server's sentences in the other language, for pages whose language a person has switched.

A page finds a sentence without gaps by its code, and one with gaps, such as "At most {limit} …", by its template.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TypedDict

from config.texts import FALLBACK, LOCALES, Texts
from config.texts.requests import ZH_REQUESTS

_GAP = re.compile(r"\{(\w+)\}")


class Sentences(TypedDict):
    """What a page needs to show the server's sentences in the language that the server does not speak."""

    #: By code, those without gaps.
    codes: dict[str, str]
    #: Pairs of templates: as the server fills it, and in the other language.
    templates: list[tuple[str, str]]


def other_sentences(texts: Texts) -> Sentences:
    """Return the sentences of `texts`, and those about wrong requests, in the other language.

    A replaced sentence whose gaps are fewer than those of ours has no translation.
    """
    other = LOCALES["en" if texts.locale == "zh" else "zh"]
    codes = {code: sentence for code, sentence in other.items() if not _GAP.search(sentence)}
    # A code that the server does not know has the sentence of FALLBACK.
    named = [(texts.template(code), other[code]) for code in other if code not in codes or code == FALLBACK]
    pairs = [*named, *_about_requests(texts.locale)]
    return {"codes": codes, "templates": [(said, shown) for said, shown in pairs if _gaps(shown) <= _gaps(said)]}


def _about_requests(locale: str) -> Iterator[tuple[str, str]]:
    for english, chinese in ZH_REQUESTS.items():
        yield (chinese, english) if locale == "zh" else (english, chinese)


def _gaps(template: str) -> set[str]:
    return set(_GAP.findall(template))
