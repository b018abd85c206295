"""Files that browsers may keep for ever: what is in one is in its name, so another content has another name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from flask import Response

#: A year, which is as long as caches believe anybody.
CACHE = "public, max-age=31536000, immutable"
#: Letters of the digest in a name.
DIGITS = 16

_MEDIA = {".js": "text/javascript", ".css": "text/css"}


@dataclass(frozen=True, slots=True)
class Asset:
    """One file as it is sent."""

    content: bytes
    media: str

    def reply(self) -> Response:
        reply = Response(self.content, mimetype=self.media)
        reply.headers["Cache-Control"] = CACHE
        reply.headers["X-Content-Type-Options"] = "nosniff"
        return reply


class Assets:
    """Some files, each under a name with a digest of its content."""

    def __init__(self, paths: Iterable[Path]) -> None:
        contents = {path: path.read_bytes() for path in paths}
        #: The name of each file by the name it has on disk.
        self.names: Mapping[str, str] = {path.name: _name(path, content) for path, content in contents.items()}
        self._served = {self.names[path.name]: Asset(contents[path], _MEDIA[path.suffix]) for path in contents}

    def find(self, name: str) -> Asset | None:
        return self._served.get(name)


def _name(path: Path, content: bytes) -> str:
    return f"{path.stem}-{sha256(content).hexdigest()[:DIGITS]}{path.suffix}"
