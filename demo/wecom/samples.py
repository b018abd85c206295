"""The files that the demo's page sends: made here, so that the repository has no pictures of unknown origin."""

from __future__ import annotations

import struct
import zlib

#: Width and height of the picture, and the days of leave of four years that it shows as columns.
WIDTH, HEIGHT = 320, 180
_DAYS = (5, 10, 10, 15)
_PAPER, _INK, _COLUMN = b"\xff\xff\xff", b"\x8a\x91\x9e", b"\x2f\x6f\xed"
_LEFT, _BOTTOM, _STEP, _BROAD, _DAY = 40, 150, 65, 40, 8

#: A sheet in the encoding that Excel writes in China.
SHEET_NAME = "年假天数.csv"
SHEET = "姓名,年假天数\n张三,10\n李四,5\n".encode("gb18030")

#: The first box of an MP4 file, by which its type is told; there is nothing to play.
CLIP = struct.pack(">I4s4sI4s4s", 24, b"ftyp", b"isom", 512, b"isom", b"mp42")


def photo() -> bytes:
    """Return a PNG of a column chart."""
    rows = b"".join(b"\0" + b"".join(_pixel(x, y) for x in range(WIDTH)) for y in range(HEIGHT))
    head = struct.pack(">IIBBBBB", WIDTH, HEIGHT, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _part(b"IHDR", head) + _part(b"IDAT", zlib.compress(rows, 9)) + _part(b"IEND", b"")


def _pixel(x: int, y: int) -> bytes:
    column, offset = divmod(x - _LEFT, _STEP)
    if 0 <= column < len(_DAYS) and offset < _BROAD and _BOTTOM - _DAY * _DAYS[column] <= y < _BOTTOM:
        return _COLUMN
    return _INK if y == _BOTTOM and x >= _LEFT - 10 else _PAPER


def _part(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
