"""The transcripts of the mock of a company's own service: every form of JSON, every way to end and to fail."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from demo.mocks.answering import MockAnswering, ReceivedQuestion, WholeReply
from demo.mocks.dify.wire import HANG, Cut, Delay, Step, frame, pieces

USAGE = {"tokens": 31, "prompt_tokens": 21, "completion_tokens": 10}
SOURCE = {"title": "员工手册", "url": "https://handbook.example/leave", "score": 0.91}
METADATA = {"model": "house-model", "trace": "t-1", "provider": "house"}
DONE = b"data: [DONE]\n\n"


class PlayedAnswer:
    """One answer in the service's format."""

    def __init__(self, asked: ReceivedQuestion, mock: MockAnswering, text: str) -> None:
        self.text = text
        self.pieces = pieces(text)
        self.slow = Delay(mock.slow)
        self._delay = Delay(mock.delay)

    def lines(self, field: str = "content") -> Iterator[Step]:
        for text in self.pieces:
            yield line({field: text})
            yield self._delay

    def events(self, field: str = "content") -> Iterator[Step]:
        for text in self.pieces:
            yield frame({field: text})
            yield self._delay

    def whole(self, field: str = "answer", **more: Any) -> dict[str, Any]:
        return {field: self.text, "metadata": METADATA, "sources": [SOURCE], "usage": USAGE, **more}


Play = Callable[[PlayedAnswer], Iterator[Step] | WholeReply]


def line(payload: Any) -> bytes:
    return json.dumps(payload, ensure_ascii=False).encode() + b"\n"


def lines(answer: PlayedAnswer) -> Iterator[Step]:
    yield from answer.lines()
    yield line({"done": True, "metadata": METADATA, "sources": [SOURCE], "usage": USAGE})


def lines_bare(answer: PlayedAnswer) -> Iterator[Step]:
    yield from answer.lines("delta")


def lines_without_last_newline(answer: PlayedAnswer) -> Iterator[Step]:
    *most, last = [line({"content": text}) for text in answer.pieces]
    yield from most
    yield last.rstrip(b"\n")


def lines_repeated(answer: PlayedAnswer) -> Iterator[Step]:
    yield from answer.lines("delta")
    yield line(answer.whole())


def lines_corrected(answer: PlayedAnswer) -> Iterator[Step]:
    yield line({"delta": "让我想一想……"})
    yield line(answer.whole())


def both_fields(answer: PlayedAnswer) -> Iterator[Step]:
    so_far = ""
    for text in answer.pieces:
        so_far += text
        yield line({"delta": text, "content": so_far})


def events(answer: PlayedAnswer) -> Iterator[Step]:
    yield b": hello\n\n"
    yield from answer.events()
    yield frame({"usage": USAGE, "sources": [SOURCE], "metadata": METADATA})
    yield DONE


def events_bare(answer: PlayedAnswer) -> Iterator[Step]:
    yield from answer.events("delta")


def events_named(answer: PlayedAnswer) -> Iterator[Step]:
    for text in answer.pieces:
        yield b"event: message\nid: 1\n" + frame({"answer": text})
    yield b"event: ping\n\nevent: done\n" + frame({"usage": USAGE})


def events_done_bare(answer: PlayedAnswer) -> Iterator[Step]:
    yield from answer.events()
    yield b"event: done\ndata: bye\n\n"


def events_noisy(answer: PlayedAnswer) -> Iterator[Step]:
    yield b"retry: 3000\n\ndata: connected\n\ndata:\n\n"
    for step in answer.events():
        yield step
        yield b"data: keep-alive\n\n"


def odd(answer: PlayedAnswer) -> Iterator[Step]:
    yield line({"content": 7, "usage": "none", "sources": "none", "metadata": [], "message_id": 3, "error": None})
    yield b"\n[1]\n7\nlog: hello\n"
    yield from answer.lines()
    yield line({"usage": {"tokens": "many"}, "sources": ["手册", 7, SOURCE]})


def open_after_done(answer: PlayedAnswer) -> Iterator[Step]:
    yield from events(answer)
    yield HANG


def open_after_last(answer: PlayedAnswer) -> Iterator[Step]:
    yield from lines(answer)
    yield HANG


def eof(answer: PlayedAnswer) -> Iterator[Step]:
    yield line({"content": answer.pieces[0]})


def dead(answer: PlayedAnswer) -> Iterator[Step]:
    yield from eof(answer)
    yield Cut()


def dead_in_a_line(answer: PlayedAnswer) -> Iterator[Step]:
    yield from eof(answer)
    yield line({"content": "半句"})[:-5]


def dead_at_once(answer: PlayedAnswer) -> Iterator[Step]:
    yield Cut()


def nothing(answer: PlayedAnswer) -> Iterator[Step]:
    yield from ()


def empty(answer: PlayedAnswer) -> Iterator[Step]:
    yield line({"content": ""})
    yield line({"done": True})


def error_after_text(answer: PlayedAnswer) -> Iterator[Step]:
    yield from eof(answer)
    yield line({"error": "sk-secret"})


def error_after_usage(answer: PlayedAnswer) -> Iterator[Step]:
    yield line({"content": answer.pieces[0], "usage": USAGE, "sources": [SOURCE]})
    yield line({"error": "sk-secret"})


def error_event(answer: PlayedAnswer) -> Iterator[Step]:
    yield b"event: error\n" + frame({"message": "sk-secret"})


def broken_json(answer: PlayedAnswer) -> Iterator[Step]:
    yield from eof(answer)
    yield b'{"content": "\n'
    yield from answer.lines()


def silent(answer: PlayedAnswer) -> Iterator[Step]:
    yield HANG


def signs_of_life(answer: PlayedAnswer) -> Iterator[Step]:
    yield from eof(answer)
    while True:
        yield b"\n"
        yield answer.slow


def drip(answer: PlayedAnswer) -> Iterator[Step]:
    while True:
        yield line({"content": "字"})
        yield answer.slow


def endless_line(answer: PlayedAnswer) -> Iterator[Step]:
    yield line({"content": "好"})
    while True:
        yield b"x" * 65536


def endless_body(answer: PlayedAnswer) -> Iterator[Step]:
    yield b'{\n"answer": "'
    while True:
        yield b"x" * 65536
