"""The pictures of an OpenAI client's question."""

from __future__ import annotations

import pytest

from channels.openai.models import ContentPart, ImageUrl
from channels.openai.requests import MAX_ADDRESS, MAX_PICTURES, sent_pictures
from channels.web.rest import RestError
from services.attachments import Media, MediaFile
from tests.support.openai_program import data_url
from tests.support.pictures import PDF, png


def part(url: str) -> ContentPart:
    return ContentPart(type="image_url", image_url=ImageUrl(url=url))


TEXT = ContentPart(type="text", text="甲？")


def test_addresses_are_fetched_later_and_data_comes_along() -> None:
    """The bytes tell a picture's type; the order is the message's."""
    parts = [part("https://a.example/1.png"), TEXT, part(data_url(png(), "text/plain")), part("HTTP://b.example/2")]

    found = sent_pictures(parts, "content", max_bytes=len(png()))

    data = MediaFile("image.png", "image", "image/png", png())
    web = [Media("image", url, place="web") for url in ("https://a.example/1.png", "HTTP://b.example/2")]
    assert found == (web[0], data, web[1])
    assert "a.example" not in repr(found)


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("", "invalid_image_url"),
        ("/etc/passwd", "invalid_image_url"),
        ("file:///etc/passwd", "invalid_image_url"),
        ("redis:0123", "invalid_image_url"),
        (f"https://a.example/{'x' * MAX_ADDRESS}", "invalid_image_url"),
        ("data:image/png;base64,", "invalid_base64_image"),
        ("data:image/png,abcd", "invalid_base64_image"),
        ("data:image/png;base64,a", "invalid_base64_image"),
        ("data:image/png;base64,图", "invalid_base64_image"),
        ("data:image/png;base64", "invalid_base64_image"),
        (data_url(PDF, "image/png"), "unsupported_image_media_type"),
        (data_url(b"plain words", "image/png"), "unsupported_image_media_type"),
    ],
)
def test_what_is_no_picture_is_refused(url: str, code: str) -> None:
    """With the place of the part."""
    with pytest.raises(RestError) as caught:
        sent_pictures([TEXT, part(url)], "messages[2].content", max_bytes=1000)

    assert caught.value.status == 400
    assert caught.value.data == {"param": "messages[2].content[1].image_url", "reason": code}


def test_number_and_bytes_are_bounded() -> None:
    """The bytes are those of all pictures that come along."""
    data = part(data_url(png()))
    for parts, max_bytes in (([data] * (MAX_PICTURES + 1), 10**6), ([data, data], 2 * len(png()) - 1)):
        with pytest.raises(RestError):
            sent_pictures(parts, "content", max_bytes=max_bytes)

    assert len(sent_pictures([data] * MAX_PICTURES, "content", max_bytes=MAX_PICTURES * len(png()))) == MAX_PICTURES
    assert sent_pictures([TEXT], "content", max_bytes=0) == ()
