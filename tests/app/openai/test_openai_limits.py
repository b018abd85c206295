"""Requests of OpenAI clients that are made to cost the worker much: what is refused, and the time of what is taken."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import suppress

import pytest
from flask import Flask

from channels.openai.requests import MAX_DATA_URLS, AskedCompletion, CompletionRules, asked_completion
from channels.web.rest import RestError
from services import metrics
from services.identity.callers import Caller
from tests.support.openai_program import Message, assistant, data_url, pictured, user
from tests.support.pictures import png

#: The largest `HISTORY_MAX_BYTES`.
MOST = 512 * 1024
RULES = CompletionRules(text_bytes=MOST, picture_bytes=20 * 1024 * 1024, question="?")
ASKED = user("甲？")
#: Seconds of CPU that one request may take: ten times as many as it does.
SECONDS = 2.0


def takes(sent: bytes | str, rules: CompletionRules = RULES) -> AskedCompletion:
    """Return what the endpoint makes of a body."""
    environ = {"method": "POST", "data": sent, "content_type": "application/json"}
    with Flask(__name__).test_request_context("/v1/chat/completions", **environ):
        return asked_completion(Caller("key:a"), {"default": ()}, rules)


def body(*messages: Message, **fields: object) -> bytes:
    return json.dumps({"model": "default", "messages": messages, **fields}, ensure_ascii=False).encode()


def refusal(sent: bytes | str, rules: CompletionRules = RULES) -> str:
    with pytest.raises(RestError) as refused:
        takes(sent, rules)
    return str(refused.value.data["reason"])


def refused_so_far() -> float:
    name, labels = "wechatlaibao_questions_refused_total", {"code": "history_too_large"}
    return metrics.REGISTRY.get_sample_value(name, labels) or 0.0


def test_a_request_that_is_too_long_is_refused_before_it_is_parsed() -> None:
    """Thirty megabytes that are no JSON are too long, not malformed; each refusal is counted."""
    before = refused_so_far()
    sent = b'{"messages": [{"role": "assistant", "content": "<think>' + b"`a" * 14_000_000

    started = time.thread_time()
    reason = refusal(sent)

    assert reason == "context_length_exceeded"
    assert time.thread_time() - started < SECONDS
    assert refused_so_far() == before + 1


def test_pictures_do_not_count_as_text() -> None:
    """Those of the question and of earlier messages; all other bytes of the request do."""
    rules = RULES._replace(text_bytes=1000)
    picture = data_url(png() + bytes(50_000))

    taken = takes(body(pictured("甲？", picture), assistant("甲。"), pictured("乙？", picture)), rules)

    assert [len(one.content) for one in taken.pictures] == [len(png()) + 50_000]  # type: ignore[union-attr]
    assert refusal(body(pictured("甲？", picture), ignored="x" * 1000), rules) == "context_length_exceeded"


@pytest.mark.parametrize("text", ["data:" + "`a" * MOST, '"data:' + "`a" * MOST])
def test_a_text_that_looks_like_a_picture_counts_as_text(text: str) -> None:
    """Its bytes are not counted before it is parsed, but after."""
    assert refusal(body(assistant(text), ASKED)) == "context_length_exceeded"


def test_more_addresses_than_a_client_sends_count_as_text() -> None:
    """So the bytes are counted in a bounded number of steps."""
    sent = body(ASKED, ignored=["data:" + "x" * 1000] * (MAX_DATA_URLS + MOST // 1000))

    assert refusal(sent) == "context_length_exceeded"


def repeated(part: str, *, before: str = "", after: str = "") -> Callable[[int], str]:
    """Return what makes a text of a number of bytes."""
    return lambda size: before + part * ((size - len(before) - len(after)) // len(part)) + after


def fences(size: int) -> str:
    """Return fences of which each is shorter than the ones before it, so that none of those is closed by it."""
    most = int((2 * size) ** 0.5) - 20
    return "\n".join(["<think>", *("`" * length + "\n</think><think>" for length in range(most, 3, -1))])[:size]


TEXTS = {
    "code in thinking": repeated("`a", before="<think>"),
    "code before a tag": repeated("`a", after="<think>"),
    "code of many lengths": repeated("`a``b```c", after="<think>"),
    "lines": repeated("\n", after="<think>"),
    "fences": repeated("```\n", after="<think>"),
    "other fences": repeated("~~~\n", after="</think>"),
    "an open fence": repeated("```\n", before="`````\n", after="<think>"),
    "fences of many lengths": fences,
    "fences in thinking": repeated("<think>\n````\n</think>\n"),
    "passages": repeated("<think>a</think>b"),
    "closing tags": repeated("</think>\n"),
    "tags in code": repeated("`<think>`"),
    "tags in lines with code": repeated("`a` </think>\n"),
    "half tags": repeated("<"),
    "words": repeated(" a"),
}


@pytest.mark.parametrize("name", TEXTS)
def test_every_text_of_the_largest_request_takes_little_time(name: str) -> None:
    """It is folded once, in a time that is linear in its length."""
    text = TEXTS[name](MOST - 2000)
    sent = body(user("甲？"), assistant(text), ASKED)

    started = time.thread_time()
    takes(sent, RULES._replace(text_bytes=2 * MOST))

    assert time.thread_time() - started < SECONDS


def filled(before: bytes, part: bytes, after: bytes) -> bytes:
    """Return the longest request that has `part` repeated between two others."""
    head = b'{"model": "default", ' + before
    return head + part * ((MOST - len(head) - len(after)) // len(part)) + after


LISTED, LAST = b'"messages": [', json.dumps(ASKED).encode() + b"]}"
OTHER = b'"messages": [' + json.dumps(ASKED).encode() + b"], "
BODIES = {
    "messages": filled(LISTED, json.dumps(user("a" * 300)).encode() + b",", LAST),
    "too many messages": filled(LISTED, json.dumps(user("a")).encode() + b",", LAST),
    "parts": filled(LISTED, b'{"role": "tool", "content": [' + b'{"type":""},' * 99 + b'{"type":""}]},', LAST),
    "wrong parts": filled(LISTED, b'{"role": "user", "content": [' + b'{"a": 1},' * 99 + b"{}]},", LAST),
    "wrong messages": filled(LISTED, b'{"role": "a"},', LAST),
    "objects": filled(OTHER + b'"ignored": [', b"{},", b"{}]}"),
    "lists": filled(OTHER + b'"metadata": {"a": [', b"[],", b"[]]}}"),
    "numbers": filled(OTHER + b'"metadata": {"a": [', b"0,", b"0]}}"),
    "names": body(ASKED, metadata={str(number): 0 for number in range(40_000)}),
    "depth": filled(OTHER + b'"ignored": ', b"[", b"}"),
    "objects in objects": filled(OTHER + b'"metadata": ', b'{"a":', b"}"),
    "a long number": filled(OTHER + b'"temperature": 0.', b"1", b"}"),
    "a large number": filled(OTHER + b'"ignored": ', b"1", b"}"),
    "repeated fields": filled(OTHER + b'"n": 1', b', "model": "default"', b"}"),
    "escapes": filled(OTHER + b'"user": "', rb"\u0041", b'"}'),
}


@pytest.mark.parametrize("name", BODIES)
def test_every_shape_of_the_largest_request_takes_little_time(name: str) -> None:
    """Whether it is taken or refused."""
    assert MOST * 3 // 4 < len(BODIES[name]) <= MOST

    started = time.thread_time()
    with suppress(RestError):
        takes(BODIES[name])

    assert time.thread_time() - started < SECONDS
