"""The mock Dify's files: signed addresses below `/files/`, which end, and pictures of every kind behind them."""

from __future__ import annotations

import hashlib
import io
import struct
import zlib
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

from PIL import Image, ImageDraw

#: The folder of files that tools made.
FOLDER = "/files/tools/"
#: Bytes of the largest file, more than the gateway takes.
HUGE_BYTES = 24 * 1024 * 1024
#: Pixels of each side of the decompression bomb.
BOMB_SIDE = 12_000


class MockFile(NamedTuple):
    """A file as the mock sends it."""

    content: bytes
    type: str
    #: The name in `Content-Disposition`; "" for no such header.
    name: str = ""


def signed(name: str, base: str = "") -> str:
    """Return a file's signed address: relative, or below `base`."""
    return f"{base}{FOLDER}{name}?timestamp=1790000105&nonce=ab12&sign={_sign(name)}="


def is_signed(name: str, query: dict[str, str]) -> bool:
    return query.get("sign") == f"{_sign(name)}="


def _sign(name: str) -> str:
    return hashlib.sha256(f"mock {name}".encode()).hexdigest()[:12]


def drawn(size: tuple[int, int] = (480, 300), sky: str = "#9cc9ee") -> Image.Image:
    """Draw a house under a sun."""
    image = Image.new("RGB", size, sky)
    draw, (width, height) = ImageDraw.Draw(image), size
    draw.rectangle((0, height * 0.7, width, height), fill="#79b36a")
    draw.ellipse((width * 0.75, height * 0.08, width * 0.9, height * 0.08 + width * 0.15), fill="#f8d552")
    draw.rectangle((width * 0.25, height * 0.45, width * 0.55, height * 0.85), fill="#e8d2b0")
    draw.polygon([(width * 0.2, height * 0.45), (width * 0.4, height * 0.2), (width * 0.6, height * 0.45)], "#b4523c")
    draw.rectangle((width * 0.36, height * 0.62, width * 0.44, height * 0.85), fill="#6d4a33")
    return image


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def _turned() -> MockFile:
    """A photograph whose camera was held upright: its orientation is in the EXIF data only."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return MockFile(encoded(drawn(), "JPEG", exif=exif), "image/jpeg")


def _animated() -> MockFile:
    frames = [drawn(sky=sky) for sky in ("#9cc9ee", "#e08a5a")]
    return MockFile(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]), "image/gif")


def _bomb() -> MockFile:
    """A few kilobytes that take 144 MB when decoded."""
    row = b"\0" * (1 + BOMB_SIDE // 8)
    header = struct.pack(">IIBBBBB", BOMB_SIDE, BOMB_SIDE, 1, 0, 0, 0, 0)
    chunks = (b"IHDR", header), (b"IDAT", zlib.compress(row * BOMB_SIDE)), (b"IEND", b"")
    return MockFile(b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*chunk) for chunk in chunks), "image/png")


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


_MAKERS: dict[str, Callable[[], MockFile]] = {
    "9d1c.png": lambda: MockFile(encoded(drawn(), "PNG"), "image/png"),
    "photo": lambda: MockFile(encoded(drawn(), "JPEG"), "image/jpeg"),
    "house.webp": lambda: MockFile(encoded(drawn(), "WEBP"), "image/webp"),
    "turned.jpg": _turned,
    "day.gif": _animated,
    "bomb.png": _bomb,
    "huge.png": lambda: MockFile(b"\x89PNG\r\n\x1a\n" + bytes(HUGE_BYTES), "image/png"),
    "page.png": lambda: MockFile(b"<!doctype html><title>404</title>", "text/html"),
    "report.pdf": lambda: MockFile(b"%PDF-1.4\n" + bytes(range(256)) * 2000, "application/pdf", "年度报告.pdf"),
}


@cache
def file(name: str) -> MockFile | None:
    """Return a file; None if there is none of this name. `photo-2` has the same bytes as `photo`."""
    maker = _MAKERS.get(name.partition("-")[0])
    return maker() if maker else None
