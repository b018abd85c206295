"""One WebSocket of a bot, on the server's side."""

from __future__ import annotations

import heapq
import itertools
import json
import socket
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from websockets.exceptions import WebSocketException
from websockets.sync.server import ServerConnection

from demo.wecom.long_connection.commands import ACK_SECONDS


class BotConnection:
    """Sends frames from a thread of its own: a client that does not read holds up nobody, and acks may be late."""

    def __init__(self, number: int, websocket: ServerConnection) -> None:
        self.number = number
        #: The bot that subscribed here last; "" before.
        self.bot_id = ""
        #: `ping` frames received.
        self.pings = 0
        self.closed = threading.Event()
        self._websocket = websocket
        #: A heap of (time, order, frame); None closes the socket.
        self._waiting: list[tuple[float, int, dict[str, Any] | None]] = []
        self._order = itertools.count()
        self._changed = threading.Condition()
        #: By req_id: the command of a frame whose ack has not left, and when it came.
        self._unacked: dict[str, tuple[str, float]] = {}
        threading.Thread(target=self._write, name=f"long connection {number}", daemon=True).start()

    def put(self, frame: Mapping[str, Any], *, seconds: float = 0.0) -> None:
        """Send a frame after some seconds; earlier frames without delay leave first."""
        self._push(dict(frame), seconds)

    def close_in(self, seconds: float) -> None:
        """Close the socket after some seconds."""
        self._push(None, seconds)

    def drop(self) -> None:
        """Close the socket now, without a closing handshake and without the frames that wait."""
        self.end()
        # Unlike `close_socket`, this also ends a `send` that waits for the client.
        with suppress(OSError):
            self._websocket.socket.shutdown(socket.SHUT_RDWR)

    def end(self) -> None:
        """End the thread that writes: the socket is closed."""
        self.closed.set()
        with self._changed:
            self._changed.notify()

    def awaits_ack(self, req_id: str) -> bool:
        """Return whether a client must wait: an earlier frame's ack has not left, and the client has not timed out.

        A second is allowed for the difference between the client's clock and the server's.
        """
        with self._changed:
            waiting = self._unacked.get(req_id)
            return waiting is not None and time.monotonic() - waiting[1] < ACK_SECONDS - 1

    def unacked(self, cmd: str) -> int:
        """Return the number of a command's frames whose ack has not left."""
        with self._changed:
            return sum(waiting == cmd for waiting, _ in self._unacked.values())

    def received(self, cmd: str, req_id: str) -> None:
        """Note a frame whose ack has not left."""
        with self._changed:
            self._unacked[req_id] = cmd, time.monotonic()

    def _push(self, frame: dict[str, Any] | None, seconds: float) -> None:
        with self._changed:
            heapq.heappush(self._waiting, (time.monotonic() + seconds, next(self._order), frame))
            self._changed.notify()

    def _write(self) -> None:
        with suppress(WebSocketException, OSError):
            while (frame := self._next()) is not None:
                self._websocket.send(json.dumps(frame, ensure_ascii=False))
            if not self.closed.is_set():
                self._websocket.close()

    def _next(self) -> dict[str, Any] | None:
        """Wait for the next frame that is due; None when the socket is to be closed, or is."""
        with self._changed:
            while not self.closed.is_set():
                pause = self._waiting[0][0] - time.monotonic() if self._waiting else None
                if pause is not None and pause <= 0:
                    frame = heapq.heappop(self._waiting)[2]
                    if frame is not None and "cmd" not in frame:
                        self._unacked.pop(frame["headers"]["req_id"], None)
                    return frame
                self._changed.wait(pause)
        return None
