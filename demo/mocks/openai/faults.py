"""The transcripts of failures of the mock OpenAI-compatible server."""

from __future__ import annotations

from collections.abc import Iterator

from demo.mocks.answering import WholeReply
from demo.mocks.dify.wire import HANG, Cut, Step, frame
from demo.mocks.openai.plays import DONE, USAGE, Chat


def empty(chat: Chat) -> Iterator[Step]:
    yield chat.begin()
    yield from chat.end()


def blank(chat: Chat) -> Iterator[Step]:
    yield from chat.say(texts=["\n", " "])
    yield from chat.end()


def eof(chat: Chat) -> Iterator[Step]:
    yield from chat.say(texts=chat.pieces[:1])


def nothing(chat: Chat) -> Iterator[Step]:
    yield chat.begin()


def error_at_once(chat: Chat) -> Iterator[Step]:
    yield frame({"error": {"message": "sk-secret", "type": "server_error", "param": None, "code": None}})
    yield DONE


def error_after_text(chat: Chat) -> Iterator[Step]:
    yield from eof(chat)
    yield from error_at_once(chat)


def error_named(chat: Chat) -> Iterator[Step]:
    yield b"event: error\n" + frame({"message": "sk-secret", "code": 500})


def error_of_vllm(chat: Chat) -> Iterator[Step]:
    yield frame({"object": "error", "message": "sk-secret", "type": "BadRequestError", "param": None, "code": 400})


def error_is_text(chat: Chat) -> Iterator[Step]:
    yield from eof(chat)
    yield frame({"error": "sk-secret"})


def rate_limit_in_stream(chat: Chat) -> Iterator[Step]:
    yield frame({"error": {"message": "sk-secret", "type": "requests", "code": "rate_limit_exceeded"}})


def broken_json(chat: Chat) -> Iterator[Step]:
    yield from eof(chat)
    yield b'data: {"choices": [{"index": 0, "delta": {"content": "\n\n'
    yield from chat.end()


def counted_then_dropped(chat: Chat) -> Iterator[Step]:
    yield chat.chunk([{"index": 0, "delta": {"reasoning_content": "嗯"}}], usage=USAGE)
    yield Cut()


def counted_then_failed(chat: Chat) -> Iterator[Step]:
    yield chat.chunk([{"index": 0, "delta": {"content": chat.pieces[0]}}], usage=USAGE)
    yield from error_at_once(chat)


def counted_then_silent(chat: Chat) -> Iterator[Step]:
    yield chat.chunk([{"index": 0, "delta": {"content": chat.pieces[0]}}], usage=USAGE)
    yield HANG


def silent(chat: Chat) -> Iterator[Step]:
    yield HANG


def comments_only(chat: Chat) -> Iterator[Step]:
    while True:
        yield b": ping\n\nevent: ping\n\n"
        yield chat.slow


def silent_after_text(chat: Chat) -> Iterator[Step]:
    yield from eof(chat)
    yield from comments_only(chat)


def drip(chat: Chat) -> Iterator[Step]:
    while True:
        yield chat.piece(content="字")
        yield chat.slow


def drip_bytes(chat: Chat) -> Iterator[Step]:
    yield b'data: {"choices": "'
    while True:
        yield b"x"
        yield chat.slow


def drop(chat: Chat) -> Iterator[Step]:
    yield from eof(chat)
    yield Cut()


def drop_at_once(chat: Chat) -> Iterator[Step]:
    yield Cut()


def drop_in_a_line(chat: Chat) -> Iterator[Step]:
    yield from eof(chat)
    yield chat.piece(content="半句")[:-20]
    yield Cut()


def endless_line(chat: Chat) -> Iterator[Step]:
    yield b"data: "
    while True:
        yield b"x" * 65536


def html(chat: Chat) -> WholeReply:
    return WholeReply(200, b"<html><body>Welcome to nginx</body></html>", "text/html")
