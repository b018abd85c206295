"""The transcripts of the mock OpenAI-compatible server: every way to stream and to end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from demo.mocks.answering import MockAnswering, ReceivedQuestion, WholeReply
from demo.mocks.dify.wire import HANG, Delay, Step, frame, pieces

MODEL = "mock-model"
USAGE = {"prompt_tokens": 21, "completion_tokens": 10, "total_tokens": 31}
DONE = b"data: [DONE]\n\n"
REFUSED = "抱歉，这个问题我不能回答。"
THOUGHT = "用户在问制度，先查手册。"


class Chat:
    """One answer in the server's format."""

    def __init__(self, asked: ReceivedQuestion, mock: MockAnswering, text: str) -> None:
        self.pieces = pieces(text)
        self._delay = Delay(mock.delay)
        self.slow = Delay(mock.slow)
        self._head = {"id": "chatcmpl-mock", "object": "chat.completion.chunk", "model": MODEL, "created": 1}
        options = asked.body.get("stream_options") or {}
        self._counts = bool(options.get("include_usage"))

    def chunk(self, choices: Any, **fields: Any) -> bytes:
        return frame(self._head | {"choices": choices} | fields)

    def piece(self, finish: str | None = None, /, **delta: Any) -> bytes:
        return self.chunk([{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}])

    def begin(self) -> bytes:
        return self.piece(role="assistant", content="")

    def say(self, field: str = "content", *, texts: list[str] | None = None) -> Iterator[Step]:
        for text in self.pieces if texts is None else texts:
            yield self.piece(**{field: text})
            yield self._delay

    def end(self, finish: str = "stop") -> Iterator[Step]:
        yield self.piece(finish)
        yield from self.usage()
        yield DONE

    def usage(self, choices: Any = ()) -> Iterator[Step]:
        """Yield the usage chunk with empty choices that OpenAI sends after the last piece, if it was requested."""
        if self._counts:
            yield self.chunk(None if choices is None else list(choices), usage=USAGE)

    def closing(self, content: str, *, thought: str = "", kind: str = "chat.completion") -> bytes:
        """Return a last chunk that repeats the whole message, as MiniMax sends it."""
        message = {"role": "assistant", "content": content} | ({"reasoning_content": thought} if thought else {})
        choice = {"index": 0, "finish_reason": "stop", "message": message}
        return frame(self._head | {"object": kind, "choices": [choice]})

    def whole(self, content: Any = None) -> WholeReply:
        """Return the whole answer, as a server sends it that does not stream."""
        message = {"role": "assistant", "content": content or "".join(self.pieces)}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return WholeReply.json(self._head | {"object": "chat.completion", "choices": [choice], "usage": USAGE})


CITED = {"title": "员工手册", "url": "https://hr.example/leave"}

Play = Callable[[Chat], Iterator[Step] | WholeReply]


def normal(chat: Chat) -> Iterator[Step]:
    yield chat.begin()
    yield from chat.say()
    yield from chat.end()


def cited(chat: Chat) -> Iterator[Step]:
    """OpenAI's and OpenRouter's search models: each annotation comes with a delta, and again with the last message."""
    annotation = {"type": "url_citation", "url_citation": {**CITED, "start_index": 0, "end_index": 2}}
    yield chat.begin()
    yield from chat.say()
    yield chat.piece(annotations=[annotation])
    yield chat.piece(annotations=[annotation])
    yield from chat.end()


def search_results(chat: Chat) -> Iterator[Step]:
    """Perplexity: each record repeats all results."""
    for piece in chat.pieces:
        choice = {"index": 0, "delta": {"content": piece}, "finish_reason": None}
        yield chat.chunk([choice], search_results=[{**CITED, "date": "2026-01-01"}])
    yield from chat.end()


def choices_null(chat: Chat) -> Iterator[Step]:
    yield chat.chunk([], prompt_filter_results=[{"prompt_index": 0}])
    yield chat.chunk(None)
    yield from chat.say()
    yield chat.piece("stop")
    yield from chat.usage(None)
    yield DONE


def delta_null(chat: Chat) -> Iterator[Step]:
    yield chat.chunk([{"index": 0, "delta": None}])
    yield chat.chunk([None])
    yield chat.piece(content=None, tool_calls=None)
    yield from normal(chat)


def usage_everywhere(chat: Chat) -> Iterator[Step]:
    for number, text in enumerate(chat.pieces):
        used = {"prompt_tokens": 21, "completion_tokens": number, "total_tokens": 21 + number}
        yield chat.chunk([{"index": 0, "delta": {"content": text}}], usage=used)
    yield chat.chunk([{"index": 0, "delta": {}, "finish_reason": "stop"}], usage=USAGE)
    yield DONE


def two_choices(chat: Chat) -> Iterator[Step]:
    yield chat.chunk([{"index": 1, "delta": {"content": "另一个回答"}}])
    yield from chat.say()
    yield chat.chunk([{"index": 1, "delta": {}, "finish_reason": "length"}])
    yield from chat.end()


def parts(chat: Chat) -> Iterator[Step]:
    for text in chat.pieces:
        yield chat.piece(content=[{"type": "text", "text": text}, {"type": "reference", "reference_ids": [1]}])
    yield from chat.end()


def refusal(chat: Chat) -> Iterator[Step]:
    yield chat.begin()
    yield from chat.say("refusal", texts=pieces(REFUSED))
    yield from chat.end()


def reasoning(field: str) -> Play:
    def play(chat: Chat) -> Iterator[Step]:
        yield chat.begin()
        yield from chat.say(field, texts=pieces(THOUGHT, 3))
        yield chat.piece(**{field: None, "content": ""})
        yield from chat.say()
        yield from chat.end()

    return play


def thinking_parts(chat: Chat) -> Iterator[Step]:
    """Send thoughts and answer in content parts, as Mistral's models do."""
    yield chat.begin()
    for text in pieces(THOUGHT, 3):
        yield chat.piece(content=[{"type": "thinking", "thinking": [{"type": "text", "text": text}]}])
    yield chat.piece(content=[{"type": "thinking", "thinking": [], "closed": True}])
    yield chat.piece(content=[{"type": "text", "text": chat.pieces[0]}])
    yield from chat.say(texts=chat.pieces[1:])
    yield from chat.end()


def tool_calls(chat: Chat) -> Iterator[Step]:
    function = {"name": "search", "arguments": '{"query": "年假"}'}
    yield chat.begin()
    yield chat.piece(tool_calls=[{"index": 0, "id": "call-1", "type": "function", "function": function}])
    yield from chat.end("tool_calls")


def function_call(chat: Chat) -> Iterator[Step]:
    yield chat.piece(function_call={"name": "search", "arguments": "{}"})
    yield from chat.end("stop")


def only_reasoning(chat: Chat) -> Iterator[Step]:
    yield from chat.say("reasoning_content", texts=[THOUGHT])
    yield from chat.end()


def ends_with(finish: str) -> Play:
    def play(chat: Chat) -> Iterator[Step]:
        yield from chat.say(texts=chat.pieces[:1])
        yield from chat.end(finish)

    return play


def closing_message(before: int | None = None, kind: str = "chat.completion") -> Play:
    """Return a play that sends the first `before` pieces, all by default, and then the whole message."""

    def play(chat: Chat) -> Iterator[Step]:
        yield from chat.say("reasoning_content", texts=pieces(THOUGHT, 3))
        yield from chat.say(texts=chat.pieces[:before])
        yield chat.closing("".join(chat.pieces), thought=THOUGHT, kind=kind)
        yield DONE

    return play


def closing_message_trimmed(chat: Chat) -> Iterator[Step]:
    yield from chat.say()
    yield chat.closing("".join(chat.pieces).strip())
    yield DONE


def closing_message_differs(chat: Chat) -> Iterator[Step]:
    yield from chat.say(texts=["半句"])
    yield chat.closing("".join(chat.pieces))
    yield DONE


def growing_messages(chat: Chat) -> Iterator[Step]:
    for count in range(len(chat.pieces)):
        yield chat.chunk([{"index": 0, "message": {"content": "".join(chat.pieces[: count + 1])}}])
    yield from chat.end()


def message_pieces(chat: Chat) -> Iterator[Step]:
    for text in chat.pieces:
        yield chat.chunk([{"index": 0, "message": {"content": text}}])
    yield from chat.end()


def without_done(chat: Chat) -> Iterator[Step]:
    yield from chat.say()
    yield chat.piece("stop")
    yield from chat.usage()


def without_finish(chat: Chat) -> Iterator[Step]:
    yield from chat.say()
    yield DONE


def open_after_end(chat: Chat) -> Iterator[Step]:
    yield from without_done(chat)
    yield HANG


def open_after_done(chat: Chat) -> Iterator[Step]:
    yield from normal(chat)
    yield HANG


def comments(chat: Chat) -> Iterator[Step]:
    yield b": OPENROUTER PROCESSING\n\n"
    for text in chat.pieces:
        yield b": OPENROUTER PROCESSING\n\n" + chat.piece(content=text)
    yield from chat.end()


def keep_alive(chat: Chat) -> Iterator[Step]:
    """Send comments for two seconds before the answer, as DeepSeek does while a request is queued."""
    for number in range(10):
        yield b": keep-alive\n\n" if number % 2 else b": keep-alive\n"
        yield Delay(0.2)
    yield b"\n"
    yield from normal(chat)


def no_space(chat: Chat) -> Iterator[Step]:
    for step in normal(chat):
        yield step.replace(b"data: ", b"data:") if isinstance(step, bytes) else step


def glued(chat: Chat) -> Iterator[Step]:
    for step in normal(chat):
        yield step.replace(b"\n\n", b"\n") if isinstance(step, bytes) else step
    yield b"\n"


def odd(chat: Chat) -> Iterator[Step]:
    yield b"data: keep-alive\n\ndata: 7\n\ndata: [1]\n\ndata:\n\nevent: ping\n\n"
    yield frame({"id": 7, "model": None, "choices": "none", "usage": "none"})
    yield chat.chunk([{"index": 0, "delta": {"content": 7, "refusal": ["x"]}, "finish_reason": 3}])
    yield from normal(chat)
