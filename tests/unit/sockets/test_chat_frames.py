"""Reading a chat client's message: the frames that are accepted, and the code of each that is rejected."""

from __future__ import annotations

import json
from typing import Any

import pytest

from channels.chat.frames import ChatAsk, ChatFeedback, ChatPing, ChatResume, ChatStop, FrameRefused, read_frame

STREAM_ID = "0123456789abcdef0123456789abcdef"


def error_of(text: str) -> FrameRefused:
    with pytest.raises(FrameRefused) as caught:
        read_frame(text)
    return caught.value


@pytest.mark.parametrize(
    ("frame", "asked"),
    [
        ({"type": "chat", "content": "年假有几天？"}, ChatAsk("年假有几天？")),
        ({"content": "hi"}, ChatAsk("hi")),
        ({"type": "chat", "content": " \n 两  天\t吗 \n"}, ChatAsk("两  天\t吗")),
        ({"type": "chat", "content": "你好，请问①？👍🏽 한국어 かな"}, ChatAsk("你好，请问①？👍🏽 한국어 かな")),
        ({"type": "chat", "content": "q", "id": "1", "conversation": True}, ChatAsk("q", "1", conversation=True)),
        ({"type": "chat", "content": "q", "render": "html"}, ChatAsk("q", html=True)),
        ({"type": "chat", "content": "q", "id": None, "render": None, "conversation": None}, ChatAsk("q")),
        ({"type": "chat", "content": "字" * 10_000, "id": "i" * 64}, ChatAsk("字" * 10_000, "i" * 64)),
        ({"type": "resume", "stream_id": STREAM_ID}, ChatResume(STREAM_ID)),
        (
            {"type": "resume", "stream_id": STREAM_ID, "cursor": 7, "render": "html"},
            ChatResume(STREAM_ID, 7, html=True),
        ),
        ({"type": "resume", "stream_id": STREAM_ID, "cursor": None}, ChatResume(STREAM_ID)),
        ({"type": "stop"}, ChatStop()),
        ({"type": "feedback", "stream_id": STREAM_ID, "rating": "like"}, ChatFeedback(STREAM_ID, "like")),
        (
            {"type": "feedback", "stream_id": STREAM_ID, "rating": "dislike", "content": "字" * 2000},
            ChatFeedback(STREAM_ID, "dislike", "字" * 2000),
        ),
        ({"type": "feedback", "stream_id": STREAM_ID, "rating": None, "content": None}, ChatFeedback(STREAM_ID, None)),
        ({"type": "stop", "stream_id": STREAM_ID}, ChatStop(STREAM_ID)),
        ({"type": "ping", "timestamp": 1700000000123}, ChatPing(1700000000123)),
        ({"type": "ping", "timestamp": "2025-01-01T00:00:00Z"}, ChatPing("2025-01-01T00:00:00Z")),
        ({"type": "ping"}, ChatPing(None)),
    ],
)
def test_a_valid_frame_is_read(frame: dict[str, Any], asked: object) -> None:
    """Letters of every language are kept (DA1); only white space around a question is removed."""
    assert read_frame(json.dumps(frame, ensure_ascii=False)) == asked


@pytest.mark.parametrize("kind", ["pong", "auth", "offer", "answer", "ice-candidate"])
def test_frames_that_need_no_reply_are_ignored(kind: str) -> None:
    """Old clients send frames of their calls; a pong and a late credential need no reply either."""
    assert read_frame(json.dumps({"type": kind, "content": 7, "token": "t"})) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hello",
        "{",
        "[" * 60_000,
        '{"type":"ping","timestamp":NaN}',
        '{"type":"ping","timestamp":1' + "0" * 5000 + "}",
    ],
)
def test_invalid_json_is_rejected(text: str) -> None:
    """Too deep nesting, too long numbers and NaN are rejected as invalid JSON."""
    assert error_of(text).code == "invalid_json"


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("[]", "object"),
        ('"chat"', "object"),
        ("null", "object"),
        ('{"type":7,"content":"q"}', "type"),
        ('{"type":null,"content":"q"}', "type"),
        ('{"type":"chat"}', "content"),
        ('{"type":"chat","content":null}', "content"),
        ('{"type":"chat","content":["q"]}', "content"),
        (r'{"type":"chat","content":"\ud83d"}', "content"),
        (r'{"type":"chat","content":"q","id":"\ud83d"}', "id"),
        ('{"type":"chat","content":"q","id":7}', "id"),
        ('{"type":"chat","content":"q","id":""}', "id"),
        (f'{{"type":"chat","content":"q","id":"{"i" * 65}"}}', "id"),
        ('{"type":"chat","content":"q","conversation":"yes"}', "conversation"),
        ('{"type":"chat","content":"q","render":"pdf"}', "render"),
        ('{"type":"resume"}', "stream_id"),
        ('{"type":"resume","stream_id":"{x}:y"}', "stream_id"),
        ('{"type":"resume","stream_id":""}', "stream_id"),
        (r'{"type":"resume","stream_id":"abc\n"}', "stream_id"),
        (f'{{"type":"stop","stream_id":"{"a" * 65}"}}', "stream_id"),
        (f'{{"type":"resume","stream_id":"{STREAM_ID}","cursor":-1}}', "cursor"),
        (f'{{"type":"resume","stream_id":"{STREAM_ID}","cursor":true}}', "cursor"),
        (f'{{"type":"resume","stream_id":"{STREAM_ID}","cursor":1.5}}', "cursor"),
        (f'{{"type":"resume","stream_id":"{STREAM_ID}","cursor":4294967296}}', "cursor"),
        (f'{{"type":"resume","stream_id":"{STREAM_ID}","cursor":"0"}}', "cursor"),
        (f'{{"type":"resume","stream_id":"{STREAM_ID}","cursor":[]}}', "cursor"),
        ('{"type":"stop","stream_id":7}', "stream_id"),
        ('{"type":"feedback","rating":"like"}', "stream_id"),
        (f'{{"type":"feedback","stream_id":"{STREAM_ID}"}}', "rating"),
        (f'{{"type":"feedback","stream_id":"{STREAM_ID}","rating":"love"}}', "rating"),
        (f'{{"type":"feedback","stream_id":"{STREAM_ID}","rating":[]}}', "rating"),
        (f'{{"type":"feedback","stream_id":"{STREAM_ID}","rating":"like","content":7}}', "content"),
        (f'{{"type":"feedback","stream_id":"{STREAM_ID}","rating":"like","content":"{"x" * 2001}"}}', "content"),
        (r'{"type":"\ud83d"}', "type"),
        ('{"type":"ping","timestamp":{}}', "timestamp"),
        ('{"type":"ping","timestamp":1e999}', "timestamp"),
        (r'{"type":"ping","timestamp":"\udc00"}', "timestamp"),
    ],
)
def test_a_wrong_member_is_named(text: str, what: str) -> None:
    """The error names the member; values of a wrong type and lone surrogates are rejected."""
    error = error_of(text)

    assert (error.code, error.params) == ("invalid_message", {"what": what})


@pytest.mark.parametrize(
    ("frame", "code", "params"),
    [
        ({"type": "chat", "content": " \n\u3000", "id": "q1"}, "message_empty", {}),
        ({"content": "字" * 10_001, "id": "q1"}, "message_too_long", {"limit": "10000"}),
        ({"type": "x" * 100}, "unsupported_type", {"type": "x" * 64}),
    ],
    ids=["blank", "long", "type"],
)
def test_a_message_that_cannot_be_asked_has_a_code(frame: dict[str, str], code: str, params: dict[str, str]) -> None:
    """The error has the client's own id, the limit, and an unknown type's beginning."""
    error = error_of(json.dumps(frame))

    assert (error.code, error.id, error.params) == (code, frame.get("id", ""), params)
