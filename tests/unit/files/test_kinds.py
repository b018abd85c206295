"""Types of files by name and first bytes."""

from __future__ import annotations

import pytest

from services.attachments import MediaKind
from services.files.kinds import file_of
from tests.support.pictures import MP4, PDF, png

JPG = b"\xff\xd8\xff\xe0" + b"\0" * 20
DOCX = b"PK\x03\x04" + b"\0" * 26 + b"word/document.xml"
HEIC = b"\0\0\0\x18ftypheic" + b"\0" * 20


@pytest.mark.parametrize(
    ("kind", "name", "content", "expected"),
    [
        ("image", "", png(), ("image.png", "image", "image/png")),
        ("image", "", JPG, ("image.jpg", "image", "image/jpeg")),
        # A picture's bytes count more than its name, which some clients choose wrongly.
        ("image", "photo.png", JPG, ("photo.png.jpg", "image", "image/jpeg")),
        ("image", "photo", JPG, ("photo.jpg", "image", "image/jpeg")),
        ("image", "", HEIC, ("image.heic", "custom", "application/octet-stream")),
        ("image", "", b"RIFF\0\0\0\0WEBPVP8 ", ("image.webp", "image", "image/webp")),
        ("video", "", MP4, ("video.mp4", "video", "video/mp4")),
        ("video", "", b"unknown\0", ("video.mp4", "video", "video/mp4")),
        ("file", "报告.pdf", PDF, ("报告.pdf", "document", "application/pdf")),
        ("file", "", PDF, ("file.pdf", "document", "application/pdf")),
        ("file", "data.CSV", b"a,b\n", ("data.CSV", "document", "text/csv")),
        ("file", "", DOCX, ("file.docx", "document",
                            "application/vnd.openxmlformats-officedocument.wordprocessingml.document")),
        ("file", "notes", "中文".encode(), ("notes.txt", "document", "text/plain")),
        ("file", "app.log", b"started\n", ("app.log.txt", "document", "text/plain")),
        ("file", "table.et", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 9, ("table.et", "custom",
                                                                      "application/octet-stream")),
        ("file", "photo.jpg", JPG, ("photo.jpg", "image", "image/jpeg")),
        ("file", "sound.amr", b"#!AMR\n", ("sound.amr", "audio", "audio/amr")),
        ("file", "x.zip", b"PK\x03\x04" + b"\0" * 30, ("x.zip", "custom", "application/octet-stream")),
        ("file", "", b"\x01\x02\0", ("file", "custom", "application/octet-stream")),
        ("file", "model.bin", b"\x01\x02\0", ("model.bin", "custom", "application/octet-stream")),
        ("file", "empty.txt", b"", ("empty.txt", "document", "text/plain")),
    ],
)  # fmt: skip
def test_a_file_has_a_type(kind: MediaKind, name: str, content: bytes, expected: tuple[str, str, str]) -> None:
    """Name, type and media type; every file has a name, because Dify looks at its ending."""
    file = file_of(kind, name, content)

    assert (file.name, file.type, file.mime) == expected
    assert file.content == content


def test_a_long_text_that_is_cut_within_a_character_is_a_text() -> None:
    """Only the beginning of a file is looked at."""
    assert file_of("file", "", b"x" + "中".encode() * 5000).name == "file.txt"


def test_a_file_shows_neither_name_nor_content() -> None:
    """The repr may reach a log."""
    assert "secret" not in repr(file_of("file", "secret.txt", b"secret"))
