"""The client end of a WebSocket for tests: sends any frame or byte, and reads as slowly as the test wants."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from dataclasses import fields
from types import TracebackType
from typing import Any, cast

from websockets.frames import Close, Frame, Opcode
from websockets.protocol import CLIENT, Protocol

from channels.sockets.socket import Closed, Socket, SocketTimes, converse
from tests.support.servers.processes import wait_until

#: Timeout in seconds of each step; it only ends a stuck test.
TIMEOUT = 30.0


def tcp_pair(*, buffer: int = 0) -> tuple[socket.socket, socket.socket]:
    """Return both ends of a connection; `buffer` limits the kernel's bytes towards the far end, 0 for its default."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        far = socket.socket()
        if buffer:
            far.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
        far.connect(listener.getsockname())
        near, _ = listener.accept()
    far.settimeout(TIMEOUT)
    return near, far


class Endpoint:
    """An endpoint that records its calls; the test may set `on_text` and `on_open`."""

    busy = False

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.ends: list[Closed] = []
        self.on_open: Callable[[], None] = lambda: None
        self.on_text: Callable[[str], None] = lambda text: None

    def opened(self) -> None:
        self.on_open()

    def received(self, text: str) -> None:
        self.texts.append(text)
        self.on_text(text)

    def closed(self, closed: Closed) -> None:
        self.ends.append(closed)


class FarEnd:
    """A product socket with its reader in a thread, and the client's end of the connection."""

    def __init__(self, *, buffer: int = 0, endpoint: Endpoint | None = None, **options: Any) -> None:
        self.near, self.raw = tcp_pair(buffer=buffer)
        # Longer than a machine may stand still, so that no close ends before the client has answered it.
        times = {"close_seconds": TIMEOUT, **options}
        given = {field.name: times.pop(field.name) for field in fields(SocketTimes) if field.name in times}
        self.socket = Socket(self.near, times=SocketTimes(**given), **times)
        self.endpoint = endpoint or Endpoint()
        self._protocol = Protocol(CLIENT, max_size=None)
        self._frames: list[Frame] = []
        self._reader = threading.Thread(target=converse, args=(self.socket, self.endpoint), daemon=True)
        self._reader.start()

    def __enter__(self) -> FarEnd:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.raw.close()
        self._reader.join(TIMEOUT)
        self.near.close()

    def put(self, opcode: Opcode, data: bytes = b"", *, fin: bool = True) -> None:
        """Send a frame."""
        self.raw.sendall(masked(opcode, data, fin=fin))

    def says(self, text: str) -> None:
        self.put(Opcode.TEXT, text.encode())

    def closes(self, code: int, reason: str = "") -> None:
        self.put(Opcode.CLOSE, Close(code, reason).serialize())

    def frame(self) -> Frame:
        """Return the next frame."""
        while not self._frames:
            data = self.raw.recv(65536)
            assert data, "the connection ended"
            self._protocol.receive_data(data)
            self._frames += cast(list[Frame], self._protocol.events_received())
            assert self._protocol.parser_exc is None, repr(self._protocol.parser_exc)
        return self._frames.pop(0)

    def sees(self) -> dict[str, Any]:
        """Return the next frame, which must be a text, as JSON."""
        frame = self.frame()
        assert frame.opcode is Opcode.TEXT
        return cast(dict[str, Any], json.loads(bytes(frame.data)))

    def message(self) -> dict[str, Any]:
        """Return the next message, of one frame or several, as JSON."""
        frames = [self.frame()]
        while not frames[-1].fin:
            frames.append(self.frame())
        assert [frame.opcode for frame in frames] == [Opcode.TEXT, *[Opcode.CONT] * (len(frames) - 1)]
        return cast(dict[str, Any], json.loads(b"".join(bytes(frame.data) for frame in frames)))

    def close_frame(self) -> Close:
        """Return the content of the next frame, which must be a close frame."""
        frame = self.frame()
        assert frame.opcode is Opcode.CLOSE
        return Close.parse(frame.data)

    def eof(self) -> bool:
        """Return whether the connection ends without another byte."""
        return self.raw.recv(1) == b""

    def hangs_up(self) -> None:
        """Close the sending direction of the connection: no more data follows."""
        self.raw.shutdown(socket.SHUT_WR)

    def vanishes(self) -> None:
        """Reset the connection, as a machine does that has restarted."""
        self.raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.raw.close()

    def end(self) -> Closed:
        """Wait until the socket is closed, and return how."""
        self._reader.join(TIMEOUT)
        assert not self._reader.is_alive()
        (closed,) = self.endpoint.ends
        return closed

    def heard(self, count: int) -> list[str]:
        """Wait until `count` messages have been received, and return all of them."""
        wait_until(lambda: len(self.endpoint.texts) >= count, TIMEOUT)
        return self.endpoint.texts


def masked(opcode: Opcode, data: bytes = b"", *, fin: bool = True) -> bytes:
    """Return a frame's bytes, masked as a client sends them."""
    return Frame(opcode, data, fin).serialize(mask=True)


def in_thread(work: Callable[[], Any]) -> Callable[[], Any]:
    """Start `work` in a thread; return a function that waits for its result."""
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(work()), daemon=True)
    thread.start()

    def result() -> Any:
        thread.join(TIMEOUT)
        assert results, "it did not return"
        return results[0]

    return result
