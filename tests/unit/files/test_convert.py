"""Pictures are checked before they are decoded, and converted in a process of their own."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import time
import zlib

import pytest
from PIL import Image

from demo.mocks.dify.features.files import drawn, encoded, file
from services.errors import FetchError
from services.files.convert import MOST_SIDE, NoPicture, converted, opened
from services.files.reading import ROOT, PictureConverter, looks_like_picture
from utils.deadline import Deadline

MIB = 1024 * 1024


def content(name: str) -> bytes:
    found = file(name)
    assert found
    return found.content


def image(picture: bytes) -> Image.Image:
    return Image.open(io.BytesIO(picture))


def test_a_bomb_is_refused_undecoded() -> None:
    """Its header tells its pixels; 18 MB of pixels come in less than 100 kB."""
    bomb = content("bomb.png")

    assert len(bomb) < 100_000
    assert looks_like_picture(bomb)
    with pytest.raises(NoPicture, match="too many pixels"):
        opened(bomb)
    with pytest.raises(NoPicture, match="too many pixels"):
        converted(bomb, MIB)


@pytest.mark.parametrize("damaged", [b"", b"GIF89a", b"\x89PNG\r\n\x1a\n" + bytes(100), b"RIFF....WEBPVP8 ", b"%PDF"])
def test_damaged_pictures_are_refused(damaged: bytes) -> None:
    """Whatever the decoder raises, it is one error."""
    with pytest.raises(NoPicture):
        converted(damaged, MIB)


@pytest.mark.parametrize("kind", ["TIFF", "PPM"])
def test_rare_formats_are_not_decoded(kind: str) -> None:
    """Fewer decoders, fewer errors in them."""
    rare = encoded(drawn(), kind)

    assert not looks_like_picture(rare)
    with pytest.raises(NoPicture):
        opened(rare)


@pytest.mark.parametrize(("mode", "kind"), [("RGBA", "PNG"), ("P", "JPEG"), ("L", "JPEG"), ("RGB", "JPEG")])
def test_transparency_stays(mode: str, kind: str) -> None:
    """A transparent picture becomes PNG, any other JPG."""
    picture = drawn().convert(mode)
    if mode == "RGBA":
        picture.putalpha(120)

    assert image(converted(encoded(picture, "WEBP" if mode != "P" else "GIF"), MIB)).format == kind


def test_a_large_picture_is_made_smaller() -> None:
    """Until it fits: noise is what JPG compresses worst."""
    noise = encoded(Image.frombytes("RGB", (300, 300), os.urandom(300 * 300 * 3)), "PNG")

    small = converted(noise, 20_000)

    assert len(small) <= 20_000 < len(noise)
    with pytest.raises(NoPicture, match="too large"):
        converted(noise, 100)


def test_a_wide_picture_is_scaled() -> None:
    assert image(converted(encoded(Image.new("RGB", (5000, 100)), "PNG"), MIB)).width == MOST_SIDE


def test_what_wecom_shows_stays_as_it_is() -> None:
    """JPG and PNG are not encoded again; the rest is, in another process."""
    converter, deadline = PictureConverter(), Deadline(30.0)
    house = content("house.webp")

    assert converter.picture(content("photo"), MIB, deadline).content == content("photo")
    assert converter.picture(content("9d1c.png"), MIB, deadline).type == "image/png"
    assert converter.picture(house, MIB, deadline).type == "image/jpeg"


def test_without_time_no_process_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fast machine would convert the picture before anything notices that the deadline is over."""
    monkeypatch.setattr(subprocess, "run", lambda *args, **options: pytest.fail("a process was started"))

    with pytest.raises(FetchError) as refused:
        PictureConverter().picture(content("house.webp"), MIB, Deadline(0.0))

    assert refused.value.code == "media_failed"


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


PNG_HEAD = b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0))
GIF_HEAD = b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0, 0, 0)
#: Pictures of 20 MiB of parts that a decoder reads one by one, and one of texts that decompress to 63 MiB.
ENDLESS = {
    "comments of a GIF": GIF_HEAD + b"!\xfe\x01a\0" * (4 * MIB),
    "padding of a JPG": b"\xff\xd8" + b"\xff" * (20 * MIB),
    "segments of a JPG": b"\xff\xd8" + b"\xff\xef\x00\x02" * (5 * MIB),
    "chunks of a PNG": PNG_HEAD + _chunk(b"gAMA", bytes(4)) * (20 * MIB // 16),
    "texts of a PNG": PNG_HEAD + _chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(MIB - 100), 9)) * 63,
}


@pytest.mark.parametrize("name", ENDLESS)
def test_endless_pictures_do_not_hold_the_worker(name: str) -> None:
    """Their beginning alone is parsed here; without time for a conversion nothing else is done."""
    began = time.thread_time()
    with pytest.raises(FetchError):
        PictureConverter().picture(ENDLESS[name], 100 * MIB, Deadline(0.0))

    assert time.thread_time() - began < 0.5


def test_damaged_exif_data_write_nothing() -> None:
    """5,000 wrong entries are 5,000 warnings of the decoder."""
    entries = b"".join(struct.pack("<HHII", 0x8000 + tag, 1, 0xFFF0, 8) for tag in range(5000))
    exif = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", 5000) + entries
    frame = b"\xff\xc0\x00\x0b\x08\x00\x01\x00\x01\x01\x01\x11\x00\xff\xda\x00\x02"
    picture = b"\xff\xd8\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + frame
    code = "import sys; from services.files.convert import shown_type as shown; print(shown(sys.stdin.buffer.read()))"

    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, input=picture, capture_output=True, check=True)

    assert (done.stdout, done.stderr) == (b"image/jpeg\n", b"")


def test_what_is_no_picture_to_wecom_is_refused() -> None:
    """The error's code says that the file is wrong, not that the time was short."""
    with pytest.raises(FetchError) as refused:
        PictureConverter().picture(content("bomb.png"), MIB, Deadline(30.0))

    assert refused.value.code == "media_wrong_type"
