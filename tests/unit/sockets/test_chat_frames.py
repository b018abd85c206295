"""What the chat endpoint takes of a client's message, and what it refuses, each with its own code."""

from __future__ import annotations

import json
from typing import Any

import pytest

from channels.chat.frames import ChatAsk, ChatPing, ChatResume, ChatStop, FrameRefused, read_frame

STREAM = "0123456789abcdef0123456789abcdef"


def refusal(text: str) -> FrameRefused:
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
        ({"type": "resume", "stream_id": STREAM}, ChatResume(STREAM)),
        ({"type": "resume", "stream_id": STREAM, "cursor": 7, "render": "html"}, ChatResume(STREAM, 7, html=True)),
        ({"type": "resume", "stream_id": STREAM, "cursor": None}, ChatResume(STREAM)),
        ({"type": "stop"}, ChatStop()),
        ({"type": "stop", "stream_id": STREAM}, ChatStop(STREAM)),
        ({"type": "ping", "timestamp": 1700000000123}, ChatPing(1700000000123)),
        ({"type": "ping", "timestamp": "2025-01-01T00:00:00Z"}, ChatPing("2025-01-01T00:00:00Z")),
        ({"type": "ping"}, ChatPing(None)),
    ],
)
def test_a_frame_is_what_it_asks_for(frame: dict[str, Any], asked: object) -> None:
    """Every letter of every language is kept (DA1); only what surrounds a question is trimmed."""
    assert read_frame(json.dumps(frame, ensure_ascii=False)) == asked


@pytest.mark.parametrize("kind", ["pong", "auth", "offer", "answer", "ice-candidate"])
def test_what_asks_for_nothing_is_passed_over(kind: str) -> None:
    """Old clients send frames of their calls; an answer to a ping, and a late credential, need none."""
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
def test_what_is_no_json_is_refused(text: str) -> None:
    """Nesting and numbers that Python cannot take, and numbers that JSON does not have, are no JSON."""
    assert refusal(text).code == "invalid_json"


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
        (f'{{"type":"resume","stream_id":"{STREAM}","cursor":-1}}', "cursor"),
        (f'{{"type":"resume","stream_id":"{STREAM}","cursor":true}}', "cursor"),
        (f'{{"type":"resume","stream_id":"{STREAM}","cursor":1.5}}', "cursor"),
        (f'{{"type":"resume","stream_id":"{STREAM}","cursor":4294967296}}', "cursor"),
        (f'{{"type":"resume","stream_id":"{STREAM}","cursor":"0"}}', "cursor"),
        (f'{{"type":"resume","stream_id":"{STREAM}","cursor":[]}}', "cursor"),
        ('{"type":"stop","stream_id":7}', "stream_id"),
        ('{"type":"ping","timestamp":{}}', "timestamp"),
        ('{"type":"ping","timestamp":1e999}', "timestamp"),
        (r'{"type":"ping","timestamp":"\udc00"}', "timestamp"),
    ],
)
def test_a_wrong_member_is_refused_by_its_name(text: str, what: str) -> None:
    """Nothing of a wrong type, and no half character, goes on to where it would break something."""
    refused = refusal(text)

    assert (refused.code, refused.params) == ("invalid_message", {"what": what})


def test_a_blank_question_is_refused() -> None:
    """The client's own id is said with it."""
    refused = refusal('{"type":"chat","content":" \\n\\u3000","id":"q1"}')

    assert (refused.code, refused.id) == ("message_empty", "q1")


def test_a_question_that_is_too_long_is_refused() -> None:
    """One character more than may be, with the number in its words."""
    refused = refusal(json.dumps({"content": "字" * 10_001, "id": "q1"}))

    assert (refused.code, refused.id, refused.params) == ("message_too_long", "q1", {"limit": "10000"})


def test_an_unknown_type_is_refused() -> None:
    """Its name comes back, as far as a sentence can carry it."""
    refused = refusal(json.dumps({"type": "x" * 100}))

    assert (refused.code, refused.params) == ("unsupported_type", {"type": "x" * 64})


def test_an_unknown_type_is_refused_though_it_is_no_text() -> None:
    """A type that is half a character comes back in no sentence."""
    refused = refusal(r'{"type":"\ud83d"}')

    assert (refused.code, refused.params) == ("invalid_message", {"what": "type"})
