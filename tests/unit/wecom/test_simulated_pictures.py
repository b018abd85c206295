"""The simulator's rules for pictures in a frame."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import pytest

from demo.mocks.dify.files import file
from demo.wecom.pictures import pictures_of
from demo.wecom.wire import RuleBroken

PHOTO = (file("photo") or pytest.fail("the mock has no photo")).content


def item(content: bytes = PHOTO, **changes: Any) -> dict[str, Any]:
    md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
    return {"msgtype": "image", "image": {"base64": base64.b64encode(content).decode(), "md5": md5, **changes}}


def test_good_pictures_are_shown() -> None:
    assert list(pictures_of({"finish": True, "msg_item": [item()] * 10})) == [PHOTO] * 10
    assert list(pictures_of({"finish": False})) == []


@pytest.mark.parametrize(
    ("stream", "rule"),
    [
        ({"finish": False, "msg_item": [item()]}, "not finished"),
        ({"finish": True, "msg_item": [item()] * 11}, "more than 10"),
        ({"finish": True, "msg_item": [item(md5="0" * 32)]}, "md5"),
        ({"finish": True, "msg_item": [item(base64="###")]}, "not base64"),
        ({"finish": True, "msg_item": [item(b"")]}, "empty"),
        ({"finish": True, "msg_item": [item(b"\xff\xd8\xff" + bytes(10 * 1024 * 1024))]}, "more than"),
        ({"finish": True, "msg_item": [item(b"GIF89a")]}, "neither JPG nor PNG"),
        ({"finish": True, "msg_item": [{"msgtype": "text"}]}, "not an image"),
        ({"finish": True, "msg_item": [item(url="https://a.example")]}, "not an image"),
    ],
)
def test_broken_rules_are_named(stream: dict[str, Any], rule: str) -> None:
    with pytest.raises(RuleBroken, match=rule):
        list(pictures_of(stream))
