"""The sources of an answer's pictures and files: addresses in its text, and files that the provider sent beside it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

from markdown_it.common.normalize_url import normalizeLink

from services.attachments import AnswerFile
from utils.formats.file_names import plain_name
from utils.markdown.pictures import FOLDER, is_signed, references, signed_references

#: Sources of one answer; further ones are left where they are.
MOST_SOURCES = 20
#: Characters of an address that people are shown.
SHOWN_URL = 300


@dataclass(frozen=True, slots=True)
class Source:
    """One picture or file, before it is fetched. Its repr has no address: it may hold a signature."""

    url: str = field(repr=False)
    name: str = field(repr=False)
    is_picture: bool

    @property
    def digest(self) -> str:
        return digest_of(self.url)

    @property
    def public_url(self) -> str:
        """The address that people may see, "" for none: a signed one expires soon and names Dify's host."""
        shown = not is_signed(self.url) and self.url.startswith(("http://", "https://")) and len(self.url) <= SHOWN_URL
        return self.url if shown else ""

    def candidates(self, root: str) -> Iterator[str]:
        """Yield the addresses to try; `root` is the address of the provider that serves `/files/`, "" for none.

        Dify's `FILES_URL` may be a host that only Dify reaches; the signature does not cover the host.
        """
        parts = urlsplit(self.url)
        if is_signed(self.url) and root:
            yield f"{root}{parts.path}{f'?{parts.query}' if parts.query else ''}"
        if parts.scheme in ("http", "https") and not self.url.startswith(f"{root}{FOLDER}" if root else "\0"):
            yield self.url


def digest_of(url: str) -> str:
    """Return the digest that identifies a source. Dify signs a file anew each time, so the signature does not count.

    An address has the same digest in the text and in rendered HTML, where its characters are encoded.
    """
    key = urlsplit(url).path if is_signed(url) else normalizeLink(url)
    return hashlib.sha256(key.encode("utf-8", "replace")).hexdigest()[:16]


def sources_of(text: str, attached: Iterable[AnswerFile], *, signed_only: bool = False) -> list[Source]:
    """Return the sources of an answer without duplicates, those of its text first.

    With `signed_only` addresses in the text that are not signed are left out.
    """
    written = signed_references(text) if signed_only else references(text)
    found = [Source(one.url, one.words or _last(one.url), one.is_picture) for one in written]
    found += [Source(one.url, one.name or _last(one.url), one.is_picture) for one in attached]
    unique: dict[str, Source] = {}
    for source in found:
        unique.setdefault(source.digest, source)
    return list(unique.values())[:MOST_SOURCES]


def attached_to_json(files: Iterable[AnswerFile]) -> str:
    """Return attached files as JSON, without duplicates, `MOST_SOURCES` at most."""
    unique = list({one.url: one for one in files}.values())[:MOST_SOURCES]
    return json.dumps([[one.url, one.name, one.is_picture] for one in unique])


def attached_from_json(text: str) -> list[AnswerFile]:
    rows: list[Any] = json.loads(text) if text else []
    return [AnswerFile(*row) for row in rows]


def _last(url: str) -> str:
    """Return the last component of an address's path as a name."""
    try:
        return plain_name(unquote(urlsplit(url).path))
    except ValueError:
        return ""
