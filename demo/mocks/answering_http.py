"""The HTTP handler of the mock answer services: reads questions, sends error replies, plays scripts to clients."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from demo.mocks.dify.answers import answer_to, marker
from demo.mocks.dify.player import StreamClient, whole
from demo.mocks.dify.wire import Cut, Delay, Step
from demo.mocks.http import Handler

if TYPE_CHECKING:
    from demo.mocks.answering import MockAnswering

#: Seconds between two checks of whether the client of a waiting script is still connected.
_LOOK = 0.05
#: Bytes of the largest question: it may have pictures in it.
_MAX_BODY = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class ReceivedQuestion:
    """A request to the generating path, including rejected ones. Header names are in lower case."""

    path: str
    headers: Mapping[str, str]
    body: Mapping[str, Any]
    question: str


@dataclass(frozen=True, slots=True)
class WholeReply:
    """A reply that is not a stream."""

    status: int
    body: bytes
    media: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def json(
        cls, payload: Any, status: int = 200, *, indent: int | None = None, headers: Mapping[str, str] | None = None
    ) -> WholeReply:
        return cls(status, json.dumps(payload, ensure_ascii=False, indent=indent).encode(), headers=headers or {})


BAD_GATEWAY = WholeReply(
    502, b"<html><head><title>502 Bad Gateway</title></head><body>nginx</body></html>", "text/html"
)


@dataclass(frozen=True, slots=True)
class AnswerScript:
    """One behaviour. `answer` returns the complete answer a client must receive; "" if the script ends without one."""

    #: Returns the steps of a stream, or a whole reply, for a question and the mock.
    play: Callable[[ReceivedQuestion, Any], Iterator[Step] | WholeReply]
    answer: Callable[[str], str] = answer_to
    media: str = "text/event-stream; charset=utf-8"
    #: If False, the body has neither a length nor chunks: it ends with the connection.
    chunked: bool = True
    #: Rewrites the bytes of a step; each element of the result is written separately.
    cut: Callable[[bytes], list[bytes]] = whole
    error_reply: WholeReply | None = None
    #: How often a question gets the error reply before it is answered; None means always.
    error_times: int | None = None
    #: Seconds until the response's headers are sent.
    headers_after: float = 0.0


class AnsweringHandler(Handler):
    mock: MockAnswering
    timeout = 60.0

    def get(self) -> None:
        mock = self.mock
        if self.path == mock.generating:
            mock.record(ReceivedQuestion(self.path, self._headers, {}, ""))
        else:
            mock.looks.append((self.path, self.authorization))
        if not self._authorized():
            self._send(mock.error_reply(401, "invalid_api_key"))
        else:
            self._send(mock.look(self.path) or mock.error_reply(404, "not_found"))

    def post(self) -> None:
        mock = self.mock
        body = self.json_body(_MAX_BODY)
        question = mock.question(body) if isinstance(body, dict) else None
        if self.path == mock.generating:
            mock.record(
                ReceivedQuestion(self.path, self._headers, body if isinstance(body, dict) else {}, question or "")
            )
        if not self._authorized():
            self._send(mock.error_reply(401, "invalid_api_key"))
        elif self.path != mock.generating:
            self._send(mock.error_reply(404, "not_found"))
        elif isinstance(body, dict) and (reply := mock.field_error(body)):
            self._send(reply)
        elif question is None:
            self._send(mock.error_reply(400, "invalid_request_error"))
        else:
            self._answer(ReceivedQuestion(self.path, self._headers, body, question))

    @property
    def _headers(self) -> dict[str, str]:
        return {name.lower(): value for name, value in self.headers.items()}

    def _authorized(self) -> bool:
        wanted = self.mock.api_key
        return not wanted or self.headers.get("Authorization") == f"Bearer {wanted}"

    def _answer(self, asked: ReceivedQuestion) -> None:
        mock = self.mock
        script = mock.scripts().get(marker(asked.question) or mock.default)
        if script is None:
            self._send(mock.error_reply(400, "no_such_script"))
        elif script.error_reply is not None and mock.sends_error(script, asked.question):
            self._send(script.error_reply)
        elif isinstance(reply := script.play(asked, mock), WholeReply):
            self._send(reply)
        else:
            with mock.streaming():
                self._stream(script, reply)

    def _stream(self, script: AnswerScript, steps: Iterator[Step]) -> None:
        mock = self.mock
        client = StreamClient(self.connection, limit=mock.limit, chunked=script.chunked, cut=script.cut)
        ends = time.monotonic() + mock.limit
        self.close_connection = True
        if not self._wait(script.headers_after, client, ends):
            return
        self.begin_stream(script.media, chunked=script.chunked)
        if all(self._step(step, client, ends) for step in steps):
            client.finish()
            self.close_connection = not script.chunked

    def _step(self, step: Step, client: StreamClient, ends: float) -> bool:
        if isinstance(step, Cut):
            client.reset()
            return False
        if isinstance(step, Delay):
            return self._wait(step.seconds, client, ends)
        if isinstance(step, bytes):
            client.write(step)
        return time.monotonic() < ends

    def _wait(self, seconds: float, client: StreamClient, ends: float) -> bool:
        until = min(time.monotonic() + seconds, ends)
        while (left := until - time.monotonic()) > 0 and not self.mock.closing.is_set():
            client.watch(min(left, _LOOK))
        return time.monotonic() < ends and not self.mock.closing.is_set()

    def _send(self, reply: WholeReply) -> None:
        self.send(reply.status, reply.body, reply.media, reply.headers)
