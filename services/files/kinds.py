"""Determines a file's type, media type and name, from the name that its store gives it and from its first bytes.

Dify divides files by the ending of their names; its lists are used for every provider.
"""

from __future__ import annotations

from typing import NamedTuple

from services.attachments import FileType, MediaFile, MediaKind

#: Media types by ending, in Dify's four lists. An ending that none has is of the type "custom".
_TYPES: dict[FileType, dict[str, str]] = {
    "image": {
        "jpg": "image/jpeg", "jpeg": "image/jpeg", "png": "image/png", "webp": "image/webp", "gif": "image/gif",
        "svg": "image/svg+xml",
    },
    "document": {
        "txt": "text/plain", "md": "text/markdown", "mdx": "text/markdown", "markdown": "text/markdown",
        "pdf": "application/pdf", "html": "text/html", "htm": "text/html", "csv": "text/csv",
        "properties": "text/plain", "vtt": "text/vtt", "xml": "application/xml", "epub": "application/epub+zip",
        "doc": "application/msword", "xls": "application/vnd.ms-excel", "ppt": "application/vnd.ms-powerpoint",
        "docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
        "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
        "pptx": "application/vnd.openxmlformats-officedocument.presentationml.presentation",
        "eml": "message/rfc822", "msg": "application/vnd.ms-outlook",
    },
    "audio": {
        "mp3": "audio/mpeg", "m4a": "audio/mp4", "wav": "audio/wav", "amr": "audio/amr", "mpga": "audio/mpeg",
    },
    "video": {"mp4": "video/mp4", "mov": "video/quicktime", "mpeg": "video/mpeg", "webm": "video/webm"},
}  # fmt: skip
_KNOWN = {ending: (kind, mime) for kind, endings in _TYPES.items() for ending, mime in endings.items()}
_UNKNOWN: tuple[FileType, str] = ("custom", "application/octet-stream")
#: Endings by the bytes that a file begins with.
_MAGIC = (
    (b"\xff\xd8\xff", "jpg"), (b"\x89PNG\r\n\x1a\n", "png"), (b"GIF87a", "gif"), (b"GIF89a", "gif"),
    (b"BM", "bmp"), (b"II*\x00", "tiff"), (b"MM\x00*", "tiff"), (b"%PDF-", "pdf"), (b"\x1aE\xdf\xa3", "webm"),
    (b"ID3", "mp3"), (b"#!AMR", "amr"), (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "doc"), (b"7z\xbc\xaf'\x1c", "7z"),
    (b"Rar!\x1a\x07", "rar"), (b"\x1f\x8b", "gz"),
)  # fmt: skip
#: The folder of an Office document's zip by the document's ending.
_OFFICE = ((b"word/", "docx"), (b"xl/", "xlsx"), (b"ppt/", "pptx"))
_PICTURES = ("jpg", "jpeg", "png", "gif", "webp", "bmp", "tiff", "heic", "svg")
#: Endings by first bytes that count more than an unknown ending: .log and .json are texts.
_CERTAIN = ("txt", "pdf", "jpg", "png", "gif", "webp")
#: Bytes at a file's beginning that are looked at.
_HEAD = 4096


class Recognized(NamedTuple):
    """A file's ending without the dot, and whether its bytes agree that it is a picture."""

    ending: str
    is_picture: bool


def file_of(kind: MediaKind, name: str, content: bytes) -> MediaFile:
    """Return a decrypted file with its type; `name` is "" where its store gave none."""
    found = recognized(name, content, kind)
    type_, mime = _KNOWN.get(found.ending, _UNKNOWN)
    given = name if name.lower().endswith(f".{found.ending}") else f"{name or kind}.{found.ending}".rstrip(".")
    return MediaFile(given, type_, mime, content)


def recognized(name: str, content: bytes, kind: MediaKind) -> Recognized:
    """Return the ending of a file. For pictures and videos the bytes count more than the name, for other files less."""
    named = name.rpartition(".")[2].lower() if "." in name else ""
    sniffed = _sniffed(content[:_HEAD])
    ending = (named or sniffed) if kind == "file" else (sniffed or named)
    # An ending that Dify does not know, of a file that it can read.
    if kind == "file" and named not in _KNOWN and sniffed in _CERTAIN:
        ending = sniffed
    return Recognized(ending or ("mp4" if kind == "video" else ""), sniffed in _PICTURES)


def _sniffed(head: bytes) -> str:
    """Return the ending that fits the first bytes, "" for none."""
    if head.startswith(b"RIFF"):
        return {b"WEBP": "webp", b"WAVE": "wav"}.get(head[8:12], "")
    if head[4:8] == b"ftyp":
        return _of_brand(head[8:12])
    if head.startswith(b"PK\x03\x04"):
        return next((ending for folder, ending in _OFFICE if folder in head), "zip")
    found = next((ending for magic, ending in _MAGIC if head.startswith(magic)), "")
    return found or _text_ending(head)


def _of_brand(brand: bytes) -> str:
    """Return the ending of an ISO media file by its brand."""
    if brand in (b"heic", b"heix", b"mif1", b"msf1"):
        return "heic"
    return {b"qt  ": "mov", b"M4A ": "m4a"}.get(brand, "mp4")


def _text_ending(head: bytes) -> str:
    if not head or b"\0" in head:
        return ""
    try:
        text = head.decode() if len(head) < _HEAD else head[:-3].decode(errors="strict")
    except UnicodeDecodeError:
        return ""
    return "svg" if text.lstrip().startswith("<svg") else "txt"
