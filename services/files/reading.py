"""Fetches one picture or file of an answer, checks it, and converts pictures that WeCom does not take: it shows JPG and
PNG.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple

from services.errors import FetchError
from services.files.sources import Source
from services.http.fetcher import Fetched, Fetcher
from utils.deadline import Deadline
from utils.formats.file_names import plain_name
from utils.markdown.pictures import FOLDER
from utils.slots import Slots

#: Seconds for one file.
ONE_SECONDS = 6.0
#: Files that one reader reads at the same time: each is in memory. Further ones wait.
MOST_READS = 16
ROOT = Path(__file__).parents[2]
#: Conversions at the same time, per process.
MOST_CONVERSIONS = 2
#: The beginning of a JPG or PNG, which this process parses, because a file may have millions of empty parts. If it does
#: not tell enough, the process of the conversion reads the whole.
HEAD_BYTES = 64 * 1024
_SIGNATURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF8", b"BM")
_SUFFIXES = {"image/png": ".png", "image/jpeg": ".jpg"}


class Room(NamedTuple):
    """The bytes that are left for a file, those for a picture of the frame, and whether a link is left."""

    size: int
    picture: int
    link: bool


@dataclass(frozen=True, slots=True)
class FileContent:
    """A file as it is stored: `kind` is "p" for a picture of the frame, "f" for a link."""

    kind: Literal["p", "f"]
    name: str = field(repr=False)
    type: str
    content: bytes = field(repr=False)

    @property
    def md5(self) -> str:
        return hashlib.md5(self.content, usedforsecurity=False).hexdigest()


@dataclass(frozen=True, slots=True)
class Picture:
    """A JPG or PNG."""

    content: bytes = field(repr=False)
    type: str


def looks_like_picture(content: bytes) -> bool:
    """Return whether the first bytes are those of a format that `PictureConverter` takes."""
    return content.startswith(_SIGNATURES) or (content[:4] == b"RIFF" and content[8:12] == b"WEBP")


class PictureConverter:
    """Returns pictures that WeCom takes. Thread-safe."""

    def __init__(self) -> None:
        self._running = threading.BoundedSemaphore(MOST_CONVERSIONS)

    def picture(self, content: bytes, max_bytes: int, deadline: Deadline) -> Picture:
        """Return a picture as JPG or PNG of `max_bytes` at most; one that is that already stays as it is.

        Raises:
            FetchError: `media_wrong_type`: it is no picture, has too many pixels or cannot be decoded;
                `media_failed`: there was no time for it.
        """
        # Imported at the first picture: many replicas never see one, and Pillow takes 3 MiB.
        from services.files.convert import TYPES, shown_type

        if len(content) <= max_bytes and (media := shown_type(content[:HEAD_BYTES])):
            return Picture(content, media)
        small = self._converted(content, max_bytes, deadline)
        return Picture(small, TYPES["PNG" if small.startswith(_SIGNATURES[0]) else "JPEG"])

    def _converted(self, content: bytes, max_bytes: int, deadline: Deadline) -> bytes:
        if not self._running.acquire(timeout=deadline.remaining()):
            raise FetchError("no time to convert")
        try:
            left = deadline.remaining()
            if not left:
                raise FetchError("no time to convert")
            command = [sys.executable, "-m", "services.files.convert", str(max_bytes)]
            done = subprocess.run(command, cwd=ROOT, input=content, capture_output=True, timeout=left)
        except (OSError, subprocess.SubprocessError) as exc:
            raise FetchError(f"not converted: {type(exc).__name__}") from exc
        finally:
            self._running.release()
        if done.returncode or not done.stdout:
            raise FetchError(f"not converted: status {done.returncode}", code="media_wrong_type")
        return done.stdout


class FileReader:
    """Reads the files of all bots. Thread-safe."""

    def __init__(self, fetcher: Fetcher) -> None:
        self._fetcher = fetcher
        self._converter = PictureConverter()
        self._slots = Slots(MOST_READS)

    def read(self, source: Source, room: Room, deadline: Deadline, *, root: str) -> FileContent:
        """Return the file of a source; `root` is the address of the provider that serves `/files/`, "" for none.

        Raises:
            FetchError: no address has it, it should be a picture and is none, it is a decompression bomb, or there is
                no time or room for it.
            ProviderError: the deadline was aborted.
        """
        with self._slots.held(deadline) as free:
            if not free:
                raise FetchError("no time left")
            fetched = self._fetch(source, root, deadline, room.size)
            return self._checked(source, fetched, room, deadline)

    def _fetch(self, source: Source, root: str, deadline: Deadline, max_bytes: int) -> Fetched:
        failed = FetchError("no address that may be fetched", code="media_not_allowed")
        also = (f"{root}{FOLDER}",) if root else ()
        for url in source.candidates(root):
            if deadline.over or max_bytes <= 0:
                raise FetchError("no time or room left")
            try:
                bounded = Deadline(min(ONE_SECONDS, deadline.remaining()))
                with deadline.interrupting(lambda bounded=bounded: bounded.abort("interrupted")):  # type: ignore[misc]
                    return self._fetcher.fetch(url, bounded, max_bytes, also=also)
            except FetchError as exc:
                failed = exc
        raise failed

    def _checked(self, source: Source, fetched: Fetched, room: Room, deadline: Deadline) -> FileContent:
        content, media = fetched.content, fetched.content_type
        if looks_like_picture(content) and room.picture > 0:
            bounded = Deadline(min(ONE_SECONDS, deadline.remaining()))
            picture = self._converter.picture(content, room.picture, bounded)
            return FileContent("p", _name(source, fetched, picture.type), picture.type, picture.content)
        if source.is_picture and not looks_like_picture(content) and not media.startswith("image/"):
            raise FetchError("a page instead of a picture", code="media_wrong_type")
        if not room.link:
            raise FetchError("too many files", code="media_too_many")
        return FileContent("f", _name(source, fetched, media), media, content)


def _name(source: Source, fetched: Fetched, media: str) -> str:
    """Return a file's name; a picture's suffix is that of its format."""
    name = plain_name(fetched.name or source.name) or ("picture" if media in _SUFFIXES else "file")
    suffix = _SUFFIXES.get(media)
    if not suffix or name.lower().endswith((suffix, ".jpeg" if suffix == ".jpg" else suffix)):
        return name
    known = PurePosixPath(name).suffix.lower() in (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp")
    return (str(PurePosixPath(name).with_suffix("")) if known else name) + suffix
