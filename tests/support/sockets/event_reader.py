"""Clients of POST /api/chat: read server-sent events whole, or over HTTP while they arrive."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

import requests

from channels.http_chat.models import ChatAnswered, ChatFailed
from tests.support.servers.processes import wait_until

#: Timeout in seconds within which an event must arrive: long, for a busy machine.
WIDE = 30.0


class Event(NamedTuple):
    name: str
    id: str
    data: Mapping[str, Any]


def events(lines: Iterable[str]) -> Iterator[Event]:
    """Yield the events in complete lines and check each against the documented shape; skip comments."""
    fields: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(": ")
        if line and name:
            fields[name] = value
        elif "event" in fields:
            yield checked(Event(fields["event"], fields["id"], json.loads(fields["data"])))
        if not line:
            fields = {}


def checked(event: Event) -> Event:
    """Return the event after a check of its data against the documented shape."""
    match event.name:
        case "done":
            ChatAnswered.model_validate(event.data)
        case "error":
            assert set(event.data) == {"code", "message", "data"}
            ChatFailed.model_validate(event.data["data"])
        case _:
            said = {"start": {"stream_id"}, "delta": {"content"}, "reasoning": {"content"}, "reset": set()}
            assert set(event.data) == said[event.name]
    return event


class Received(NamedTuple):
    """What a client has received of an answer: the text, and the id of the last event, to resume from."""

    text: str
    last: str


class EventReader:
    """A client that reads one answer's events as they arrive; `kept` is the text that an earlier reader received."""

    def __init__(self, reply: requests.Response, kept: str = "", last: str = "") -> None:
        assert reply.status_code == 200, reply.text
        assert reply.headers["Content-Type"].startswith("text/event-stream")
        self.events: list[Event] = []
        #: Replaced as one, so that another thread never gets the text of one event with the id of another.
        self.received = Received(kept, last)
        self.comments = 0
        self.headers = reply.headers
        self._reply = reply
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    @property
    def text(self) -> str:
        return self.received.text

    @property
    def last(self) -> str:
        return self.received.last

    @property
    def stream_id(self) -> str:
        return str(self.sees("start").data["stream_id"])

    @property
    def over(self) -> bool:
        """Whether the reader has ended, for any reason."""
        return not self._thread.is_alive()

    def named(self, name: str) -> list[Event]:
        return [event for event in list(self.events) if event.name == name]

    def sees(self, name: str) -> Event:
        """Wait for an event with this name, and return the first."""
        wait_until(lambda: self.named(name) or self.over, WIDE)
        return self.named(name)[0]

    def sees_text(self, length: int) -> None:
        wait_until(lambda: len(self.text) >= length or self.over, WIDE)
        assert len(self.text) >= length, self.events

    def sees_end(self) -> Event:
        """Wait until the response has ended, and return its last event."""
        wait_until(lambda: self.over, WIDE)
        return self.events[-1]

    def leaves(self) -> None:
        """Cut the connection without closing the response."""
        with suppress(OSError, AttributeError):
            connection: Any = self._reply.raw.connection
            connection.sock.shutdown(socket.SHUT_RDWR)
        self._thread.join(WIDE)

    def _read(self) -> None:
        with suppress(requests.RequestException, AttributeError, ValueError, OSError):
            for event in events(self._lines()):
                self._take(event)

    def _lines(self) -> Iterator[str]:
        # Not iter_lines: it also splits at U+2028, which is an ordinary character of an answer.
        rest = b""
        for piece in self._reply.iter_content(None):
            *lines, rest = (rest + piece).split(b"\n")
            self.comments += sum(line.startswith(b":") for line in lines)
            yield from (line.decode() for line in lines)

    def _take(self, event: Event) -> None:
        text = "" if event.name == "reset" else self.text
        if event.name == "delta":
            text += event.data["content"]
        self.received = Received(text, event.id)
        self.events.append(event)


class Program:
    """A client with an API key that may use several replicas, and sends further `headers` with each request."""

    def __init__(self, key: str, headers: Mapping[str, str] | None = None) -> None:
        self._headers = {"Authorization": f"Bearer {key}", **(headers or {})}

    def asks(self, url: str, query: str, **fields: Any) -> requests.Response:
        """Ask, and wait for the whole answer."""
        return requests.post(
            f"{url}/api/chat", json={"query": query, **fields}, headers=self._headers, timeout=WIDE * 2
        )

    def reads(self, url: str, query: str, **fields: Any) -> EventReader:
        """Ask, and read the answer while it grows."""
        body = {"query": query, "stream": True, **fields}
        options: dict[str, Any] = {"headers": self._headers, "stream": True, "timeout": WIDE * 2}
        return EventReader(requests.post(f"{url}/api/chat", json=body, **options))

    def comes_back(self, url: str, before: EventReader) -> EventReader:
        """Resume an answer after the last event of an earlier reader, which may be receiving more."""
        text, last = before.received
        headers = {**self._headers, "Accept": "text/event-stream", "Last-Event-ID": last}
        address = f"{url}/api/chat/{before.stream_id}"
        reply = requests.get(address, headers=headers, stream=True, timeout=WIDE * 2)
        return EventReader(reply, text, last)

    def gets(self, url: str, stream_id: str, **headers: str) -> requests.Response:
        """Wait for an existing answer, and return the whole of it."""
        address = f"{url}/api/chat/{stream_id}"
        return requests.get(address, headers={**self._headers, **headers}, timeout=WIDE * 2)

    def cancels(self, url: str, stream_id: str) -> requests.Response:
        return requests.delete(f"{url}/api/chat/{stream_id}", headers=self._headers, timeout=WIDE)
