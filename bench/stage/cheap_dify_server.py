"""The server of `bench.stage.cheap_dify`: one thread, epoll, and deltas of prebuilt bytes with the time patched in."""

from __future__ import annotations

import json
import re
import select
import socket
import time
import uuid
from collections import Counter
from collections.abc import Iterator, MutableSequence
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any
from urllib.parse import parse_qs, urlsplit

from bench.stage.replicas import BETWEEN, WITHIN
from demo.mocks.dify.runs import Runs
from demo.mocks.dify.wire import Run

#: The texts of the deltas, in turns.
WORDS = [
    words.encode() for words in ("员工每年", "可以享受带薪年假", "一共有五天，", "先在系统里提前三个工作日", "申请，")
]
_WITHIN, _BETWEEN = WITHIN.encode(), BETWEEN.encode()
#: Maximum seconds between two checks for due deltas.
TICK = 0.002
#: Indexes of the counters: deltas sent, their bytes on the wire, and runs begun.
DELTAS, BYTES, RUNS = range(3)
_READ_BYTES = 65536
_STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nCache-Control: no-cache\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)
_LENGTH = re.compile(rb"(?im)^content-length: *(\d+)")
_WANTED = re.compile(r"\*(\d+)$")
_HERE = "<answer>"


class Answer:
    """One run that is streamed to a client."""

    def __init__(self, run: Run, pieces: int, line: Line) -> None:
        self.run = run
        self.line = line
        self.said: list[bytes] = []
        self.pieces = pieces
        #: Deltas the run may send before it waits, if answers wait.
        self.may = pieces // 2
        # The deltas of a run differ only in their text.
        self._head, self._tail = run.piece(_HERE, from_variable_selector=["llm", "text"]).split(_HERE.encode())
        self._size = len(self._head) + len(self._tail)

    def delta(self) -> bytes:
        """Return the next delta as an HTTP chunk."""
        words = WORDS[len(self.said) % len(WORDS)]
        said = b"%b%b%.6f%b" % (words, _WITHIN, time.time(), _BETWEEN)
        self.said.append(said)
        return b"%x\r\n%b%b%b\r\n" % (self._size + len(said), self._head, said, self._tail)

    def end(self) -> bytes:
        """Return the last events and the end of the body."""
        text = b"".join(self.said).decode()
        self.run.answer = self.run.final = text
        last = (self.run.message_end(), self.run.workflow_finished(answer=text))
        return b"".join(map(_chunk, last)) + b"0\r\n\r\n"


class Line:
    """One connection, with a buffer for bytes that the client does not read at once."""

    def __init__(self, sock: socket.socket, epoll: select.epoll) -> None:
        self.socket = sock
        self._epoll = epoll
        self._inbox = bytearray()
        self._outbox = bytearray()
        self._open = True

    def close(self) -> None:
        self._open = False
        self.socket.close()

    def send(self, data: bytes) -> None:
        """Send as much as the socket accepts and buffer the rest; drop it if the client is gone."""
        if not self._open:
            return
        if self._outbox:
            self._outbox += data
            return
        sent = 0
        # A reset connection is closed when epoll reports it.
        with suppress(OSError):
            sent = self.socket.send(data)
        if sent < len(data):
            self._outbox += data[sent:]
            self._epoll.modify(self.socket, select.EPOLLIN | select.EPOLLOUT)

    def flush(self) -> None:
        with suppress(BlockingIOError):
            del self._outbox[: self.socket.send(self._outbox)]
        if not self._outbox:
            self._epoll.modify(self.socket, select.EPOLLIN)

    def requests(self) -> Iterator[tuple[str, bytes]]:
        """Read available bytes; yield complete requests: method and target, and body.

        Raises:
            OSError: the connection is over.
        """
        received = self.socket.recv(_READ_BYTES)
        if not received:
            raise ConnectionError
        self._inbox += received
        while (end := self._inbox.find(b"\r\n\r\n") + 4) > 3:
            head = bytes(self._inbox[:end])
            found = _LENGTH.search(head)
            whole = end + (int(found[1]) if found else 0)
            if len(self._inbox) < whole:
                return
            body = bytes(self._inbox[end:whole])
            del self._inbox[:whole]
            yield head.partition(b" HTTP/")[0].decode(), body


class Server:
    """Serves until its pipe is closed by the benchmark."""

    def __init__(self, pipe: Connection, counts: MutableSequence[int], *, pieces: int, every: float) -> None:
        self._pipe = pipe
        self._counts = counts
        self._pieces = pieces
        #: A timer wheel: each turn takes `every` seconds and sends one delta per run, each at its own time.
        self._wheel: list[list[Answer]] = [[] for _ in range(max(1, round(every / TICK)))]
        self._tick = every / len(self._wheel)
        self._place = 0
        self._halts = False
        self._asks: Counter[str] = Counter()
        self._ended: dict[str, str] = {}
        self._runs = Runs()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self._epoll = select.epoll()
        self._lines: dict[int, Line] = {}
        for source in (self._listener, pipe):
            self._epoll.register(source, select.EPOLLIN)

    def serve(self) -> None:
        """Serve. Raises: EOFError: the other end of the pipe is closed."""
        self._pipe.send(f"http://127.0.0.1:{self._listener.getsockname()[1]}")
        due = time.monotonic()
        while True:
            for place, events in self._epoll.poll(max(0.0, due - time.monotonic())):
                self._hear(place, events)
            # A late turn is made up for, so the rate is the configured one.
            while due <= time.monotonic():
                self._speak()
                due += self._tick

    def _speak(self) -> None:
        self._place = (self._place + 1) % len(self._wheel)
        speakers = self._wheel[self._place]
        over = [answer for answer in speakers if len(answer.said) >= answer.pieces]
        for answer in over:
            speakers.remove(answer)
            answer.line.send(answer.end())
            self._ended[answer.run.query] = answer.run.answer
        if self._halts:
            speakers = [answer for answer in speakers if len(answer.said) < answer.may]
        size = 0
        for answer in speakers:
            delta = answer.delta()
            answer.line.send(delta)
            size += len(delta)
        self._counts[DELTAS] += len(speakers)
        self._counts[BYTES] += size

    def _hear(self, place: int, events: int) -> None:
        if place == self._pipe.fileno():
            self._obey(*self._pipe.recv())
        elif place == self._listener.fileno():
            self._welcome()
        else:
            self._serve_line(self._lines[place], events)

    def _obey(self, command: str, how: Any) -> None:
        match command:
            case "finish":
                for answer in (answer for speakers in self._wheel for answer in speakers):
                    answer.pieces = 0
            case "halt":
                self._halts = True
            case "let":
                question, more = how
                for answer in (answer for speakers in self._wheel for answer in speakers):
                    answer.may += more if answer.run.query.startswith(question) else 0
            case "told":
                self._pipe.send((self._ended, self._asks))

    def _welcome(self) -> None:
        sock, _ = self._listener.accept()
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._lines[sock.fileno()] = Line(sock, self._epoll)
        self._epoll.register(sock, select.EPOLLIN)

    def _serve_line(self, line: Line, events: int) -> None:
        try:
            if events & select.EPOLLOUT:
                line.flush()
            if events & ~select.EPOLLOUT:
                for target, body in line.requests():
                    self._reply(line, target, body)
        except OSError:
            del self._lines[line.socket.fileno()]
            line.close()

    def _reply(self, line: Line, target: str, body: bytes) -> None:
        address = urlsplit(target.partition(" ")[2])
        match address.path.split("/")[2:]:
            case ["chat-messages"]:
                self._begin(line, json.loads(body))
            case ["chat-messages", _, "stop"]:
                line.send(_json({"result": "success"}))
            case ["info"]:
                line.send(_json({"name": "cheap", "description": "", "tags": [], "mode": "advanced-chat"}))
            case ["parameters"]:
                line.send(_json({"opening_statement": "", "suggested_questions": [], "user_input_form": []}))
            case ["workflows", "run", run_id] if run := self._runs.find(run_id):
                line.send(_json({"id": run_id, "status": run.status, "outputs": run.outputs}))
            case ["messages"]:
                turns = self._runs.turns(parse_qs(address.query)["conversation_id"][0])
                line.send(_json({"limit": len(turns), "has_more": False, "data": [_row(run) for run in turns]}))
            case _:
                line.send(_json({"code": "not_found", "message": "", "status": 404}, "404 Not Found"))

    def _begin(self, line: Line, asked: dict[str, Any]) -> None:
        if "query" not in asked:
            line.send(_json({"code": "invalid_param", "message": "", "status": 400}, "400 Bad Request"))
            return
        query = asked["query"]
        conversation_id = asked.get("conversation_id") or str(uuid.uuid4())
        run = Run("", user=asked["user"], conversation_id=conversation_id, query=query)
        self._runs.add(run)
        self._asks[query] += 1
        self._counts[RUNS] += 1
        wanted = _WANTED.search(query)
        answer = Answer(run, int(wanted[1]) if wanted else self._pieces, line)
        line.send(_STREAM_HEAD + _chunk(run.workflow_started()))
        self._wheel[self._place].append(answer)


def _row(run: Run) -> dict[str, Any]:
    """Return a message of the history. As in Dify, it is filled when the run has ended."""
    return {"id": run.message_id, "status": "normal", "answer": run.saved, "answer_tokens": 19 if run.is_saved else 0}


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _json(payload: dict[str, Any], status: str = "200 OK") -> bytes:
    body = json.dumps(payload, ensure_ascii=False).encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body
