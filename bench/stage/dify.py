"""A mock Dify with little overhead, in its own process: some 25 µs of CPU per delta.

It answers like a chatflow of Dify 1.x. Each delta is a few Chinese words and the time it was sent. Every question gets
`pieces` deltas, `every` seconds apart, the first after `every` as well. A question that ends in "*12" gets twelve; one
that ends in "*12/5" gets five of these and the others when `let` allows them. A run whose client disconnects
continues, and can be looked up.
"""

from __future__ import annotations

import asyncio
import gc
import json
import multiprocessing
import re
import sys
import time
import uuid
from collections import Counter
from collections.abc import Iterator, MutableSequence
from contextlib import contextmanager, suppress
from itertools import chain
from multiprocessing.connection import Connection
from typing import Any
from urllib.parse import parse_qs, urlsplit

from bench.stage.servers import START_SECONDS, cpu_of
from demo.mocks.dify.runs import Runs
from demo.mocks.dify.wire import Run

#: Separators between the words of a delta and its time, and between deltas.
WITHIN, BETWEEN = "@", "|"
#: The words of the deltas, in turns.
WORDS = ("员工每年", "可以享受带薪年假", "一共有五天，", "先在系统里提前三个工作日", "申请，")
#: Maximum seconds between two checks for due deltas.
TICK = 0.002
#: Indexes of the counters that the benchmark reads without a request: deltas sent, and their bytes on the wire.
DELTAS, BYTES = range(2)
_STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nCache-Control: no-cache\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)
_LENGTH = re.compile(rb"(?im)^content-length: *(\d+)")
_WANTED = re.compile(r"\*(\d+)(?:/(\d+))?$")
_TEXT = "<text>"


def sent_times(text: str) -> Iterator[float]:
    """Yield the send times of the deltas in a text; a delta split over two texts counts with its end."""
    for delta in text.split(BETWEEN)[:-1]:
        with suppress(ValueError):
            yield float(delta.rpartition(WITHIN)[2])


class MockDify:
    """The benchmark's handle of the mock."""

    def __init__(self, pid: int, pipe: Connection, counts: MutableSequence[int], base_url: str) -> None:
        self.pid = pid
        self.base_url = base_url
        self._pipe, self._counts = pipe, counts

    @property
    def cpu(self) -> float:
        """Its CPU seconds so far."""
        return cpu_of(self.pid)

    @property
    def deltas(self) -> int:
        """Number of deltas sent so far."""
        return self._counts[DELTAS]

    @property
    def bytes(self) -> int:
        """Bytes of these deltas on the wire."""
        return self._counts[BYTES]

    def finish(self) -> None:
        """End all running answers with their text so far."""
        self._pipe.send(("finish", "", 0))

    def let(self, question: str, more: int) -> None:
        """Let the waiting answers whose questions start with `question` continue by `more` deltas."""
        self._pipe.send(("let", question, more))

    def transcript(self) -> tuple[dict[str, str], Counter[str]]:
        """Return the whole answer to each question whose answer has ended, and how often each question was asked."""
        self._pipe.send(("transcript", "", 0))
        answers, asks = self._pipe.recv()
        return answers, asks


@contextmanager
def mock_dify(pieces: int, every: float) -> Iterator[MockDify]:
    """Run the mock in its own process, with the caller's cores and limit of open files."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    counts = context.RawArray("q", 2)
    process = context.Process(target=_serve, args=(theirs, counts, pieces, every), daemon=True)
    process.start()
    theirs.close()
    try:
        if not ours.poll(START_SECONDS):
            raise TimeoutError("the mock Dify did not start")
        assert process.pid
        yield MockDify(process.pid, ours, counts, ours.recv())
    finally:
        process.terminate()
        process.join(10)
        ours.close()


def _serve(pipe: Connection, counts: MutableSequence[int], pieces: int, every: float) -> None:
    gc.disable()
    asyncio.run(_Server(pipe, counts, pieces, every).serve())


class _Answer:
    """One run that is streamed to a client."""

    def __init__(self, run: Run, pieces: int, allowed: int, writer: asyncio.StreamWriter) -> None:
        self.run = run
        #: Number of deltas of the whole answer, those sent, and those after which the run waits for `let`.
        self.pieces, self.sent, self.allowed = pieces, 0, allowed
        self._texts: list[str] = []
        self._transport = writer.transport
        # The deltas of a run differ only in their text.
        self._head, self._tail = run.piece(_TEXT, from_variable_selector=["llm", "text"]).split(_TEXT.encode())

    def write(self, data: bytes) -> None:
        """Send, or buffer what the client does not read at once; drop it if the client is gone."""
        if not self._transport.is_closing():
            self._transport.write(data)

    def send_delta(self) -> int:
        """Send the next delta as an HTTP chunk, and return the chunk's bytes."""
        text = f"{WORDS[self.sent % len(WORDS)]}{WITHIN}{time.time():.6f}{BETWEEN}"
        self._texts.append(text)
        self.sent += 1
        chunk = _chunk(self._head + text.encode() + self._tail)
        self.write(chunk)
        return len(chunk)

    def end(self) -> None:
        """Send the last events and the end of the body."""
        text = self.run.answer = self.run.final = "".join(self._texts)
        self.write(_chunk(self.run.message_end()) + _chunk(self.run.workflow_finished(answer=text)) + b"0\r\n\r\n")


class _Server:
    def __init__(self, pipe: Connection, counts: MutableSequence[int], pieces: int, every: float) -> None:
        self._pipe, self._counts, self._pieces = pipe, counts, pieces
        #: A timer wheel: each turn takes `every` seconds and sends one delta per run, each at its own time.
        self._wheel: list[list[_Answer]] = [[] for _ in range(max(1, round(every / TICK)))]
        self._tick = every / len(self._wheel)
        self._slot = 0
        self._asks: Counter[str] = Counter()
        self._ended: dict[str, str] = {}
        self._runs = Runs()

    async def serve(self) -> None:
        """Serve until the benchmark terminates this process."""
        server = await asyncio.start_server(self._connection, "127.0.0.1", 0, backlog=1024)
        asyncio.get_running_loop().add_reader(self._pipe.fileno(), self._command)
        self._pipe.send(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        due = time.monotonic()
        while True:
            self._slot = (self._slot + 1) % len(self._wheel)
            self._send_deltas(self._wheel[self._slot])
            # A late turn is made up for, so the rate is the configured one.
            due += self._tick
            await asyncio.sleep(max(0.0, due - time.monotonic()))

    def _send_deltas(self, answers: list[_Answer]) -> None:
        for answer in [answer for answer in answers if answer.sent >= answer.pieces]:
            answers.remove(answer)
            answer.end()
            self._ended[answer.run.query] = answer.run.answer
        sizes = [answer.send_delta() for answer in answers if answer.sent < answer.allowed]
        self._counts[DELTAS] += len(sizes)
        self._counts[BYTES] += sum(sizes)

    def _command(self) -> None:
        try:
            command, question, more = self._pipe.recv()
        except EOFError:
            sys.exit()
        if command == "transcript":
            self._pipe.send((self._ended, self._asks))
        for answer in chain.from_iterable(self._wheel):
            if command == "finish":
                answer.pieces = 0
            elif command == "let" and answer.run.query.startswith(question):
                answer.allowed += more

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, EOFError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = _LENGTH.search(head)
                body = await reader.readexactly(int(length[1])) if length else b""
                self._reply(head.split()[1].decode(), body, writer)
        writer.close()

    def _reply(self, target: str, body: bytes, writer: asyncio.StreamWriter) -> None:
        address = urlsplit(target)
        match address.path.removeprefix("/v1/").split("/"):
            case ["chat-messages"]:
                self._begin(json.loads(body), writer)
            case ["chat-messages", _, "stop"]:
                writer.write(_json({"result": "success"}))
            case ["info" | "parameters"]:
                writer.write(_json({"name": "bench", "mode": "advanced-chat", "user_input_form": []}))
            case ["workflows", "run", run_id] if run := self._runs.find(run_id):
                writer.write(_json({"id": run_id, "status": run.status, "outputs": run.outputs}))
            case ["messages"]:
                turns = self._runs.turns(parse_qs(address.query)["conversation_id"][0])
                # As in Dify, a message is filled when its run has ended.
                rows = [
                    {"id": run.message_id, "answer": run.saved, "answer_tokens": 19 * run.is_saved} for run in turns
                ]
                writer.write(_json({"limit": len(turns), "has_more": False, "data": rows}))
            case _:
                writer.write(_json({"code": "not_found", "message": "", "status": 404}, "404 Not Found"))

    def _begin(self, asked: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        if "query" not in asked:
            writer.write(_json({"code": "invalid_param", "message": "", "status": 400}, "400 Bad Request"))
            return
        conversation_id = asked.get("conversation_id") or str(uuid.uuid4())
        run = Run("", user=asked["user"], conversation_id=conversation_id, query=asked["query"])
        self._runs.add(run)
        self._asks[run.query] += 1
        pieces, allowed = found.groups() if (found := _WANTED.search(run.query)) else (self._pieces, None)
        answer = _Answer(run, int(pieces), int(allowed or pieces), writer)
        answer.write(_STREAM_HEAD + _chunk(run.workflow_started()))
        self._wheel[self._slot].append(answer)


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _json(payload: dict[str, Any], status: str = "200 OK") -> bytes:
    body = json.dumps(payload, ensure_ascii=False).encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body
