"""A program that speaks OpenAI's API over plain HTTP, to see every byte that its packages would hide."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import requests

#: Timeout in seconds of a reply: long, for a busy machine.
WIDE = 60.0

Message = Mapping[str, Any]


def user(text: str) -> Message:
    return {"role": "user", "content": text}


def assistant(text: str) -> Message:
    return {"role": "assistant", "content": text}


def pictured(text: str, *urls: str) -> Message:
    """Return a message of the user with pictures, and with text unless it is ""."""
    parts: list[Message] = [{"type": "text", "text": text}] if text else []
    return {"role": "user", "content": [*parts, *({"type": "image_url", "image_url": {"url": url}} for url in urls)]}


def data_url(content: bytes, mime: str = "image/png") -> str:
    return f"data:{mime};base64,{base64.b64encode(content).decode()}"


@dataclass
class StreamedAnswer:
    """The chunks of one stream, in order."""

    chunks: list[dict[str, Any]] = field(default_factory=list)
    done: bool = False

    def joined(self, name: str) -> str:
        """Return the text of one field of all deltas."""
        return "".join(choice["delta"].get(name) or "" for chunk in self.chunks for choice in chunk.get("choices", ()))

    @property
    def content(self) -> str:
        return self.joined("content")

    @property
    def finish(self) -> str | None:
        """The finish reason; None if the stream failed."""
        reasons = [choice["finish_reason"] for chunk in self.chunks for choice in chunk.get("choices", ())]
        return reasons[-1] if reasons else None

    @property
    def error(self) -> dict[str, Any]:
        """The error of the last chunk."""
        error: dict[str, Any] = self.chunks[-1]["error"]
        return error


@dataclass(frozen=True)
class OpenAIProgram:
    """Asks one gateway with one key."""

    url: str
    key: str

    def asks(
        self, *messages: Message | str, headers: Mapping[str, str] | None = None, timeout: float = WIDE, **fields: Any
    ) -> requests.Response:
        """Send a request and return the whole reply within `timeout` seconds; a text is a message of the user."""
        return self._post(messages, headers, fields, stream=False, timeout=timeout)

    def content(self, *messages: Message | str, **options: Any) -> str:
        """Return the answer's text, after a check that it was completed."""
        reply = self.asks(*messages, **options)
        assert reply.status_code == 200, reply.text
        (choice,) = reply.json()["choices"]
        assert choice["finish_reason"] == "stop"
        return str(choice["message"]["content"])

    def streams(
        self, *messages: Message | str, headers: Mapping[str, str] | None = None, **fields: Any
    ) -> StreamedAnswer:
        """Send a request for a stream, and return it once it has ended."""
        with self.begins(*messages, headers=headers, **fields) as events:
            return read(events)

    @contextmanager
    def begins(
        self, *messages: Message | str, headers: Mapping[str, str] | None = None, **fields: Any
    ) -> Iterator[Iterator[str]]:
        """Begin a stream, and yield its data lines while they arrive; the connection is closed afterwards."""
        with self._post(messages, headers, {**fields, "stream": True}, stream=True) as reply:
            assert reply.status_code == 200, reply.text
            assert reply.headers["Content-Type"].startswith("text/event-stream")
            yield (line.decode().removeprefix("data: ") for line in reply.iter_lines() if line.startswith(b"data: "))

    def _post(
        self,
        messages: tuple[Message | str, ...],
        headers: Mapping[str, str] | None,
        fields: Any,
        *,
        stream: bool,
        timeout: float = WIDE,
    ) -> requests.Response:
        listed = [user(one) if isinstance(one, str) else one for one in messages]
        body = json.dumps({"model": "default", "messages": listed, **fields})
        sent = {"Content-Type": "application/json", "Authorization": f"Bearer {self.key}", **(headers or {})}
        return requests.post(f"{self.url}/v1/chat/completions", data=body, headers=sent, stream=stream, timeout=timeout)


def read(events: Iterator[str]) -> StreamedAnswer:
    """Read a stream to its end."""
    answer = StreamedAnswer()
    for data in events:
        if data == "[DONE]":
            answer.done = True
        else:
            answer.chunks.append(json.loads(data))
    return answer


def error_of(reply: requests.Response) -> tuple[int, str | None, str | None]:
    """Return the status, code and param of an error, after a check of its shape."""
    error = reply.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    return reply.status_code, error["code"], error["param"]
