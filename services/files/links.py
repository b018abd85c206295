"""The addresses below `/files/`: each names one entry of one stream and its end, and is signed.

    /files/<stream id>.<entry>.<expiry>.<signature>[.<suffix>]

The expiry is in seconds since 1970, as hexadecimal digits; 0 stands for the end of the stream's record. The suffix is
for clients that recognize a picture by the end of its address; it is not signed and has no effect.
"""

from __future__ import annotations

import hmac
import re
import time
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import NamedTuple

from utils.keyring import Keyring, keys_of

#: The path before the token.
FOLDER = "/files/"
#: The entry that stands for the stream's text.
TEXT = "text"
#: The first character of entries that name a file by its source's digest: such a link is known before the file is
#: fetched.
BY_SOURCE = "s"

_TOKEN = re.compile(
    r"(?P<stream>[A-Za-z0-9_-]{1,64})\.(?P<entry>text|[pf]\d{1,2}|s[0-9a-f]{16})\.(?P<expiry>[0-9a-f]{1,10})"
    r"\.(?P<tag>[0-9a-f]{32})(?:\.[a-z0-9]{1,5})?"
)


class FileRef(NamedTuple):
    """The part of a stream that a link names."""

    stream_id: str
    entry: str


class FileLinks:
    """Makes and opens links. Every method may raise `StoreUnavailable` if the key is in Redis."""

    def __init__(self, keys: Keyring, base: str = "", *, clock: Callable[[], float] = time.time) -> None:
        """`base` is the address at which people reach the gateway; "" if there is none. `clock`: seconds since 1970."""
        self._keys = keys
        self._base = base.rstrip("/")
        self._clock = clock

    @property
    def public(self) -> bool:
        """Whether links work outside the gateway's own pages."""
        return bool(self._base)

    def expiry(self, seconds: float) -> int:
        """Return the end of a link that works for `seconds` from now."""
        return int(self._clock() + max(0.0, seconds))

    def path(self, ref: FileRef, expiry: int, suffix: str = "") -> str:
        """Return the link's path on this server."""
        tag = _tag(keys_of(self._keys)[0], ref, expiry)
        return f"{FOLDER}{ref.stream_id}.{ref.entry}.{expiry:x}.{tag}{suffix}"

    def url(self, ref: FileRef, expiry: int, suffix: str = "") -> str:
        """Return the link with the host; "" without a known address of the gateway."""
        return self._base + self.path(ref, expiry, suffix) if self._base else ""

    def opened(self, token: str) -> FileRef | None:
        """Return the entry that a token names; None if its signature is wrong or it has expired."""
        found = _TOKEN.fullmatch(token)
        if not found:
            return None
        ref, expiry = FileRef(found["stream"], found["entry"]), int(found["expiry"], 16)
        tags = [_tag(key, ref, expiry) for key in keys_of(self._keys)]
        signed = any(hmac.compare_digest(tag, found["tag"]) for tag in tags)
        return ref if signed and (not expiry or self._clock() < expiry) else None


def suffix_of(name: str) -> str:
    """Return the suffix of a file's name if a link may end with it, else ""."""
    suffix = PurePosixPath(name).suffix.lower()
    return suffix if re.fullmatch(r"\.[a-z0-9]{1,5}", suffix) else ""


def _tag(key: bytes, ref: FileRef, expiry: int) -> str:
    # The regular expression of a token admits no "." within a part, so that two tokens never sign the same words.
    return hmac.digest(key, f"file:{ref.stream_id}.{ref.entry}.{expiry:x}".encode(), "sha256").hex()[:32]
