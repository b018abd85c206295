"""Many chat clients in one thread: they ask, record frames with their times, and reconnect when disconnected."""

from __future__ import annotations

import json
import selectors
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.uri import parse_uri

from bench.stage.dify import sent_times

_READ_BYTES = 64 * 1024
#: Timeout of connecting and of sending a frame, in seconds.
_SECONDS = 30.0


class Client:
    """One client of /ws/chat with at most one question."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.question = ""
        self.stream_id = ""
        self.cursor = 0
        self.text = ""
        #: Status in the answer's last frame; "" while it is running.
        self.status = ""
        #: Number of connects.
        self.connects = 0
        #: Seconds from the sending of each delta to its frame.
        self.delays: list[float] = []
        #: The longest time without a delta, in seconds.
        self.pause = 0.0
        self._last_delta = 0.0
        self._socket: socket.socket | None = None
        self._protocol = ClientProtocol(parse_uri("ws://127.0.0.1/"))

    def connect(self, port: int) -> socket.socket:
        """Open the connection, and resume an incomplete answer.

        Raises:
            OSError: the connection or the handshake failed.
        """
        self._protocol = ClientProtocol(parse_uri(f"ws://127.0.0.1:{port}/ws/chat/{self.name}"), max_size=2**24)
        self._socket = socket.create_connection(("127.0.0.1", port), _SECONDS)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._protocol.send_request(self._protocol.connect())
        self._flush()
        while self._protocol.state is State.CONNECTING and (data := self._socket.recv(_READ_BYTES)):
            self._protocol.receive_data(data)
        if self._protocol.state is not State.OPEN:
            raise ConnectionError(f"handshake: {self._protocol.handshake_exc}")
        self.connects += 1
        if self.stream_id and not self.status:
            self._send({"type": "resume", "stream_id": self.stream_id, "cursor": self.cursor})
        return self._socket

    def ask(self, question: str) -> None:
        self.question, self.stream_id, self.cursor, self.text, self.status = question, "", 0, "", ""
        self._last_delta = time.time()
        self._send({"type": "chat", "id": question, "content": question})

    def read(self) -> bool:
        """Read the available frames; return False if the connection is closed."""
        assert self._socket
        try:
            data = self._socket.recv(_READ_BYTES)
        except OSError:
            data = b""
        if not data:
            return False
        self._protocol.receive_data(data)
        self._flush()
        now = time.time()
        for event in self._protocol.events_received():
            if isinstance(event, Frame) and event.opcode is Opcode.TEXT:
                self._take(json.loads(bytes(event.data)), now)
        return self._protocol.state is State.OPEN

    def close(self) -> None:
        if self._socket:
            self._socket.close()

    def _take(self, frame: Mapping[str, Any], now: float) -> None:
        match frame:
            case {"type": "chat", "role": "user"}:
                self.stream_id = frame["stream_id"]
            case {"type": "chat_delta", "content": str(content)}:
                self.text, self.cursor = self.text + content, frame["cursor"]
                self.delays += [now - sent for sent in sent_times(content)]
                self.pause, self._last_delta = max(self.pause, now - self._last_delta), now
            case {"type": "reset"}:
                self.text, self.cursor = "", frame["cursor"]
            case {"type": "chat", "role": "assistant"}:
                self.status = frame["status"] if frame["content"] == self.text else "not what its deltas were"
            case {"type": "error"}:
                self.status = str(frame["code"])

    def _send(self, frame: Mapping[str, Any]) -> None:
        self._protocol.send_text(json.dumps(frame).encode())
        self._flush()

    def _flush(self) -> None:
        assert self._socket
        for data in self._protocol.data_to_send():
            if data:
                self._socket.sendall(data)


class Crowd(ExitStack):
    """Clients read by one thread until the block ends. A client disconnected in an answer reconnects at `port`."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self.port = port
        self._selector = self.enter_context(selectors.DefaultSelector())

    def join(self, client: Client) -> None:
        """Connect a client and read its frames from now on."""
        self._selector.register(client.connect(self.port), selectors.EVENT_READ, client)
        self.callback(client.close)

    def listen_for(self, seconds: float) -> None:
        """Read for this many seconds."""
        self.listen(lambda: False, seconds)

    def listen(self, over: Callable[[], bool], seconds: float) -> bool:
        """Read until `over` returns True, for at most this many seconds; return whether it did."""
        end = time.monotonic() + seconds
        while not over():
            if time.monotonic() > end:
                return False
            for key, _ in self._selector.select(min(0.05, max(0.0, end - time.monotonic()))):
                if not key.data.read():
                    self._reconnect(key.fileobj, key.data)
        return True

    def _reconnect(self, connection: Any, client: Client) -> None:
        self._selector.unregister(connection)
        client.close()
        if client.question and not client.status:
            self.join(client)
