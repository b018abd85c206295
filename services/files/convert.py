"""Turn a picture into a JPG or PNG of limited size. Runs as a process of its own, which decodes foreign bytes.

    python -m services.files.convert MAX_BYTES < picture > converted

Decoding takes up to a second of CPU time and hundreds of megabytes: a worker that did it itself would answer no poll
meanwhile. The exit status is 1 for a picture that cannot be converted.
"""

from __future__ import annotations

import io
import resource
import sys
import warnings

from PIL import Image, ImageOps, PngImagePlugin

#: Media type of the formats that WeCom takes, by Pillow's name.
TYPES = {"PNG": "image/png", "JPEG": "image/jpeg"}
#: The formats that are read; Pillow's other decoders are for rare formats and have had more errors.
FORMATS = ("PNG", "JPEG", "GIF", "WEBP", "BMP")
#: Pixels of the largest picture: 100 MB when decoded. A decompression bomb has more, in a few kilobytes.
MOST_PIXELS = 25_000_000
# Pillow's own limit is higher, and warns before it refuses.
Image.MAX_IMAGE_PIXELS = None
# It warns of each damaged entry of EXIF data: thousands of lines for one picture.
warnings.filterwarnings("ignore", module="PIL")
#: The longest side of a converted picture.
MOST_SIDE = 4096
#: Bytes of memory and seconds of CPU time of the process.
MEMORY_BYTES, CPU_SECONDS = 1024 * 1024 * 1024, 10
#: Quality of a JPG, and the factor by which a picture that is too large is scaled, again and again.
QUALITY, SHRINK, MOST_SHRINKS = 85, 0.7, 8
_ORIENTATION = 0x0112


class NoPicture(Exception):
    """The bytes are no picture of a known format, or one with too many pixels."""


def opened(content: bytes, formats: tuple[str, ...] = FORMATS) -> Image.Image:
    """Return a picture whose header was read, and nothing decoded.

    Raises:
        NoPicture: it is not a picture, or has too many pixels.
    """
    try:
        image = Image.open(io.BytesIO(content), formats=formats)
    # Pillow's decoders raise many kinds of errors on damaged files.
    except Exception as exc:
        raise NoPicture("not a picture") from exc
    if image.width * image.height > MOST_PIXELS:
        raise NoPicture("too many pixels")
    return image


def shown_type(head: bytes) -> str:
    """Return the media type of a picture that WeCom takes as it is, by its first bytes; "" if they do not tell."""
    # A worker calls this, and a PNG's texts may be a thousand times as large when they are decompressed.
    PngImagePlugin.MAX_TEXT_MEMORY = 1024 * 1024
    try:
        image = opened(head, tuple(TYPES))
    except NoPicture:
        return ""
    return TYPES[str(image.format)] if _is_shown(image) else ""


def _is_shown(image: Image.Image) -> bool:
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


def converted(content: bytes, max_bytes: int) -> bytes:
    """Return the first frame as JPG or PNG, upright, in `max_bytes` at most.

    Raises:
        NoPicture: it cannot be decoded, or not be made small enough.
    """
    try:
        image: Image.Image = ImageOps.exif_transpose(opened(content))
        # Palettes and 16 bits a channel become plain colours.
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
        image.thumbnail((MOST_SIDE, MOST_SIDE))
        return _fitted(image, max_bytes)
    except NoPicture:
        raise
    except Exception as exc:
        raise NoPicture("damaged") from exc


def _fitted(image: Image.Image, max_bytes: int) -> bytes:
    for _ in range(MOST_SHRINKS):
        encoded = _encoded(image)
        if len(encoded) <= max_bytes:
            return encoded
        image = image.resize((max(1, int(image.width * SHRINK)), max(1, int(image.height * SHRINK))))
    raise NoPicture("too large")


def _encoded(image: Image.Image) -> bytes:
    out = io.BytesIO()
    if image.mode == "RGBA":
        image.save(out, "PNG")
    else:
        image.save(out, "JPEG", quality=QUALITY)
    return out.getvalue()


def main() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    try:
        sys.stdout.buffer.write(converted(sys.stdin.buffer.read(), int(sys.argv[1])))
    except (NoPicture, MemoryError):
        sys.exit(1)


if __name__ == "__main__":
    main()
