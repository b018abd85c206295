"""Checks pictures, and has those converted that WeCom does not take: WeCom shows JPG and PNG."""

from __future__ import annotations

import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from services.errors import FetchError
from services.files.convert import NoPicture, opened
from utils.deadline import Deadline

ROOT = Path(__file__).parents[2]
#: Conversions at the same time, per process.
MOST_CONVERSIONS = 2
#: Media type by Pillow's name of a format.
TYPES = {"PNG": "image/png", "JPEG": "image/jpeg"}
_SIGNATURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF8", b"BM")
_ORIENTATION = 0x0112


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
        try:
            image = opened(content)
            if len(content) <= max_bytes and _fits(image):
                return Picture(content, TYPES[str(image.format)])
        except NoPicture as exc:
            raise FetchError(str(exc), code="media_wrong_type") from exc
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


def _fits(image: Image.Image) -> bool:
    """Return whether WeCom takes the picture as it is: an upright JPG, or a PNG of one frame."""
    if image.format == "PNG":
        return not getattr(image, "is_animated", False)
    if image.format != "JPEG":
        return False
    try:
        return image.getexif().get(_ORIENTATION, 1) in (0, 1)
    # Damaged EXIF data; decoders ignore it.
    except Exception:
        return True
