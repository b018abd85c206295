"""The transcripts of a failing mock Dify: failures, odd transports and malformed events, step by step."""

from __future__ import annotations

import json
from collections.abc import Iterator

from demo.mocks.dify.plays import Play, chat, partial
from demo.mocks.dify.wire import HANG, PING, SOURCE, Break, Cut, Delay, Loss, Run, Step, frame, pieces

#: Pieces of an answer that are sent before its stream breaks in the middle.
HALF = 10


def chatflow_failed(run: Run) -> Iterator[Step]:
    yield from chatflow_failed_quietly(run)
    text = "Run failed: [openai] Rate limit reached"
    yield run.event("error", code="invalid_param", message=text, status=400)


def chatflow_failed_quietly(run: Run) -> Iterator[Step]:
    yield PING
    yield run.workflow_started()
    yield run.workflow_finished("failed", "[openai] Rate limit reached")


def chatflow_failed_open(run: Run) -> Iterator[Step]:
    yield from chatflow_failed_quietly(run)
    yield HANG


def broken(play: Play, how: Loss, where: str) -> Play:
    """Return a play whose stream breaks.

    `where` is before the first event (`unheard`), after it (`start`), in the `middle`, or after all text (`whole`).
    """

    def steps(run: Run) -> Iterator[Step]:
        came, said, lost = 0, 0, False
        for step in play(run):
            ends = isinstance(step, bytes) and (b'"message_end"' in step or b'"workflow_finished"' in step)
            reached = {"unheard": True, "start": came > 0, "middle": said == HALF, "whole": ends}[where]
            if reached and not lost:
                lost = True
                yield Break(how)
            yield step
            came += isinstance(step, bytes) and step != PING
            said += isinstance(step, bytes) and b'"event":"message"' in step

    return steps


def eof_after_text(run: Run) -> Iterator[Step]:
    yield from partial(run)


def eof_without_text(run: Run) -> Iterator[Step]:
    yield run.workflow_started()


def error_event(run: Run) -> Iterator[Step]:
    text = "Internal Server Error, please contact support."
    yield run.event("error", code="internal_server_error", message=text, status=500)


def error_after_text(run: Run) -> Iterator[Step]:
    yield from partial(run)
    yield from error_event(run)


def error_without_code(run: Run) -> Iterator[Step]:
    yield PING
    yield frame({"event": "error", "message": "boom", "status": 500})


def error_conversation(run: Run) -> Iterator[Step]:
    yield PING
    yield frame({"event": "error", "message": "Conversation Not Exists.", "status": 404})


def empty(run: Run) -> Iterator[Step]:
    yield run.workflow_started()
    yield run.message_end()
    yield run.workflow_finished()


def ping_only(run: Run) -> Iterator[Step]:
    while True:
        yield PING
        yield Delay(run.ping_every)


def pings_after_text(run: Run) -> Iterator[Step]:
    yield from partial(run)
    yield from ping_only(run)


def silent(run: Run) -> Iterator[Step]:
    yield HANG


def drip_bytes(run: Run) -> Iterator[Step]:
    """Send one event that never ends, a byte at a time."""
    yield b'data: {"event":"message","answer":"'
    while True:
        yield b"a"
        yield Delay(run.ping_every)


def drip_events(run: Run) -> Iterator[Step]:
    """Send an answer that never ends."""
    while True:
        yield run.piece("滴")
        yield Delay(run.ping_every)


def drop(run: Run) -> Iterator[Step]:
    yield from partial(run)
    yield Cut()


def drop_at_once(run: Run) -> Iterator[Step]:
    yield Cut()


def drop_in_a_line(run: Run) -> Iterator[Step]:
    yield from partial(run)
    yield run.piece("这一行没有写完")[:-9]
    yield Cut()


def glued(run: Run) -> Iterator[Step]:
    """Send events as a faulty proxy joins them: without a blank line between a ping and its neighbours."""
    first, *rest = pieces(run.answer)
    yield b"event: ping\n" + run.piece(first).removesuffix(b"\n") + b"event: ping\n\n"
    yield b"".join(run.piece(text).removesuffix(b"\n") for text in rest) + b"\n"
    yield run.message_end()


def no_space(run: Run) -> Iterator[Step]:
    yield b": stream opened\n\n"
    for step in chat(run):
        if isinstance(step, bytes):
            yield step.replace(b"data: ", b"data:", 1)


def ascii_escapes(run: Run) -> Iterator[Step]:
    for step in chat(run):
        if isinstance(step, bytes):
            yield frame(json.loads(step.removeprefix(b"data: ")), ascii_only=True)


def without_last_blank_line(run: Run) -> Iterator[Step]:
    yield from run.say()
    yield run.message_end().rstrip()


def odd_events(run: Run) -> Iterator[Step]:
    """Send unknown, huge and malformed events, which a client must ignore."""
    yield frame([1, 2])
    yield frame(None)
    yield b"data: {broken\n\n"
    yield frame({"no": "event"})
    yield run.event("workflow_started", data=None)
    yield run.event("a_future_event", answer="nein", data={"text": "nein"})
    yield run.workflow("reasoning_chunk", reasoning="hmm", is_final=False)
    yield run.workflow("agent_log", label="x", data={})
    yield run.event("tts_message", audio="//NkxA==")
    yield run.node("node_finished", status="succeeded", process_data={"prompts": "长" * 200_000})
    yield run.event("message", answer=None)
    yield run.event("message_file", url=None)
    yield from run.say()
    yield run.message_end(None)
    yield run.event("tts_message_end", audio="")


def odd_metadata(run: Run) -> Iterator[Step]:
    yield from run.say()
    usage = {"total_tokens": "many", "prompt_tokens": None, "completion_tokens": True, "total_price": 0.5}
    yield run.message_end({"usage": usage, "retriever_resources": [SOURCE, None, "x"]})


def endless_line(run: Run) -> Iterator[Step]:
    """Send one line of 6.5 MB."""
    yield from partial(run)
    for _ in range(100):
        yield b"x" * 65536


def damaged(run: Run) -> Iterator[Step]:
    """Send a byte that is not UTF-8 in the middle of a text."""
    yield run.piece("好?的").replace(b"?", b"\xff")
    yield run.message_end()
