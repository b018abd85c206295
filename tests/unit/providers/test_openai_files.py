"""Files within a question to an OpenAI-compatible server."""

from __future__ import annotations

import pytest

from services.attachments import MediaFile
from services.errors import AnswerError
from services.files.kinds import file_of
from services.models import Query
from services.providers.openai.provider import MOST_TEXT, content_of, file_part
from tests.support.pictures import MP4, PDF, png


def test_a_question_without_files_is_its_text() -> None:
    """Servers that know no parts are asked as before."""
    assert content_of(Query("年假", "u")) == "年假"


def test_pictures_are_data_urls_after_the_words() -> None:
    """The media type is that of the bytes."""
    content = content_of(Query("年假", "u", media=(file_of("image", "", png()),)))

    assert isinstance(content, list)
    words, picture = content
    assert words == {"type": "text", "text": "年假"}
    assert picture["image_url"]["url"].startswith("data:image/png;base64,iVBOR")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "年假,5".encode("gb18030")),
        ("a.md", "年假,5".encode()),
        ("a.xml", "年假,5".encode()),
    ],
)
def test_texts_are_texts(name: str, content: bytes) -> None:
    """In any encoding that can be told."""
    assert file_part(file_of("file", name, content)) == {"type": "text", "text": f"{name}:\n\n年假,5"}


@pytest.mark.parametrize(
    ("file", "code"),
    [
        (file_of("video", "", MP4), "media_wrong_type"),
        (file_of("file", "x.pdf", PDF), "media_wrong_type"),
        (file_of("file", "x.bin", b"\0\1\2\xff"), "media_wrong_type"),
        (MediaFile("x.txt", "document", "text/plain", b"x" * (MOST_TEXT + 1)), "media_too_large"),
        (MediaFile("x.txt", "document", "text/plain", b"x" * (4 * MOST_TEXT + 1)), "media_too_large"),
    ],
)
def test_other_files_are_refused(file: MediaFile, code: str) -> None:
    """No text is cut, because the answer would be about a part that nobody chose."""
    with pytest.raises(AnswerError) as caught:
        file_part(file)

    assert caught.value.code == code
