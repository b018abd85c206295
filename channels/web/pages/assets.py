"""Static files that browsers may cache for ever: each name contains a digest of the content."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from flask import Response

#: One year, the longest lifetime that caches respect.
CACHE = "public, max-age=31536000, immutable"
#: Characters of the digest in a name.
DIGITS = 16

_MEDIA = {".js": "text/javascript", ".css": "text/css"}


@dataclass(frozen=True, slots=True)
class Asset:
    """One file, ready to be sent."""

    content: bytes
    media: str

    def reply(self) -> Response:
        reply = Response(self.content, mimetype=self.media)
        reply.headers["Cache-Control"] = CACHE
        reply.headers["X-Content-Type-Options"] = "nosniff"
        return reply


class Assets:
    """A set of files, each served under a name with a digest of its content."""

    def __init__(self, paths: Iterable[Path]) -> None:
        contents = {path: path.read_bytes() for path in paths}
        #: The served name of each file by its name on disk.
        self.names: Mapping[str, str] = {path.name: _name(path, content) for path, content in contents.items()}
        self._served = {self.names[path.name]: Asset(contents[path], _MEDIA[path.suffix]) for path in contents}

    def find(self, name: str) -> Asset | None:
        return self._served.get(name)


def _name(path: Path, content: bytes) -> str:
    return f"{path.stem}-{sha256(content).hexdigest()[:DIGITS]}{path.suffix}"
